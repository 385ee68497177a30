"""Does next-sentence prediction learn? BERT-mini, mlm+nsp, 2,000 steps of Wikipedia in English.

    python benchmarks/long/nsp.py          (--steps 2000, --out runs/long)

Resumable at any point: each stage keeps what it made, the run goes on from its last checkpoint, and
the result is a line of benchmarks/results/long_nsp.jsonl. Tokenizer and shards are those of
long/wiki.py where that has run. Twenty steps show that it works; they teach nothing.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import clozeworks
from clozeworks.text.train import TokenizerSettings

DATA = Path(os.environ.get("CLOZEWORKS_DATA", "../shared/data"))
CORPUS = "wiki_en/wiki_en.txt.xz"
RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8192, help="tokens a step")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--held-out-tokens", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    options = parser.parse_args()
    key = {name: value for name, value in vars(options).items() if name != "out"}
    run = options.out / "en" / "-".join(["nsp", *map(str, key.values())])
    row = find(key)
    if row is None:
        row = {**key, **measured(shards(options.out / "en"), run, key)}
        record(row)
    summarise(row)


def shards(out: Path) -> Path:
    """The corpus in tokens, made once."""
    corpus = DATA / CORPUS
    if not (out / "tokenizer").exists():
        settings = TokenizerSettings(vocab_size=16_000)
        recipe = {"files": [corpus], "out": out / "tokenizer", "settings": settings}
        clozeworks.tokenizer(clozeworks.TokenizerRecipe(**recipe))
    clozeworks.prepare(
        clozeworks.PrepareRecipe(files=[corpus], tokenizer=out / "tokenizer", out=out / "shards")
    )
    return out / "shards"


def measured(data: Path, run: Path, key: dict[str, Any]) -> dict[str, Any]:
    """The run, what its last judgement says, and how accuracy rose."""
    made = clozeworks.pretrain(
        clozeworks.PretrainRecipe(
            task="mlm+nsp",
            data=data,
            out=run,
            size="mini",
            max_length=key["max_length"],
            held_out_tokens=key["held_out_tokens"],
            train=clozeworks.PretrainSettings(
                duration=f"{key['steps']} steps", lr=key["lr"], batch=key["batch"], warmup=0.05
            ),
        )
    )
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    events = [event for event in map(json.loads, lines) if "held_out" in event]
    return {
        "held_out": made.held_out,
        "label_share": made.label_share,
        "unigram": made.unigram,
        "cost": made.cost,
        "rising": [(event["step"], event["held_out"]["nsp_accuracy"]) for event in events],
    }


def summarise(row: dict[str, Any]) -> None:
    """How accuracy rose, and one line at the end."""
    for step, accuracy in row["rising"]:
        print(f"step {step:>6,}: held-out accuracy of next sentences {accuracy:.4f}")
    held, share = row["held_out"], row["label_share"]
    chance = max(share, 1 - share)
    print(f"share of label 1 among held-out pairs: {share:.4f}; {row['cost']}")
    figures = {
        "nsp_accuracy": held["nsp_accuracy"],
        "label_share": share,
        "above_chance": 100 * (held["nsp_accuracy"] - chance),
        "nsp": held["nsp"],
        "mlm": held["mlm"],
        "below_unigram": row["unigram"] - held["mlm"],
    }
    print(f"long_nsp: steps={row['steps']} " + " ".join(f"{k}={v:.4f}" for k, v in figures.items()))


def record(row: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "long_nsp.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def find(key: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a run with these values, if one is done."""
    path = RESULTS / "long_nsp.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((row for row in map(json.loads, lines) if key.items() <= row.items()), None)


if __name__ == "__main__":
    main()
