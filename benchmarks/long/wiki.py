"""Thirty minutes of BERT-mini on Wikipedia, then 1,000 labels: is pretraining worth it?

It also shows whether next sentences are learned: the second phase is more than 2,000 steps long.

    python benchmarks/long/wiki.py en          (or zh; --minutes 30, --out runs/long)

Where something else will be at work on the machine, --measure first finds, while it is quiet, how
many tokens a second each phase does; from then on the minutes are counted in tokens.

Resumable at any point: each stage keeps what it made, and each result is a line of
benchmarks/results/long_wiki_en.jsonl as soon as it is there.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from clozeworks.data.read import read_examples
from clozeworks.evaluation.baseline import Baseline
from clozeworks.evaluation.classify import judge
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.text.train import TokenizerSettings
from corpora import CORPORA, Labelled, drawn, finetuned, prepared
from harness.measure import DATA
from ledger import Ledger, spread
from phases import TWO_PHASES, Budget, in_phases, measure, measured

LANGUAGES = {"en": ("sst2", "dev"), "zh": ("chnsenticorp", "test")}
"""Labelled set, and the part of it that is judged on."""
OURS = "best"
"""What long/recipes.py calls this recipe."""
LABELLED = 1000
SEEDS = {LABELLED: (0, 1, 2), None: (0,)}
"""Of the runs with few labels and with all; long/lstm.py has more seeds of the latter."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--measure", action="store_true", help="the phases' rates, and stop")
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    options = parser.parse_args()
    folder, judged = LANGUAGES[options.language]
    out = options.out / options.language
    corpus = DATA / CORPORA[options.language]
    shards = prepared([corpus], out, TokenizerSettings(vocab_size=16_000))
    if options.measure:
        measure({OURS: TWO_PHASES}, shards, out)
        return
    budget = Budget(options.minutes, measured(out).get(OURS))
    counted = budget.rate is not None
    ledger = Ledger(f"long_wiki_{options.language}", out, minutes=budget.minutes, counted=counted)
    bundle = pretrained(ledger, shards, out, budget)
    data = rows(DATA / folder, out, judged)
    for size, seeds in SEEDS.items():
        baseline(ledger, data, size)
        for seed in seeds:
            for scratch in (False, True):
                classified(ledger, bundle, data, out, (size, seed, scratch))
    summarise(options.language, ledger)


def pretrained(ledger: Ledger, shards: Path, out: Path, budget: Budget) -> Path:
    if ledger.find(kind="pretrain") is not None:
        return out / "pretrained" / "bundle"
    short, made = in_phases(TWO_PHASES, shards, out, budget).values()
    values = {"short": short.cost, "long": made.cost, "short_held_out": short.held_out}
    losses = {"unigram": made.unigram, "held_out": made.held_out["mlm"]}
    pairs = {"nsp": made.held_out["nsp"], "nsp_accuracy": made.held_out["nsp_accuracy"]}
    pairs |= {"label_share": made.label_share, "rising": rising(out / "pretrained")}
    ledger.add({"kind": "pretrain", "rate": budget.rate, **values, **losses, **pairs})
    return made.bundle


def rising(run: Path) -> list[tuple[int, float]]:
    """Step by step, the share of held-out pairs that were told right."""
    events = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [(e["step"], e["held_out"]["nsp_accuracy"]) for e in events if "held_out" in e]


def rows(folder: Path, out: Path, judged: str) -> dict[str, Path]:
    """The labelled files; a fixed draw of 1,000 training rows, a dev part of it for calibration."""
    train = folder / "train.jsonl.gz"
    return {
        "few": drawn(train, LABELLED, out / f"train-{LABELLED}.jsonl"),
        "all": train,
        "test": folder / f"{judged}.jsonl.gz",
    }


def classified(
    ledger: Ledger,
    bundle: Path,
    data: dict[str, Path],
    out: Path,
    setting: tuple[int | None, int, bool],
) -> None:
    size, seed, scratch = setting
    key = {"kind": "finetune", "labelled": size or "all", "seed": seed, "scratch": scratch}
    if ledger.find(**key) is not None:
        return
    run = out / f"finetune-{size or 'all'}-{seed}-{'scratch' if scratch else 'pretrained'}"
    began = time.monotonic()
    epochs, batch = (10, 16) if size else (2, 32)
    labelled = Labelled(data["few" if size else "all"], data["test"], epochs, batch)
    accuracy = finetuned(bundle, labelled, run, seed, scratch)["accuracy"]
    ledger.add({**key, "accuracy": accuracy, "seconds": time.monotonic() - began})


def baseline(ledger: Ledger, data: dict[str, Path], size: int | None) -> None:
    key = {"kind": "tfidf", "labelled": size or "all"}
    if ledger.find(**key) is not None:
        return
    train = list(read_examples(data["few" if size else "all"], ClassifyExample, {}))
    test = list(read_examples(data["test"], ClassifyExample, {}))
    held = max(100, len(train) // 10)
    labels = sorted({str(e.label) for e in train})
    fitted = Baseline.fit(train[held:], train[:held], labels)
    accuracy = judge(fitted.predict(test), test, labels, fitted.calibration).metrics.accuracy
    ledger.add({**key, "accuracy": accuracy})


def summarise(language: str, ledger: Ledger) -> None:
    """The table, and one line at the end."""
    found = ledger.rows()
    pretrain = next(r for r in found if r["kind"] == "pretrain")
    guessing = max(pretrain["label_share"], 1 - pretrain["label_share"])
    for step, accuracy in pretrain["rising"]:
        print(f"step {step:>6,} of phase 2: next sentences told right {accuracy:.4f}")
    print(f"share of label 1 among held-out pairs: {pretrain['label_share']:.4f}")
    parts = [f"below_unigram={pretrain['unigram'] - pretrain['held_out']:.3f}"]
    above = 100 * (pretrain["nsp_accuracy"] - guessing)
    parts += [f"nsp_above_chance={above:.1f}"]
    for size in (LABELLED, "all"):
        groups = {
            scratch: [
                r["accuracy"]
                for r in found
                if r["kind"] == "finetune" and r["labelled"] == size and r["scratch"] == scratch
            ]
            for scratch in (False, True)
        }
        ours, chance = groups[False], groups[True]
        pooled = ((spread(ours) ** 2 + spread(chance) ** 2) / 2) ** 0.5
        tfidf = next(r for r in found if r["kind"] == "tfidf" and r["labelled"] == size)
        gain = mean(ours) - mean(chance)
        print(
            f"{size} rows: pretrained {mean(ours):.4f} ± {spread(ours):.4f}, from chance "
            f"{mean(chance):.4f} ± {spread(chance):.4f}, TF-IDF {tfidf['accuracy']:.4f}"
        )
        parts += [f"gain_{size}={100 * gain:.2f}", f"pooled_sd_{size}={100 * pooled:.2f}"]
    print(f"long_wiki_{language}: " + " ".join(parts))


if __name__ == "__main__":
    main()
