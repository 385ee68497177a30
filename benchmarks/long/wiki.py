"""Thirty minutes of BERT-mini on Wikipedia, then 1,000 labels: is pretraining worth it?

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
SHORT, LONG, SHORT_SHARE = 32, 128, 0.6
"""Tokens a sequence in the two phases, and the first one's share of the time.

A fresh encoder must learn where its neighbours are before it can learn anything from them, and it
learns that for every position apart: with 128 positions it sits at the loss of guessing by
frequency for thousands of steps, with 32 it leaves within hundreds. The second phase adds next
sentences: nothing else teaches the first token, which classifiers read, to stand for a text.
"""
PHASES = {
    "short": ("mlm", SHORT, {"rate": 0.3}),
    "pretrained": ("mlm+nsp", LONG, {}),
}
"""Of each phase: objectives, window, and settings of `mlm`."""
LR = {"short": 3e-3, "pretrained": 1e-3}
"""Of each phase; the second one begins from what the first has learned."""
SEEDS = (0, 1, 2)
LABELLED = 1000


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
    for size in (LABELLED, None):
        baseline(data, size, options.language)
        for seed in SEEDS:
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
    done = find(options.language, kind="pretrain")
    if done is not None:
        return out / "pretrained" / "bundle"
    share = options.minutes * SHORT_SHARE
    short = phase(out, "short", duration(share, options.rate), None)
    rest = duration(options.minutes - share, options.rate)
    made = phase(out, "pretrained", rest, short.bundle)
    values = {"minutes": options.minutes, "rate": options.rate}
    values |= {"short": short.cost, "long": made.cost}
    losses = {"unigram": made.unigram, "held_out": made.held_out["mlm"]}
    losses["nsp"] = made.held_out["nsp"]
    record(options.language, {"kind": "pretrain", **values, **losses})
    return made.bundle


def duration(minutes: float, rate: float | None) -> str:
    """Minutes as they are, or the tokens of so many at a rate."""
    return f"{minutes:g} minutes" if rate is None else f"{minutes * 60 * rate:.0f} tokens"


def phase(out: Path, name: str, length: str, model: Path | None) -> Any:
    """One phase of pretraining, going on from the one before."""
    task, window, mlm = PHASES[name]
    return clozeworks.pretrain(
        clozeworks.PretrainRecipe(
            task=task,
            data=out / "shards",
            out=out / name,
            size="mini",
            model=model,
            max_length=window,
            settings=mlm if task == "mlm" else {"mlm": mlm},
            train=clozeworks.PretrainSettings(
                duration=length, lr=LR[name], batch=2048, warmup=0.05, optimizer="muon"
            ),
        )
    )


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
    parts = [f"below_unigram={pretrain['unigram'] - pretrain['held_out']:.3f}"]
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
        pooled = ((stdev(ours) ** 2 + stdev(chance) ** 2) / 2) ** 0.5
        tfidf = next(r for r in found if r["kind"] == "tfidf" and r["labelled"] == size)
        gain = mean(ours) - mean(chance)
        print(
            f"{size} rows: pretrained {mean(ours):.4f} ± {stdev(ours):.4f}, from chance "
            f"{mean(chance):.4f} ± {stdev(chance):.4f}, TF-IDF {tfidf['accuracy']:.4f}"
        )
        parts += [f"gain_{size}={100 * gain:.2f}", f"pooled_sd_{size}={100 * pooled:.2f}"]
    print(f"long_wiki_{language}: " + " ".join(parts))


if __name__ == "__main__":
    main()
