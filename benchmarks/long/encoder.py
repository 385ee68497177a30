"""The bilingual encoder that ships with the package, pretrained in as many sittings as there are.

    python benchmarks/long/encoder.py            (--minutes 60 of this sitting, --legs 8)

Everything is in recipes/clozeworks_mini.toml: one tokenizer for both Wikipedias, words hidden
whole, a short phase of 32 tokens, a trunk of legs at one learning rate, and a cooldown. The trunk
knows nothing of its end, so that --legs may be raised whenever there are more hours: what is done
stays, and the next cooldown begins where the longer trunk ends. A sitting ends after its minutes,
or with Ctrl-C, and is taken up by the same command. Legs and the minutes of each sitting are lines
of benchmarks/results/long_encoder.jsonl; the finished model, in bf16, is
runs/encoder/clozeworks-mini.
"""

import argparse
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from clozeworks.core.bundle import CARD
from clozeworks.core.config import read_toml, validated
from clozeworks.core.files import write_folder
from clozeworks.data.prepare import PrepareSettings
from clozeworks.interop.tensors import read_tensors, write_tensors
from clozeworks.text.train import TokenizerSettings
from corpora import prepared
from harness.measure import DATA, started
from ledger import Ledger, Row
from phases import Phase, longer
from phases import pretrained as one_phase

RECIPE = Path(__file__).parents[2] / "recipes" / "clozeworks_mini.toml"
OWN = {"tokens", "legs", "share", "train"}
"""Keys of a phase that are none of `pretrain`'s recipe."""


class Encoder:
    """The recipe, the folder its runs are in, what is known of them, and the sitting's end."""

    def __init__(self, recipe: Mapping[str, Any], out: Path, until: float = math.inf) -> None:
        self.recipe, self.out, self.until = recipe, out, until
        self.ledger = Ledger("long_encoder", out)
        self.shards = out / "shards"

    def prepare(self) -> None:
        """The tokenizer and the shards of both corpora."""
        files = [DATA / name for name in self.recipe["corpora"]]
        tokenizer = validated(TokenizerSettings, self.recipe["tokenizer"], str(RECIPE))
        prepared(files, self.out, tokenizer, settings_of(self.recipe))

    def trained(self, legs: int) -> Path:
        """The model after so many legs and a cooldown; what is done already stays."""
        model = self._run("short", "short", 0, self.recipe["short"]["tokens"], None)
        leg = self.recipe["trunk"]["tokens"]
        for number in range(1, legs + 1):
            model = self._run(f"leg-{number}", "trunk", number, leg, model)
        tokens = round(self.recipe["cooldown"]["share"] * legs * leg)
        return self._run(f"cooldown-{legs}", "cooldown", legs + 1, tokens, model)

    def _run(self, name: str, kind: str, seed: int, tokens: int, model: Path | None) -> Path:
        """One run, going on from a model. Each has a seed of its own: the seed decides the order
        of the text, and a leg must not read the beginning of it once more.
        """
        out = self.out / name
        phase, positions = phase_of(self.recipe, kind, seed)
        key: Row = {"kind": "run", "name": name, "tokens": tokens}
        key |= {"recipe": {**phase.recipe}, "train": {**phase.train}}
        if self.ledger.find(**key) and (out / "bundle").exists():
            return out / "bundle"
        if time.monotonic() > self.until:  # a run in its last step does not heed the alarm
            raise KeyboardInterrupt
        if model is not None and positions_of(model) < positions:
            model = longer(model, positions, self.out / f"{name}-start")
        run = {"data": self.shards, "out": out, "model": model}
        made = one_phase(phase, run, f"{tokens} tokens")
        found: Row = {"cost": made.cost, "unigram": made.unigram, "held_out": made.held_out}
        self.ledger.add({**key, **found})
        return made.bundle


def settings_of(recipe: Mapping[str, Any]) -> PrepareSettings:
    """How the corpora are cut."""
    return validated(PrepareSettings, recipe["prepare"], str(RECIPE))


def phase_of(recipe: Mapping[str, Any], kind: str, seed: int) -> tuple[Phase, int]:
    """A table of the recipe as a phase, and how many positions it needs."""
    table, shared = recipe[kind], recipe["shared"]
    values = {**shared, **table}
    own = {key: value for key, value in values.items() if key not in OWN}
    if kind == "short":  # the first encoder has no more positions than it reads
        own["encoder"] = {"max_positions": table["max_length"]}
    train = {**shared["train"], **table["train"], "seed": seed}
    return Phase(1.0, own, train), table["max_length"]


def positions_of(bundle: Path) -> int:
    """How long a text a model can read."""
    found: int = json.loads((bundle / "config.json").read_text("utf-8"))["max_position_embeddings"]
    return found


def ship(bundle: Path, out: Path) -> int:
    """Write the model in bf16, its origin without the place of its runs; returns the bytes."""
    with write_folder(out, replace=True) as aside:
        shutil.copytree(bundle, aside, dirs_exist_ok=True)
        weights = aside / "model.safetensors"
        state = {name: tensor.to(torch.bfloat16) for name, tensor in read_tensors(weights).items()}
        weights.unlink()
        write_tensors(weights, state)
        card = (aside / CARD).read_text("utf-8").replace(f"{bundle.parents[1]}/", "")
        (aside / CARD).write_text(card, "utf-8")
        config = json.loads((aside / "config.json").read_text("utf-8"))
        config["dtype"] = "bfloat16"
        (aside / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def stop_after(minutes: float | None) -> None:
    """Ask this process to end after so many minutes, as if by SIGTERM: a run then saves itself."""
    if minutes is not None:
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes)


def main(options: argparse.Namespace) -> None:
    recipe = read_toml(options.recipe)
    minutes = math.inf if options.minutes is None else options.minutes
    encoder = Encoder(recipe, options.out, time.monotonic() + 60 * minutes)
    stop_after(options.minutes)
    began, date = time.monotonic(), time.strftime("%Y-%m-%d %H:%M %Z")
    try:
        encoder.prepare()
        bundle = encoder.trained(options.legs or recipe["trunk"]["legs"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        minutes = (time.monotonic() - began) / 60
        encoder.ledger.add({"kind": "sitting", "began": date, "minutes": minutes})
        told = hours(encoder.ledger)
        print(f"this sitting: {minutes:.1f} minutes; all of them: {told:.2f} hours", flush=True)
    size = ship(bundle, options.out / "clozeworks-mini")
    summarise(encoder.ledger, options.legs or recipe["trunk"]["legs"], size)


def hours(ledger: Ledger) -> float:
    """How long all sittings took."""
    return sum(row["minutes"] for row in ledger.rows(kind="sitting")) / 60


def curve(ledger: Ledger, legs: int) -> list[Row]:
    """The runs that the model of so many legs came through, and none beside them."""
    names = ("short", *(f"leg-{number}" for number in range(1, legs + 1)), f"cooldown-{legs}")
    return [ledger.rows(kind="run", name=name)[-1] for name in names]


def summarise(ledger: Ledger, legs: int, size: int) -> None:
    """The curve, and one line at the end."""
    runs = curve(ledger, legs)
    for row in runs:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in row["held_out"].items())
        print(f"{row['name']:<12} {losses}  ({row['cost']})")
    held = runs[-1]["held_out"]
    print(
        f"long_encoder: hours={hours(ledger):.2f} mlm={held['mlm']:.4f} "
        f"below_unigram={runs[-1]['unigram'] - held['mlm']:.3f} "
        f"nsp_accuracy={held['nsp_accuracy']:.4f} megabytes={size / 1e6:.1f}"
    )


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--minutes", type=float, help="of this sitting; without it, to the end")
    flags.add_argument("--legs", type=int, help="of the trunk; by default the recipe's")
    flags.add_argument("--recipe", type=Path, default=RECIPE)
    flags.add_argument("--out", type=Path, default=Path("runs/encoder"))
    started(flags, main)
