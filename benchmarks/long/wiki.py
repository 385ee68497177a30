"""Thirty minutes of BERT-mini on Wikipedia, then 1,000 labels: is pretraining worth it?

It also shows whether next sentences are learned: the second phase is more than 2,000 steps long.

    python benchmarks/long/wiki.py en          (or zh; --minutes 30, --out runs/long)

Where something else is at work on the machine, --rate says how many tokens a second it does when
quiet (`benchmarks/pretrain.py` measures it): the minutes are then counted in tokens.

Resumable at any point: each stage keeps what it made, and each result is a line of
benchmarks/results/long_wiki_en.jsonl as soon as it is there.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import clozeworks
from clozeworks.core.files import write_file
from clozeworks.core.records import as_json
from clozeworks.data.read import read_examples
from clozeworks.evaluation.baseline import Baseline
from clozeworks.evaluation.classify import judge
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.text.train import TokenizerSettings
from clozeworks.train.loop import TrainSettings

DATA = Path(os.environ.get("CLOZEWORKS_DATA", "../shared/data"))
RESULTS = Path(__file__).parents[1] / "results"
LANGUAGES = {
    "en": ("wiki_en/wiki_en.txt.xz", "sst2", "dev"),
    "zh": ("wiki_zh/wiki_zh.txt.xz", "chnsenticorp", "test"),
}
"""Corpus, labelled set, and the part of it that is judged on."""
SHORT, LONG, SHORT_SHARE = 32, 128, 0.4
"""Tokens a sequence in the two phases, and the first one's share of the time.

A fresh encoder must learn where its neighbours are before it can learn anything from them, and it
learns that for every position apart: with 128 positions it sits at the loss of guessing by
frequency for thousands of steps, with 32 it leaves within hundreds. The second phase begins with
the 32 positions over and over, so that it need not learn them again, and adds next sentences:
nothing else teaches the first token, which classifiers read, to stand for a text.
"""
POSITIONS = 512
"""Those of the finished model."""
PHASES: dict[str, dict[str, Any]] = {
    "short": {
        "task": "mlm",
        "encoder": {"max_positions": SHORT},
        "max_length": SHORT,
        "settings": {"rate": 0.3},
    },
    "pretrained": {
        "task": "mlm+nsp",
        "max_length": LONG,
        "settings": {"mlm": {"rate": "0.3 -> 0.15"}},
    },
}
TRAIN = {
    "short": {"lr": 3e-3, "schedule": "constant", "warmup": 0.05},
    "pretrained": {"lr": 2e-3, "schedule": "linear", "warmup": 0.05},
}
"""The rate falls only once: what the first phase has learned is not shaken twice."""
BATCH = 4096
"""Tokens a step."""
LABELLED = 1000
SEEDS = {LABELLED: (0, 1, 2), None: (0,)}
"""Of the runs with few labels and with all; long/lstm.py has more seeds of the latter."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, help="tokens a second of the quiet machine")
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    options = parser.parse_args()
    corpus, labelled, judged = LANGUAGES[options.language]
    out = options.out / options.language
    bundle = pretrained(DATA / corpus, out, options)
    data = rows(DATA / labelled, out, judged)
    for size, seeds in SEEDS.items():
        baseline(data, size, options.language)
        for seed in seeds:
            for scratch in (False, True):
                classified(bundle, data, out, (size, seed, scratch), options.language)
    summarise(options.language)


def pretrained(corpus: Path, out: Path, options: argparse.Namespace) -> Path:
    if not (out / "tokenizer").exists():
        clozeworks.tokenizer(
            clozeworks.TokenizerRecipe(
                files=[corpus], out=out / "tokenizer", settings=TokenizerSettings(vocab_size=16_000)
            )
        )
    clozeworks.prepare(
        clozeworks.PrepareRecipe(files=[corpus], tokenizer=out / "tokenizer", out=out / "shards")
    )
    if find(options.language, kind="pretrain") is not None:
        return out / "pretrained" / "bundle"
    share = options.minutes * SHORT_SHARE
    short = phase(out, "short", duration(share, options.rate))
    longer = out / "longer"
    if not longer.exists():
        recipe = {"model": short.bundle, "positions": POSITIONS, "out": longer}
        clozeworks.extend(clozeworks.ExtendRecipe(**recipe))
    made = phase(out, "pretrained", duration(options.minutes - share, options.rate), longer)
    values = {"minutes": options.minutes, "rate": options.rate}
    values |= {"short": short.cost, "long": made.cost, "short_held_out": short.held_out}
    losses = {"unigram": made.unigram, "held_out": made.held_out["mlm"]}
    pairs = {"nsp": made.held_out["nsp"], "nsp_accuracy": made.held_out["nsp_accuracy"]}
    pairs |= {"label_share": made.label_share, "rising": rising(out / "pretrained")}
    record(options.language, {"kind": "pretrain", **values, **losses, **pairs})
    return made.bundle


def duration(minutes: float, rate: float | None) -> str:
    """Minutes as they are, or the tokens of so many at a rate."""
    return f"{minutes:g} minutes" if rate is None else f"{minutes * 60 * rate:.0f} tokens"


def phase(out: Path, name: str, length: str, model: Path | None = None) -> Any:
    """One phase of pretraining, going on from a model if there is one."""
    train = {"duration": length, "batch": BATCH, "optimizer": "muon", **TRAIN[name]}
    recipe = {"data": out / "shards", "out": out / name, "size": "mini", "model": model}
    recipe |= {**PHASES[name], "train": clozeworks.PretrainSettings.model_validate(train)}
    return clozeworks.pretrain(clozeworks.PretrainRecipe.model_validate(recipe))


def rising(run: Path) -> list[tuple[int, float]]:
    """Step by step, the share of held-out pairs that were told right."""
    events = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [(e["step"], e["held_out"]["nsp_accuracy"]) for e in events if "held_out" in e]


def rows(folder: Path, out: Path, judged: str) -> dict[str, Path]:
    """The labelled files; a fixed draw of 1,000 training rows, a dev part of it for calibration."""
    train = list(read_examples(folder / "train.jsonl.gz", ClassifyExample, {}))
    few = out / f"train-{LABELLED}.jsonl"
    drawn = random.Random(0).sample(train, LABELLED)
    with write_file(few) as stream:
        stream.writelines(json.dumps(as_json(e), ensure_ascii=False) + "\n" for e in drawn)
    return {
        "few": few,
        "all": folder / "train.jsonl.gz",
        "test": folder / f"{judged}.jsonl.gz",
    }


def classified(
    bundle: Path,
    data: dict[str, Path],
    out: Path,
    setting: tuple[int | None, int, bool],
    language: str,
) -> None:
    size, seed, scratch = setting
    key = {"kind": "finetune", "labelled": size or "all", "seed": seed, "scratch": scratch}
    if find(language, **key) is not None:
        return
    run = out / f"finetune-{size or 'all'}-{seed}-{'scratch' if scratch else 'pretrained'}"
    began = time.monotonic()
    epochs, batch = (10, 16) if size else (2, 32)
    made = clozeworks.finetune(
        clozeworks.FinetuneRecipe(
            task="classify",
            data=data["few" if size else "all"],
            model=bundle,
            out=run,
            scratch=scratch,
            settings={"max_length": 128},
            train=TrainSettings(duration=f"{epochs} epochs", lr=3e-4, batch=batch, seed=seed),
        )
    )
    judged = clozeworks.evaluate(
        clozeworks.EvaluateRecipe(model=made.bundle, data=data["test"], out=run / "evaluation")
    )
    accuracy = judged.evaluation.metrics.accuracy
    record(language, {**key, "accuracy": accuracy, "seconds": time.monotonic() - began})


def baseline(data: dict[str, Path], size: int | None, language: str) -> None:
    key = {"kind": "tfidf", "labelled": size or "all"}
    if find(language, **key) is not None:
        return
    train = list(read_examples(data["few" if size else "all"], ClassifyExample, {}))
    test = list(read_examples(data["test"], ClassifyExample, {}))
    held = max(100, len(train) // 10)
    labels = sorted({str(e.label) for e in train})
    fitted = Baseline.fit(train[held:], train[:held], labels)
    accuracy = judge(fitted.predict(test), test, labels, fitted.calibration).metrics.accuracy
    record(language, {**key, "accuracy": accuracy})


def path_of(language: str) -> Path:
    return RESULTS / f"long_wiki_{language}.jsonl"


def record(language: str, row: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    with path_of(language).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def all_rows(language: str) -> list[dict[str, Any]]:
    path = path_of(language)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def find(language: str, **key: Any) -> dict[str, Any] | None:
    return next((r for r in all_rows(language) if key.items() <= r.items()), None)


def summarise(language: str) -> None:
    """The table, and one line at the end."""
    found = all_rows(language)
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


def spread(values: list[float]) -> float:
    """Standard deviation; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
