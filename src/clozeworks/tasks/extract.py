"""Extractive summaries: which sentences of a document to keep (after Liu 2019, BertSum)."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Items
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, StrictInt
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.records import Example, Ints, Prediction, Record, Sequence
from clozeworks.data.batches import Batch, Group, bounds
from clozeworks.metrics.extract import Words, oracle, repeatable, said_again
from clozeworks.metrics.generate import rouge_metrics, rouge_words
from clozeworks.model.heads import AnyEncoder, ClassHead, Model, means
from clozeworks.tasks.base import Draw, Output, Part, Task, few_rows
from clozeworks.text.documents import Limits, as_one, sentences_in_windows
from clozeworks.text.sentences import sentence_spans
from clozeworks.text.tokenizer import Tokenizer

KEPT = "kept"
"""The one label: whether a sentence is kept."""


class ExtractConfig(Settings):
    """How documents are read and sentences chosen."""

    max_length: int = Field(default=256, ge=32)
    """Longest sequence in tokens, special tokens included; longer documents are read in windows of
    whole sentences."""
    overlap: int = Field(default=64, ge=0)
    """Tokens that two windows share at most, in whole sentences."""
    sentence_length: int = Field(default=128, ge=8)
    """Most tokens of a sentence; of longer ones the rest is not read, and counted."""
    keep: int = Field(default=3, ge=1)
    """How many sentences are kept, at most; also how many a reference summary is learned as."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Keep this share of the document's characters at most, instead of a number of sentences."""
    blocking: bool = True
    """Pass over a sentence that has three words in a row (or six Chinese characters) in common with
    one that is kept."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values dropped before the head in training."""


class ExtractExample(Example):
    """A document, or its sentences, and which of them are kept."""

    either: ClassVar[frozenset[str]] = frozenset({"document", "sentences"})

    document: str | None = None
    """The text; or give its sentences."""
    sentences: list[str] | None = None
    """The sentences of the text, in order."""
    labels: list[StrictInt] | None = None
    """The sentences to keep, by their numbers, counted from 0."""
    summary: str | list[str] | None = None
    """Or a summary, or several: the sentences nearest to one are learned."""


class Kept(Record):
    """A sentence that was kept."""

    index: int
    """Its number, counted from 0."""
    start: int
    """Its first character."""
    end: int
    """One past its last."""
    text: str
    """Its characters, as they stand in the document."""
    probability: float


class ExtractPrediction(Prediction):
    """The sentences kept of one document, in its order."""

    sentences: list[Kept]
    summary: str
    """They alone, as one text."""


class Extract(Task):
    """Keep the sentences that sum a document up."""

    name = "extract"
    Config, Example, Answer = ExtractConfig, ExtractExample, ExtractPrediction
    windows = True
    cut_by = ("sentence_length",)
    free = frozenset({"keep", "share", "blocking"})
    answers = frozenset({"labels", "summary"})
    head_name = "tag"
    config: ExtractConfig

    # === Data ===

    def features(
        self, examples: Items[ExtractExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        c = self.config
        limits = Limits(c.max_length, min(c.overlap, c.max_length // 2), c.sentence_length)
        return sentences_in_windows([read(e) for e in examples], tokenizer, limits)

    def is_labelled(self, example: ExtractExample) -> bool:
        return example.labels is not None or bool(example.summary)

    @classmethod
    def shown(cls, example: ExtractExample) -> tuple[list[str], None]:
        """The text, of sentences too."""
        return [read(example)[0]], None

    @classmethod
    def readable(cls, example: ExtractExample) -> None:
        """Raise UserError where the text is given twice."""
        if example.document is not None and example.sentences is not None:
            raise UserError("both document and sentences; give one of them")

    def check(self, example: ExtractExample) -> None:
        super().check(example)
        count = len(read(example)[1])
        for label in example.labels or []:
            if not 0 <= label < count:
                raise UserError(
                    f"label {label} is no sentence's: the document has {count}, numbered from 0; "
                    "correct it"
                )
        if twice := [n for n, times in Counter(example.labels or []).items() if times > 1]:
            raise UserError(
                f"label {twice[0]} is there more than once; labels are the numbers, from 0, of the "
                "sentences kept, not a 0 or 1 for each sentence"
            )

    def labels_in(self, examples: Items[ExtractExample]) -> list[str]:
        """The one label, `kept`."""
        if not any(self.gold(example) for example in examples):
            raise UserError("no row keeps a sentence; there is nothing to learn")
        return [KEPT]

    def gold(self, example: ExtractExample) -> tuple[int, ...]:
        """The sentences to keep: those labelled, else those nearest to a summary."""
        if example.labels is not None:
            return tuple(sorted(example.labels))
        texts = sentences_of(example)
        most = self.config.keep if self.config.share is None else len(texts)
        return oracle(texts, summaries_of(example), most)

    def target(self, example: ExtractExample) -> Any:
        """Of every sentence its first character, and whether it is kept, [n, 2] int64."""
        self.check(example)
        spans = read(example)[1]
        kept = np.zeros(len(spans), dtype=np.int64)
        kept[list(self.gold(example))] = 1
        return np.stack([spans[:, 0], kept], 1)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add the tokens of sentences, `extract_rows` [K], their bounds there, `extract_bounds`
        [M + 1], both int64, and whether each is kept, `extract` [M] fp32."""
        asked = _asked(batch)
        gold = [_gold(s, group.target) for group in groups for s in group.sequences]
        kept = torch.from_numpy(np.concatenate(gold)).float()
        return batch.with_targets(
            extract_rows=asked.rows, extract_bounds=asked.bounds, extract=kept
        )

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ClassHead(encoder, 1, self.config.dropout)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["extract_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"extract": float(len(batch.targets["extract"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Each sentence by itself: kept or not."""
        logits = self._logits(model, rows, batch.targets["extract_bounds"])
        gold = batch.targets["extract"]
        return {"extract": F.binary_cross_entropy_with_logits(logits, gold, reduction="sum")}

    def _logits(self, model: Model, rows: Tensor, bounds: Tensor) -> Tensor:
        """Of each sentence's mean, [M]; as the head is linear, the mean of what its tokens say."""
        x = means(model.token_vectors(rows), bounds)
        logits: Tensor = model.heads[self.head_name](x).float().flatten()
        return logits

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        """`probabilities` [M] fp32 of being kept, of the sentences of every sequence."""
        encoder = model.encoder
        asked = _asked(batch)
        rows, bounds = (t.to(batch.input_ids.device) for t in (asked.rows, asked.bounds))
        x = encoder.encode(encoder.embed(batch), batch, read=rows).x
        return {"probabilities": torch.sigmoid(self._logits(model, x, bounds))}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """Of each sequence the `starts` of its sentences, their `probabilities`, and `room`.

        `room`: tokens between a sentence and the nearer end of its window.
        """
        ends, shares = _asked(batch).counts.tolist(), output["probabilities"].tolist()
        parts: list[Part] = []
        for i, sequence in enumerate(batch.sequences):
            assert sequence.rows is not None and sequence.units is not None
            after = len(sequence) - np.append(sequence.rows[1:], len(sequence))
            room = np.minimum(sequence.rows, after[: len(sequence.rows)])
            here = shares[ends[i] : ends[i + 1]]
            starts = sequence.units[:, 0].tolist()
            parts.append({"starts": starts, "probabilities": here, "room": room.tolist()})
        return parts

    def join(self, example: ExtractExample, parts: list[Part]) -> ExtractPrediction:
        """Each sentence's probability is that of the window in which it stands farthest inside."""
        text, spans = read(example)
        best: dict[int, tuple[int, float]] = {}
        for part in parts:
            said = zip(part["starts"], part["room"], part["probabilities"], strict=True)
            for start, room, share in said:
                if start not in best or room > best[start][0]:
                    best[start] = room, share
        shares = [best[start][1] for start in spans[:, 0].tolist()]
        kept = [
            Kept(index=i, start=a, end=b, text=text[a:b], probability=shares[i])
            for i in self._chosen(shares, text, spans)
            for a, b in [spans[i].tolist()]
        ]
        return ExtractPrediction(sentences=kept, summary=as_one([k.text for k in kept])[0])

    def _chosen(self, shares: list[float], text: str, spans: Ints) -> list[int]:
        """The numbers of the sentences to keep, in order: the likeliest that fit, at least one."""
        c = self.config
        room = len(text) if c.share is None else c.share * len(text)
        most = c.keep if c.share is None else len(spans)
        chosen: list[int] = []
        said: set[Words] = set()
        for i in sorted(range(len(spans)), key=lambda i: -shares[i]):
            start, end = spans[i].tolist()
            words = rouge_words(text[start:end])
            if start == end or (c.blocking and said_again(words, said)):
                continue
            if len(chosen) == most:
                break
            if chosen and end - start > room:
                continue
            room -= end - start
            chosen.append(i)
            said |= repeatable(words)
        return sorted(chosen)

    def remarks(self, examples: Items[ExtractExample], parts: Items[list[Part]]) -> list[str]:
        wanted = sum(len(self.gold(e)) for e in examples) / len(examples)
        given = [self.join(e, p) for e, p in zip(examples, parts, strict=True)]
        kept = sum(len(p.sentences) for p in given) / len(given)
        return [
            f"on dev, {kept:.1f} sentences of a document are kept, and gold keeps {wanted:.1f}; "
            "--keep or --share says how many",
            *few_rows(len(examples)),
        ]

    def metrics(
        self, predictions: Items[ExtractPrediction], examples: Items[ExtractExample]
    ) -> Mapping[str, float]:
        """ROUGE F1 against the summaries, or against the sentences to keep as one text."""
        if not examples:
            return {"rouge1": 0.0, "rouge2": 0.0, "rouge_l": 0.0}
        found = rouge_metrics([p.summary for p in predictions], [summaries_of(e) for e in examples])
        return {
            "rouge1": found.rouge1.f1,
            "rouge2": found.rouge2.f1,
            "rouge_l": found.rouge_l.f1,
        }


def read(example: ExtractExample) -> tuple[str, Ints]:
    """The text, and the characters [n, 2] of its sentences."""
    if example.sentences is not None:
        return as_one(example.sentences)
    text = example.document or ""
    return text, np.array(_sentences(text), dtype=np.int64).reshape(-1, 2)


@lru_cache(maxsize=1024)
def _sentences(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(sentence_spans(text))


def sentences_of(example: ExtractExample) -> list[str]:
    """The sentences, as they stand in the text."""
    text, spans = read(example)
    return [text[a:b] for a, b in spans.tolist()]


def summaries_of(example: ExtractExample) -> list[str]:
    """What a summary is judged by: the summaries given, else the sentences labelled as one text."""
    if example.summary:
        return [example.summary] if isinstance(example.summary, str) else list(example.summary)
    texts = sentences_of(example)
    return [as_one([texts[i] for i in sorted(set(example.labels or []))])[0]]


def _gold(sequence: Sequence, target: Any) -> Ints:
    """Whether each sentence of a window is kept, [k] int64."""
    assert sequence.units is not None
    place = np.searchsorted(target[:, 0], sequence.units[:, 0])
    found: Ints = target[place, 1]
    return found


class _Asked(NamedTuple):
    """What of a batch is looked at."""

    rows: Tensor
    """The packed rows of all sentences' tokens, their special ones included, [K] int64."""
    bounds: Tensor
    """Where each sentence begins and ends among them, [M + 1] int64."""
    counts: Tensor
    """How many sentences come before each sequence's, [N + 1] int64."""


def _asked(batch: Batch) -> _Asked:
    rows, sizes, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], []
    for first, sequence in zip(batch.firsts.tolist(), batch.sequences, strict=True):
        assert sequence.rows is not None
        counts.append(len(sequence.rows))
        if counts[-1]:  # of no sentence there are only special tokens
            rows.append(np.arange(first, first + len(sequence)))
            sizes.append(np.diff(sequence.rows, append=len(sequence)))
    found = (np.concatenate(rows), bounds(np.concatenate(sizes)), bounds(np.array(counts)))
    return _Asked(*map(torch.from_numpy, found))
