"""Pretraining in phases, each going on from the model of the one before, with more positions.

A fresh encoder must learn where its neighbours are before it can learn anything from them, and it
learns that for every position apart: with 128 positions it sits at the loss of guessing by
frequency for thousands of steps, with 32 it leaves within hundreds. A phase that reads longer
sequences begins with the positions that are known over and over, so that it need not learn them
again.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import clozeworks
from clozeworks.api.pretrain import Pretrained
from clozeworks.core.files import write_file
from clozeworks.core.log import silence

POSITIONS = 512
"""Those of the finished model."""
BATCH = 4096
"""Tokens a step."""
SHORT, LONG = 32, 128
"""Tokens a sequence in the two phases of our recipe."""


@dataclass(frozen=True)
class Phase:
    """One run of a pretraining."""

    share: float
    """Of the time."""
    recipe: Mapping[str, Any]
    """What is learned, as a recipe of `pretrain` says it."""
    train: Mapping[str, Any]
    """How, besides duration, as its `train` says it."""


Phases = Mapping[str, Phase]

TWO_PHASES: Phases = {
    "short": Phase(
        0.4,
        {
            "task": "mlm",
            "encoder": {"max_positions": SHORT},
            "max_length": SHORT,
            "settings": {"rate": 0.3},
        },
        {
            "lr": 3e-3,
            "schedule": "constant",
            "warmup": 0.05,
            "batch": BATCH,
            "optimizer": "muon",
        },
    ),
    "pretrained": Phase(
        0.6,
        {
            "task": "mlm+nsp",
            "max_length": LONG,
            "settings": {"mlm": {"rate": "0.3 -> 0.15"}},
        },
        {"lr": 2e-3, "schedule": "linear", "warmup": 0.05, "batch": BATCH, "optimizer": "muon"},
    ),
}
"""The recipe for a short budget. The second phase adds next sentences: nothing else teaches the
first token, which classifiers read, to stand for a text. The rate falls only once: what the first
phase has learned is not shaken twice."""


@dataclass(frozen=True)
class Budget:
    """How long all phases take together: minutes, or the tokens of so many at a rate."""

    minutes: float
    rate: float | Mapping[str, float] | None = None
    """Tokens a second of the quiet machine, of all phases or of each by its name."""

    def duration(self, name: str, share: float) -> str:
        """What a phase of this name and share has of it, as recipes say it."""
        minutes = self.minutes * share
        if self.rate is None:
            return f"{minutes:g} minutes"
        rate = self.rate[name] if isinstance(self.rate, Mapping) else self.rate
        return f"{minutes * 60 * rate:.0f} tokens"


def in_phases(phases: Phases, shards: Path, out: Path, budget: Budget) -> dict[str, Pretrained]:
    """Run them one after the other, each in a folder of its own name; finished ones stay."""
    made: dict[str, Pretrained] = {}
    model: Path | None = None
    for number, (name, phase) in enumerate(phases.items()):
        if number:
            model = longer(made[list(phases)[number - 1]].bundle, POSITIONS, out / "longer")
        run = {"data": shards, "out": out / name, "model": model}
        made[name] = pretrained(phase, run, budget.duration(name, phase.share))
    return made


RATES = "rates.json"
ROUNDS, STEPS, WARM = 3, 16, 4
"""Rounds of measuring, the steps of each, and those of them that do not count."""
FEW = 2000
"""Held-out tokens while a rate is measured: so few steps would be judged after each."""


def measure(recipes: Mapping[str, Phases], shards: Path, home: Path) -> None:
    """Write down the rates of recipes by name, medians of rounds in which they take turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in recipes}
    for number in range(ROUNDS):
        for name, phases in recipes.items():
            found[name].append(rates(phases, shards))
            told = ", ".join(f"{phase} {rate:,.0f}" for phase, rate in found[name][-1].items())
            print(f"round {number + 1} of {ROUNDS}: {name}: {told} tokens/s", flush=True)
    known = measured(home)
    for name, rounds in found.items():
        known[name] = {phase: median(each[phase] for each in rounds) for phase in rounds[0]}
    with write_file(home / RATES) as stream:
        stream.write(json.dumps(known, indent=2) + "\n")


def measured(home: Path) -> dict[str, dict[str, float]]:
    """The rates that were written down in a folder, by recipe and phase."""
    path = home / RATES
    found: dict[str, dict[str, float]] = (
        json.loads(path.read_text("utf-8")) if path.exists() else {}
    )
    return found


def rates(phases: Phases, shards: Path) -> dict[str, float]:
    """Tokens a second of each phase on this machine as it is now: the median of some steps."""
    found = {}
    for name, phase in phases.items():
        with tempfile.TemporaryDirectory() as place, silence():
            out = Path(place) / "run"
            run = {"data": shards, "out": out, "held_out_tokens": FEW}
            pretrained(phase, run, f"{STEPS} steps")
            lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
        steps = [event for event in map(json.loads, lines) if "seconds" in event][WARM:]
        found[name] = median(event["tokens"] / event["seconds"] for event in steps)
    return found


def pretrained(phase: Phase, run: Mapping[str, Any], duration: str) -> Pretrained:
    """One phase; `run` says what it reads, where it is, and what it goes on from."""
    train = clozeworks.PretrainSettings.model_validate({**phase.train, "duration": duration})
    recipe = {"size": "mini", **phase.recipe, **run, "train": train}
    return clozeworks.pretrain(clozeworks.PretrainRecipe.model_validate(recipe))


def longer(model: Path, positions: int, out: Path) -> Path:
    """The model with so many positions, in a folder of its own."""
    if not out.exists():
        clozeworks.extend(clozeworks.ExtendRecipe(model=model, positions=positions, out=out))
    return out
