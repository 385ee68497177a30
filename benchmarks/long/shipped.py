"""The encoder that ships with the package on six public sets, over three seeds.

    python benchmarks/long/shipped.py FOLDER     (--only sst2 …, --seeds 0 …, --without from_minilm)

Each set is learned by the `finetune` verb from the encoder in FOLDER and, in the same way, from the
same shape without its weights; beside them stand TF-IDF with logistic regression (of entities: a
BiLSTM-CRF; of scores: their mean) and, in English, all-MiniLM-L6-v2. A set without test rows is
judged on its dev rows, and a tenth of its training rows is held out for calibration. Where texts
stand alone the pooler, which next sentences shaped, is begun from chance. Resumable at any point;
each result is a line of benchmarks/results/long_shipped.jsonl as soon as it is there.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from beside import from_chance, from_minilm, mean_value, tfidf
from corpora import FRESH_POOLER
from harness.measure import need, started
from judging import judged, summarise
from ledger import Ledger
from trials import ONCE, SEEDS, Trial, adamw, given
from trials import TRIALS as OF_TASKS

TRIALS: dict[str, Trial] = {
    "sst2": Trial(
        "classify",
        given("sst2", "dev"),
        adamw("3 epochs", 3e-4, 64),
        "accuracy",
        "85.9 (BERT-mini, Turc et al. 2019)",
        start=FRESH_POOLER,
        beside={from_chance: SEEDS, tfidf: ONCE, from_minilm: SEEDS},
    ),
    "mrpc": replace(
        OF_TASKS["mrpc"],
        train=adamw("8 epochs", 3e-4),
        wanted="81.1",
        beside={from_chance: SEEDS, from_minilm: SEEDS, **OF_TASKS["mrpc"].beside},
    ),
    "stsb": replace(
        OF_TASKS["stsb"],
        train=adamw("10 epochs", 3e-4),
        wanted="73.3 (pearson 75.4)",
        beside={from_chance: SEEDS, mean_value: ONCE, from_minilm: SEEDS},
    ),
    "chnsenticorp": Trial(
        "classify",
        given("chnsenticorp"),
        adamw("5 epochs", 3e-4),
        "accuracy",
        settings={"max_length": 256},
        start=FRESH_POOLER,
        beside={from_chance: SEEDS, tfidf: ONCE},
    ),
    "afqmc": replace(
        OF_TASKS["afqmc"],
        train=adamw("4 epochs", 3e-4),
        seeds=SEEDS,
        beside={from_chance: SEEDS, **OF_TASKS["afqmc"].beside},
    ),
    "cluener": replace(
        OF_TASKS["cluener"],
        train=adamw("8 epochs", 5e-4),
        beside={from_chance: SEEDS, **OF_TASKS["cluener"].beside},
    ),
}


def main(options: argparse.Namespace) -> None:
    need("transformers")
    ledger = Ledger("long_shipped", options.out)
    tried = {}
    for name in options.only or TRIALS:
        trial = TRIALS[name]
        contest = trial.contest(options.model, options.out / name)
        tried[name] = trial, contest
        judged(ledger, (name, trial), contest, options.seeds, options.without)
    summarise(ledger, tried)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("model", type=Path, metavar="FOLDER")
    flags.add_argument("--only", nargs="+", choices=TRIALS, help="these sets")
    flags.add_argument("--seeds", type=int, nargs="+", help="these alone, of those of each set")
    flags.add_argument("--without", nargs="+", default=(), help="contenders that are left out")
    flags.add_argument("--out", type=Path, default=Path("runs/shipped"))
    started(flags, main)
