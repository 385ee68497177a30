"""The model card of the encoder that ships: written from what was measured.

    python benchmarks/long/card.py FOLDER --encoder RUNS [--legs N] [--scores RUNS]

Hours and curve are from the ledger of long/encoder.py, scores from that of long/shipped.py, both in
the folders of their runs; README.md is put into FOLDER, which is the finished model's.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from clozeworks.core.config import read_toml
from clozeworks.core.files import write_file
from encoder import RECIPE, curve, hours
from harness.measure import started
from judging import OURS, identity, shown
from ledger import Ledger, Row
from shipped import TRIALS

NAMES = {
    "sst2": "SST-2, dev",
    "mrpc": "MRPC, test",
    "stsb": "STS-B, test",
    "chnsenticorp": "ChnSentiCorp, test",
    "afqmc": "AFQMC, dev",
    "cluener": "CLUENER, dev",
}
CONTENDERS = {
    OURS: "clozeworks-mini",
    "from_chance": "same shape from chance",
    "tfidf": "TF-IDF, logistic regression",
    "bilstm_crf": "BiLSTM-CRF",
    "from_minilm": "all-MiniLM-L6-v2 (22.7 million)",
}
MARKS = {"sst2": "85.9", "mrpc": "81.1", "stsb": "73.3"}
"""BERT-mini of Turc et al. (2019), as its page has it: 3.3 billion words of English."""

CARD = """\
---
language: [en, zh]
license: cc-by-sa-3.0
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, clozeworks]
---

# clozeworks-mini

A BERT of 4 layers and width 256 (7.5 million parameters, {megabytes:.1f} MB in bf16) with one
vocabulary of 16,000 pieces for English and Chinese: small enough to be fine-tuned on a laptop's CPU
in minutes. It comes with Clozeworks, whose `finetune` begins with it where no other model is named,
and opens in `transformers` as `BertForPreTraining`.

## Data and licence

The English and the Chinese half of the text are articles of Wikipedia (English mostly as of 2018;
simplified and traditional Chinese), by their authors under CC BY-SA 3.0: 33,356 articles, 64.6
million characters, {corpus:.1f} million tokens. The weights are given under the same licence,
CC BY-SA 3.0, which is therefore not that of the code around them (Apache 2.0).

## Training

`recipes/clozeworks_mini.toml`, run by `benchmarks/long/encoder.py`; {hours:.2f} hours in all. Words
are hidden whole (30 % of the tokens, 15 % at the end); next sentences are learned beside them; Muon
and AdamW in bf16 with fp32 masters. Loss on held-out articles, in nats; guessing by frequency:
{unigram:.3f}.

{curve}

## Scores

Fine-tuned by `benchmarks/long/shipped.py`; mean and standard deviation over seeds, how many in
brackets. Regression by Spearman's correlation, MRPC and CLUENER by F1, the rest by accuracy.

{scores}

The published BERT-mini (Turc et al. 2019; 11.2 million parameters, English alone, over a hundred
times the text) has {marks}.

## Limits

It has read little, an encyclopedia, mostly as of 2018: it knows few names, no slang, no dialogue.
Where thousands of labelled rows are at hand and minutes do not matter, a larger model is
better; where there are a few hundred, compare it with TF-IDF, as `clozeworks demo` does. What is
true of Wikipedia's view of the world is true of its own: it repeats the associations of its text
and is not fit to judge people. It reads 512 tokens at once, of which it learned only at
the end.
"""


def main(options: argparse.Namespace) -> None:
    ledger = Ledger("long_encoder", options.encoder)
    runs = curve(ledger, options.legs or read_toml(options.recipe)["trunk"]["legs"])
    size = (options.model / "model.safetensors").stat().st_size
    card = CARD.format(
        megabytes=size / 1e6,
        corpus=25.427312,
        hours=hours(ledger),
        unigram=runs[-1]["unigram"],
        curve=table(
            ["run", "read", "hidden tokens", "right", "next sentences right"], stages(runs)
        ),
        scores=scores(Ledger("long_shipped", options.scores), options),
        marks=", ".join(f"{NAMES[name]} {mark}" for name, mark in MARKS.items()),
    )
    with write_file(options.model / "README.md") as stream:
        stream.write(card)
    print(card)


def stages(runs: list[Row]) -> list[list[str]]:
    """A row of the curve for each run: what it read, and what it came to."""
    found = []
    for row in runs:
        held, length = row["held_out"], row["recipe"]["max_length"]
        pairs = f"{held['nsp_accuracy']:.1%}" if "nsp_accuracy" in held else ""
        read = f"{row['tokens'] / 1e6:.0f} million tokens, {length} at a time"
        found.append(
            [row["name"], read, f"{held['mlm']:.3f}", f"{held['mlm_accuracy']:.1%}", pairs]
        )
    return found


def scores(ledger: Ledger, options: argparse.Namespace) -> str:
    """A row for each set, a column for each contender that was tried on any."""
    found: dict[str, dict[str, str]] = {}
    for name, trial in TRIALS.items():
        contest = trial.contest(options.model, options.scores / name)
        for contender in CONTENDERS:
            rows = ledger.rows(contender=contender, **identity(name, contest, contender))
            told = shown(trial.number, [row["numbers"] for row in rows], trial.scale)
            if told:
                found.setdefault(name, {})[contender] = told.removeprefix(f"{trial.number} ")
    if not found:
        return "None yet."
    tried = [c for c in CONTENDERS if any(c in of for of in found.values())]
    rows = [[NAMES[name], *(of.get(c, "") for c in tried)] for name, of in found.items()]
    return table(["", *(CONTENDERS[c] for c in tried)], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    """As Markdown has tables."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("model", type=Path, metavar="FOLDER")
    flags.add_argument("--encoder", type=Path, default=Path("runs/encoder"))
    flags.add_argument("--legs", type=int, help="of the trunk; by default the recipe's")
    flags.add_argument("--scores", type=Path, default=Path("runs/shipped"))
    flags.add_argument("--recipe", type=Path, default=RECIPE)
    started(flags, main)
