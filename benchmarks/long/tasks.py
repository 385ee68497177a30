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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from beside import minilm
from harness.measure import need, started
from judging import judged, summarise
from ledger import Ledger
from trials import TRIALS


def main(options: argparse.Namespace) -> None:
    if options.list:
        for name, trial in TRIALS.items():
            print(f"{name:<14} {trial.task:<10} {trial.number:<18} {trial.wanted or ''}")
        return
    need("transformers", "accelerate")
    ledger = Ledger("long_tasks", options.out)
    tried = {}
    for name in options.only or TRIALS:
        trial = TRIALS[name]
        model = minilm() if trial.english else options.chinese
        if not model.exists():
            print(f"{name}: {model} is not there, left out")
            continue
        contest = trial.contest(model, options.out / name)
        tried[name] = trial, contest
        judged(ledger, (name, trial), contest, options.seeds, options.without)
    summarise(ledger, tried)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--only", nargs="+", choices=TRIALS, help="these trials")
    flags.add_argument("--seeds", type=int, nargs="+", help="these alone, of those of each trial")
    flags.add_argument("--without", nargs="+", default=(), help="contenders that are left out")
    flags.add_argument("--list", action="store_true", help="say what there is, and stop")
    flags.add_argument(
        "--chinese", type=Path, default=Path("runs/long/zh/pretrained/bundle"), help="the model"
    )
    flags.add_argument("--out", type=Path, default=Path("runs/tasks"))
    started(flags, main)
