"""Finding entities: a tag for every word, read as spans of characters."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.records import Example, Ints, Prediction, Record, Sequence, Vocabulary
from clozeworks.data.batches import Batch, Group, bounds
from clozeworks.metrics.tag import tag_metrics
from clozeworks.model.crf import Crf
from clozeworks.model.heads import AnyEncoder, ClassHead, Model
from clozeworks.tasks.base import Draw, Output, Part, Task
from clozeworks.text.tags import (
    Scheme,
    Span,
    characters_of,
    labels_of,
    legal_moves,
    spans_of,
    tags_of,
    types_of,
    units_of,
)
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import joined, windowed


class TagConfig(Settings):
    """How texts are read and entities told."""

    max_length: int = Field(default=128, ge=16)
    """Longest sequence in tokens, special tokens included; longer texts are read in windows."""
    overlap: int = Field(default=32, ge=2)
    """Tokens that two windows of one text share, half a window at most."""
    scheme: Scheme = "bio"
    """Tags that are learned: bio (first, inside), or bioes (last and single ones of their own)."""
    crf: bool = False
    """Score whole sequences of tags (a conditional random field) instead of each tag by itself."""
    enforce: bool = True
    """Give only tags that may follow one another, whatever each word by itself looks like."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values dropped before the head in training."""


class Entity(Record):
    """A stretch of the text and what it is."""

    start: int = Field(ge=0)
    """Its first character, counted from 0."""
    end: int
    """One past its last."""
    label: str
    """Its type."""
    text: str | None = None
    """Its characters; where given, they must stand there."""
    confidence: float | None = None
    """How sure a model was of it; not learned from."""


class TagExample(Example):
    """A text, or its tokens, and the entities in it."""

    either: ClassVar[frozenset[str]] = frozenset({"text", "tokens"})

    text: str | None = None
    """The text; or give its tokens."""
    tokens: list[str] | None = None
    """The words or characters of the text, in order."""
    entities: list[Entity] | None = None
    """The entities, by their characters; an empty list where there are none."""
    tags: list[str] | None = None
    """Or a tag for each token: O, B-TYPE, I-TYPE; BIOES and its kin are understood."""


class Found(Record):
    """An entity that was found."""

    start: int
    """Its first character, counted from 0."""
    end: int
    """One past its last."""
    label: str
    """Its type."""
    text: str
    """Its characters, as they stand in the text."""
    confidence: float
    """The least of its words' probabilities."""


class TagPrediction(Prediction):
    """The entities of one text, in order."""

    entities: list[Found]
    tags: list[str] | None = None
    """A tag for each token, where tokens were given."""


class TagHead(ClassHead):
    """Rows of words → tag logits, [M, H] → [M, K], and how tags may follow one another."""

    def __init__(self, encoder: AnyEncoder, legal: Tensor, share: float, *, crf: bool) -> None:
        super().__init__(encoder, len(legal) - 1, share)
        self.crf = Crf(legal) if crf else None


class Tag(Task):
    """Find entities, such as names and places, and where they stand."""

    name = "tag"
    Config, Example, Answer = TagConfig, TagExample, TagPrediction
    answers = frozenset({"entities", "tags"})
    windows = True
    config: TagConfig

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self.widened = self.shared = 0
        """Training entities that begin or end inside a word; that share a word with another."""
        legal = np.ones((len(self.labels) + 1,) * 2, dtype=np.bool_)
        if self.config.enforce and self.labels:
            legal = legal_moves(self.labels, _scheme_of(self.labels))
        self._legal = torch.from_numpy(legal)

    # === Data ===

    def features(self, examples: Items[TagExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        length = self.config.max_length
        limits = length, min(self.config.overlap, length // 2)
        return [windowed(*_read(example), tokenizer, *limits) for example in examples]

    @classmethod
    def key(cls, example: TagExample) -> str:
        return _read(example)[0]

    @classmethod
    def shown(cls, example: TagExample) -> tuple[list[str], list[str] | None]:
        """The text, of tokens too, and the types in it."""
        labelled = example.entities is not None or example.tags is not None
        types = sorted({span.type for span in entities_of(example)}) if labelled else None
        return [text_of(example)], types

    def stratum(self, example: TagExample) -> str:
        """The types in it, so that a rare one does not fall into the dev set whole."""
        return " ".join(sorted({span.type for span in entities_of(example)}))

    def check(self, example: TagExample) -> None:
        super().check(example)
        for one, other in pairwise(entities_of(example)):
            if other.start < one.end:
                raise UserError(
                    f"entities {tuple(one)} and {tuple(other)} overlap, and a word has one tag; "
                    "keep one of them"
                )

    def labels_in(self, examples: Items[TagExample]) -> list[str]:
        """The tags that the entities' types need."""
        types = sorted({span.type for example in examples for span in entities_of(example)})
        if not types:
            raise UserError("no row has an entity; there is nothing to learn")
        return labels_of(types, self.config.scheme)

    def target(self, example: TagExample) -> Any:
        """The entities [n, 3] int64: first character, one past the last, and number of the type."""
        self.check(example)
        types, rows = types_of(self.labels), []
        for span in entities_of(example):
            if span.type not in types:
                raise UserError(
                    f"entity type {span.type!r} was never seen in training"
                    f"{suggestion(span.type, types)}"
                )
            rows.append((span.start, span.end, types.index(span.type)))
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `tag_rows` [M] int64, `tag_bounds` [N + 1] of each sequence's, and `tag` [M] gold."""
        rows, ends = _asked(batch)
        gold = [self._gold(s, group.target) for group in groups for s in group.sequences]
        tags = torch.from_numpy(np.concatenate(gold))
        return batch.with_targets(tag_rows=rows, tag_bounds=ends, tag=tags)

    def look_over(self, groups: Items[Group]) -> None:
        """Count the entities that words do not fit."""
        for group in groups:
            units = {tuple(unit) for s in group.sequences for unit in _units(s).tolist()}
            whole = np.array(sorted(units), dtype=np.int64).reshape(-1, 2)
            _, widened, shared = self._fitted(group.target, whole)
            self.widened, self.shared = self.widened + widened, self.shared + shared

    def _gold(self, sequence: Sequence, entities: Any) -> Ints:
        """The tag of each unit of a window; of an entity that it cuts, the part that it shows."""
        spans, _, _ = self._fitted(entities, _units(sequence))
        tags = tags_of(spans, len(_units(sequence)), self.config.scheme)
        return np.array([self.labels.index(tag) for tag in tags], dtype=np.int64)

    def _fitted(self, entities: Any, units: Ints) -> tuple[list[Span], int, int]:
        """The entities as spans of units; how many were widened, and left out for want of a unit.

        Of two that touch one unit the first has it.
        """
        types, spans, widened, shared = types_of(self.labels), list[Span](), 0, 0
        for start, end, kind in entities.tolist():
            found = units_of(Span(start, end, types[kind]), units)
            if found is None:
                continue
            if spans and found.start < spans[-1].end:
                shared += 1
                continue
            widened += characters_of(found, units)[:2] != (start, end)
            spans.append(found)
        return spans, widened, shared

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return TagHead(encoder, self._legal, self.config.dropout, crf=self.config.crf)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["tag_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"tag": float(len(batch.targets["tag"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits, gold = self._logits(model, rows), batch.targets["tag"]
        head = model.heads["tag"]
        if isinstance(head, TagHead) and head.crf is not None:
            ends = batch.targets["tag_bounds"]
            return {"tag": -head.crf.log_likelihood(logits, gold, ends)}
        return {"tag": F.cross_entropy(logits, gold, reduction="sum")}

    def _logits(self, model: Model, rows: Tensor) -> Tensor:
        logits: Tensor = model.heads["tag"](model.token_vectors(rows)).float()
        return logits

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        """`tags` [M] int64 and their probabilities `sure` [M], of the units of every sequence."""
        encoder = model.encoder
        rows, ends = (tensor.to(batch.input_ids.device) for tensor in _asked(batch))
        x = encoder.encode(encoder.embed(batch), batch, read=rows).x
        logits, head = self._logits(model, x), model.heads["tag"]
        own = head.crf if isinstance(head, TagHead) else None
        path = own or Crf(self._legal).to(logits.device)  # untrained, it only bars what is illegal
        tags = path.decode(logits, ends)
        chances = torch.softmax(logits, -1) if own is None else own.marginals(logits, ends)
        return {"tags": tags, "sure": chances.gather(1, tags[:, None])[:, 0]}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """Of each sequence its `units` [k, 2], their `tags`, `sure`, and `room`.

        `room`: tokens between a unit and the nearer end of its window.
        """
        ends = _asked(batch)[1].tolist()
        names = [self.labels[tag] for tag in output["tags"].tolist()]
        sure = output["sure"].tolist()
        parts: list[Part] = []
        for i, sequence in enumerate(batch.sequences):
            assert sequence.rows is not None and sequence.units is not None
            here = slice(ends[i], ends[i + 1])
            room = np.minimum(sequence.rows, len(sequence) - 1 - sequence.rows)
            units = sequence.units
            parts.append(
                {"units": units, "tags": names[here], "sure": sure[here], "room": room.tolist()}
            )
        return parts

    def join(self, example: TagExample, parts: list[Part]) -> TagPrediction:
        """Each unit's tag is that of the window in which it stands farthest from an end."""
        text, given = _read(example)
        best: dict[tuple[int, int], tuple[int, str, float]] = {}
        for part in parts:
            places = part["units"].tolist()
            said = zip(places, part["room"], part["tags"], part["sure"], strict=True)
            for (start, end), room, tag, sure in said:
                unit = start, end
                if unit not in best or room > best[unit][0]:
                    best[unit] = room, tag, sure
        order = sorted(best)
        units = np.array(order, dtype=np.int64).reshape(-1, 2)
        spans = spans_of([best[unit][1] for unit in order])
        entities = []
        for span in spans:
            start, end, label = characters_of(span, units)
            sure = min(best[unit][2] for unit in order[span.start : span.end])
            found = {"start": start, "end": end, "label": label, "text": text[start:end]}
            entities.append(Found(**found, confidence=min(1.0, sure)))
        tags = None if given is None else self._tags(spans, units, given)
        return TagPrediction(entities=entities, tags=tags)

    def _tags(self, spans: Items[Span], units: Ints, given: Ints) -> list[str]:
        """A tag for each token given, also for those without a piece of their own."""
        own = [units_of(characters_of(span, units), given) for span in spans]
        return tags_of([s for s in own if s is not None], len(given), self.config.scheme)

    def remarks(self, examples: Items[TagExample], parts: Items[list[Part]]) -> list[str]:
        said = []
        if self.widened:
            said.append(
                f"{self.widened:,} entities begin or end inside a word: they were taken for the "
                "whole words they touch"
            )
        if self.shared:
            said.append(
                f"{self.shared:,} entities share a word with another and were left out: a word "
                "has one tag"
            )
        return said

    def metrics(
        self, predictions: Items[TagPrediction], examples: Items[TagExample]
    ) -> Mapping[str, float]:
        if not examples:
            return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
        found = [[Span(e.start, e.end, e.label) for e in p.entities] for p in predictions]
        micro = tag_metrics([entities_of(example) for example in examples], found).micro
        return {"f1": micro.f1, "precision": micro.precision, "recall": micro.recall}


def _scheme_of(labels: Items[str]) -> Scheme:
    """The scheme that a model's tags are of."""
    return "bioes" if any(label[:2] in ("E-", "S-") for label in labels) else "bio"


def _read(example: TagExample) -> tuple[str, Ints | None]:
    """The text, and the characters of its tokens where it was given in tokens."""
    if example.tokens is not None:
        if example.text is not None:
            raise UserError("both text and tokens; give one of them")
        return joined(example.tokens)
    return example.text or "", None


def text_of(example: TagExample) -> str:
    """The text, of tokens too: what entities are counted in."""
    return _read(example)[0]


def entities_of(example: TagExample) -> list[Span]:
    """The gold entities by characters, in order; raises UserError where they cannot be."""
    text, given = _read(example)
    if example.entities is not None:
        for e in example.entities:
            _check_place(e, text)
        return sorted(Span(e.start, e.end, e.label) for e in example.entities)
    if given is None or example.tags is None or len(example.tags) != len(given):
        raise UserError(
            f"{len(example.tags or [])} tags for {0 if given is None else len(given)} tokens; "
            "give a tag for each token"
        )
    return [characters_of(span, given) for span in spans_of(example.tags)]


def _check_place(entity: Entity, text: str) -> None:
    start, end = entity.start, entity.end
    if not start < end <= len(text):
        raise UserError(
            f"entity {entity.label!r} from {start} to {end} does not lie within the {len(text)} "
            "characters of its text"
        )
    if entity.text not in (None, text[start:end]):
        raise UserError(
            f"entity {entity.text!r} does not stand from {start} to {end} of its text "
            f"({text[start:end]!r} does); correct start and end"
        )


def _units(sequence: Sequence) -> Ints:
    assert sequence.units is not None
    return sequence.units


def _asked(batch: Batch) -> tuple[Tensor, Tensor]:
    """The packed rows [M] of all units, and how many there are before each sequence, [N + 1]."""
    rows, counts = [], []
    for first, sequence in zip(batch.firsts.tolist(), batch.sequences, strict=True):
        assert sequence.rows is not None
        rows.append(sequence.rows + first)
        counts.append(len(sequence.rows))
    ends = bounds(np.array(counts, dtype=np.int64))
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(ends)
