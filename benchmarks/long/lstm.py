"""What came before BERT, beside BERT: a BiLSTM with and without word vectors, on the same task.

    python benchmarks/long/lstm.py en          (or zh; --out runs/lstm, --bert FOLDER)

One command does it all, from recipes/lstm_en.toml (or _zh): word vectors from the Wikipedia corpus
in GloVe's form (skip-gram, by gensim; Chinese by characters, as the tokenizer cuts it), a BiLSTM
with them and one from chance, and, where long/wiki.py has run, its BERT-mini. Each result is a line
of benchmarks/results/long_lstm_en.jsonl as soon as it is there; called again, it goes on.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import clozeworks
from clozeworks.core.config import read_toml
from clozeworks.core.files import read_lines, write_file
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from harness.measure import DATA
from ledger import Ledger, spread, weights_of

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("language", choices=("en", "zh"))
    parser.add_argument("--out", type=Path, default=Path("runs/lstm"))
    parser.add_argument("--bert", type=Path, help="a pretrained BERT; by default long/wiki.py's")
    options = parser.parse_args()
    recipe = read_toml(ROOT / "recipes" / f"lstm_{options.language}.toml")
    out = options.out / options.language
    ledger = Ledger(f"long_lstm_{options.language}", out)
    vectors = trained_vectors(DATA / recipe["corpus"], out / "vectors.txt", recipe["vectors"])
    model = out / "model"
    if not model.exists():
        clozeworks.convert(clozeworks.ConvertRecipe(source=vectors, out=model, size=recipe["size"]))
    bert = options.bert or Path("runs/long") / options.language / "pretrained" / "bundle"
    contenders = {
        "BiLSTM from chance": (model, True),
        "BiLSTM with word vectors": (model, False),
        "BERT-mini": (bert, False),
    }
    for name, (folder, scratch) in contenders.items():
        if not folder.exists():
            print(f"{name}: {folder} is not there, left out")
            continue
        for seed in recipe["seeds"]:
            judged(ledger, name, (folder, scratch, seed), recipe, out)
    summarise(ledger)


def trained_vectors(corpus: Path, path: Path, settings: dict[str, Any]) -> Path:
    """Word vectors of a corpus, one word and its numbers a line."""
    if path.exists():
        return path
    from gensim.models import Word2Vec

    cutter = Tokenizer.of(SPECIAL)

    class Sentences:
        """The corpus's lines as lists of words; gensim reads it several times."""

        def __iter__(self) -> Iterator[list[str]]:
            return (cutter.words(line) for line in read_lines(corpus) if line)

    trained = Word2Vec(Sentences(), sg=1, workers=os.cpu_count() or 1, seed=0, **settings).wv
    with write_file(path) as out:
        for word in trained.index_to_key:
            out.write(f"{word} {' '.join(f'{x:.5f}' for x in trained[word])}\n")
    return path


def judged(
    ledger: Ledger,
    name: str,
    contender: tuple[Path, bool, int],
    recipe: dict[str, Any],
    out: Path,
) -> None:
    """Fine-tune one contender on one seed, evaluate, and write the row."""
    folder, scratch, seed = contender
    run = out / f"{name.replace(' ', '-')}-{seed}"
    own = recipe["bert" if name.startswith("BERT") else "lstm"]
    key = {"contender": name, "seed": seed, "model": weights_of(folder), "train": own}
    if ledger.find(**key) is not None:
        return
    made = clozeworks.finetune(
        clozeworks.FinetuneRecipe(
            task="classify",
            data=DATA / recipe["train"],
            model=folder,
            out=run,
            scratch=scratch,
            settings={"max_length": recipe["max_length"]},
            train=clozeworks.TrainSettings.model_validate({**own, "seed": seed}),
        )
    )
    found = clozeworks.evaluate(
        clozeworks.EvaluateRecipe(
            model=made.bundle, data=DATA / recipe["test"], out=run / "evaluation"
        )
    )
    ledger.add({**key, "accuracy": found.evaluation.metrics.accuracy, "cost": made.cost})


def summarise(ledger: Ledger) -> None:
    """The table, and one line at the end."""
    scores: dict[str, list[float]] = {}
    for row in ledger.rows():
        scores.setdefault(row["contender"], []).append(row["accuracy"])
    parts = []
    for name, found in scores.items():
        print(f"{name}: {mean(found):.4f} ± {spread(found):.4f} over {len(found)} seeds")
        parts.append(f"{name.lower().replace(' ', '_').replace('-', '_')}={mean(found):.4f}")
    print(f"{ledger.name}: " + " ".join(parts))


if __name__ == "__main__":
    main()
