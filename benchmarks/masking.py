"""Masks on real text: the realised rate, 80/10/10, split words, and what whole words cost.

Parts of wiki_en and wiki_zh are prepared with bounds of words; every unit then hides tokens of one
epoch of sentence pairs, 8,192 tokens a batch. Beside ours: the whole-word masks of transformers'
collator on the same documents (the special tokens it touches are [UNK], which it takes for a word).

    python benchmarks/masking.py [--quick]
"""

import argparse
import lzma
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clozeworks import tasks
from clozeworks.core.log import silence
from clozeworks.data.batches import pack
from clozeworks.data.order import ShardStream
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.data.shards import Shards
from clozeworks.metrics.masking import MaskingReport, Sample, Scripts, measure_masking
from clozeworks.tasks.base import Draw
from clozeworks.tasks.mlm import Mlm
from clozeworks.text.load import load_tokenizer
from clozeworks.text.pieces import SCRIPTS, piece_scripts
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.words import WordBounds
from harness.measure import Sample as Row
from harness.measure import conclude, data, machine, need, started, table

CORPORA = {
    "en": ("wiki_en/wiki_en.txt.xz", "vocab/bert-base-uncased-vocab.txt"),
    "zh": ("wiki_zh/wiki_zh.txt.xz", "vocab/bert-base-chinese-vocab.txt"),
}
CHARACTERS = {"en": 3_000_000, "zh": 1_000_000}
"""How much of each corpus is read: 3 MB of English, 2.7 MB of Chinese."""
UNITS = ("token", "word", "span", "ngram")
RATE, LENGTH, TOKENS = 0.15, 128, 8192
KEYS = ("rate", "masked", "random", "kept", "split", "touched", "fewest", "most", "ms")


def text_of(name: str, limit: int) -> str:
    """The beginning of a corpus."""
    with lzma.open(data(CORPORA[name][0]), "rt", encoding="utf-8") as stream:
        return stream.read(limit)


def report_row(report: MaskingReport, milliseconds: list[float]) -> Row:
    """The figures of one kind of masks."""
    return {
        **{key: getattr(report, key) for key in ("rate", "masked", "random", "kept")},
        **{"split": report.words_split or 0, "touched": report.specials_touched},
        **{"fewest": report.fewest, "most": report.most, "tokens": report.tokens},
        "ms": statistics.median(milliseconds),
    }


class Measuring:
    """One corpus: its shards and tokenizer, and how masks on it are measured."""

    def __init__(self, shards: Shards) -> None:
        self.shards, self.tokenizer = shards, load_tokenizer(shards.tokenizer_folder)
        self.vocabulary = self.tokenizer.vocabulary
        self.scripts = Scripts(SCRIPTS, piece_scripts(self.tokenizer))
        self.special = np.array(sorted(self.vocabulary.special))
        self.continues = np.array([piece[:2] == "##" for piece in self.tokenizer.pieces])
        self.torn = 0
        """Pieces marked `##` that were hidden without the one before, or the other way round."""

    def measured(self, samples: Iterator[Sample]) -> MaskingReport:
        """The report of some batches."""
        return measure_masking(samples, RATE, self.vocabulary.mask, self.special, self.scripts)

    def unit(self, name: str) -> Row:
        """What one unit hides in an epoch."""
        task = tasks.create("mlm", {"unit": name, "rate": RATE}, self.vocabulary)
        assert isinstance(task, Mlm)
        took: list[float] = []
        return report_row(self.measured(self._samples(task, took)), took)

    def _samples(self, task: Mlm, took: list[float]) -> Iterator[Sample]:
        documents = np.arange(len(self.shards.documents) - 1)
        shape: dict[str, Any] = {"pairs": "next", "tokens": TOKENS, "seed": 0, "words": True}
        stream = ShardStream(self.shards, documents, self.vocabulary, LENGTH, **shape)
        for step in stream.steps(0):
            groups = stream.groups(0, step)
            batch = pack(groups)
            began = time.perf_counter()
            marked = task.mark(batch, groups, Draw(0, 0))
            took.append(1e3 * (time.perf_counter() - began))
            before, rows = batch.input_ids.numpy(), marked.targets["mlm_rows"].numpy()
            words = batch.words if task.needs_words else None
            if task.needs_words:
                self._tear(before, rows)
            offsets = batch.offsets.numpy()
            yield Sample(before, marked.input_ids.numpy(), rows, offsets, words)

    def _tear(self, before: np.ndarray, rows: np.ndarray) -> None:
        """Look at the pieces' own marks, apart from the bounds in the shards."""
        hidden = np.zeros(len(before), dtype=bool)
        hidden[rows] = True
        special = np.isin(before, self.special)
        inside = self.continues[before[1:]] & ~special[:-1]
        self.torn += int((inside & (hidden[1:] != hidden[:-1])).sum())


def peer(text: str, measuring: Measuring) -> Row:
    """transformers' collator with whole_word_mask on the first tokens of each document."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(measuring.shards.tokenizer_folder)
    settings = {"mlm_probability": RATE, "whole_word_mask": True, "seed": 0}
    collator = DataCollatorForLanguageModeling(tokenizer, return_tensors="np", **settings)
    documents = [" ".join(part.split("\n")) for part in text.strip().split("\n\n")][:1000]
    found = tokenizer(
        documents,
        truncation=True,
        max_length=LENGTH,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    examples = [{key: found[key][i] for key in found} for i in range(len(documents))]
    bounds = WordBounds(measuring.tokenizer, pick_segmenter("auto") or pick_segmenter("characters"))
    words = [begins[: LENGTH - 2] for _, begins in bounds.tokenize(documents)]
    took: list[float] = []

    def samples() -> Iterator[Sample]:
        for i in range(0, len(examples) - 63, 64):
            part, begins = examples[i : i + 64], words[i : i + 64]
            before = np.concatenate([one["input_ids"] for one in part])
            lengths = np.array([len(one["input_ids"]) for one in part])
            began = time.perf_counter()
            made = collator(part)
            took.append(1e3 * (time.perf_counter() - began))
            real = np.arange(made["input_ids"].shape[1]) < lengths[:, None]
            rows = np.flatnonzero(made["labels"][real] != -100)
            marks = np.concatenate([np.concatenate([[True], one, [True]]) for one in begins])
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            yield Sample(before, made["input_ids"][real], rows, offsets, marks)

    return report_row(measuring.measured(samples()), took)


def one_corpus(name: str, share: float, folder: Path) -> tuple[dict[str, Row], int]:
    """Every row of one corpus, and how many marked pieces were torn off."""
    text = text_of(name, int(CHARACTERS[name] * share))
    (folder / f"{name}.txt").write_text(text, "utf-8")
    tokenizer: Tokenizer = load_tokenizer(data(CORPORA[name][1]))
    with silence():
        manifest = prepare([folder / f"{name}.txt"], tokenizer, folder / name, PrepareSettings())
    print(f"{name}: {manifest.tokens:,} tokens, words by {manifest.words}", flush=True)
    measuring = Measuring(Shards.open(folder / name))
    rows = {f"{name} {unit}": measuring.unit(unit) for unit in UNITS}
    rows[f"{name} word, transformers"] = peer(text, measuring)
    return rows, measuring.torn


def main(options: argparse.Namespace) -> None:
    """Measure both corpora, print the table, write the JSON, end with one line."""
    need("transformers", "jieba")
    before = machine()
    rows: dict[str, Row] = {}
    torn = 0
    with tempfile.TemporaryDirectory() as place:
        for name in CORPORA:
            found, more = one_corpus(name, 0.1 if options.quick else 1.0, Path(place))
            rows |= found
            torn += more
    samples = {name: [row] for name, row in rows.items()}
    print(table(samples, KEYS))
    ours = {name: row for name, row in rows.items() if "transformers" not in name}
    worst = max(abs(row["rate"] - RATE) for row in ours.values())
    shares = max(
        abs(row[key] - share)
        for row in ours.values()
        for key, share in (("masked", 0.8), ("random", 0.1), ("kept", 0.1))
    )
    cost = statistics.mean(rows[f"{n} word"]["ms"] - rows[f"{n} token"]["ms"] for n in CORPORA)
    figures = {
        **{f"rate_{name}": f"{rows[f'{name} word']['rate']:.4f}" for name in CORPORA},
        "worst_rate_points": f"{100 * worst:.2f}",
        "split": str(sum(row["split"] for row in ours.values()) + torn),
        "touched": str(sum(row["touched"] for row in ours.values())),
        "worst_share_points": f"{100 * shares:.2f}",
        "word_costs_ms": f"{cost:.2f}",
    }
    conclude("masking", before, samples, figures, {"quick": options.quick})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the text")
    started(parser, main)
