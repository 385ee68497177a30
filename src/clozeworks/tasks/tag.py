"""Finding entities: a tag for every word, read as spans of characters."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
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
    overlap: int = Field(default=32, ge=0)
    """Tokens that two windows of one text share."""
    scheme: Scheme = "bio"
    """Tags that are learned: bio (first, inside), or bioes (last and single ones of their own)."""
    crf: bool = False
    """Score whole sequences of tags (a conditional random field) instead of each tag by itself."""
    enforce: bool = True
    """Give only tags that may follow one another, whatever each word by itself looks like."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values dropped before the head in training."""

    @model_validator(mode="after")
    def _window_moves(self) -> Self:
        if self.overlap > self.max_length // 2:
            raise ValueError(
                f"overlap {self.overlap} is more than half of max_length {self.max_length}"
            )
        return self


class Entity(Record):
    """A stretch of the text and what it is."""

    start: int = Field(ge=0)
    """Its first character, counted from 0."""
    end: int
    """One past its last."""
    label: str
    """Its type."""


class TagExample(Example):
    """A text, or its tokens, and the entities in it."""

    text: str | None = None
    """The text; or give its tokens."""
    tokens: list[str] | None = None
    """The words or characters of the text, in order."""
    entities: list[Entity] | None = None
    """The entities, by their characters; an empty list where there are none."""
    tags: list[str] | None = None
    """Or a tag for each token: O, B-TYPE, I-TYPE; BIOES and its kin are understood."""


class Found(Entity):
    """An entity that was found."""

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
    config: TagConfig

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self.widened = 0
        """Entities met so far that begin or end inside a word."""
        legal = np.ones((len(self.labels) + 1,) * 2, dtype=np.bool_)
        if self.config.enforce and self.labels:
            legal = legal_moves(self.labels, _scheme_of(self.labels))
        self._legal = torch.from_numpy(legal)

    # === Data ===

    def features(self, examples: Items[TagExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        limits = self.config.max_length, self.config.overlap
        return [windowed(*_read(example), tokenizer, *limits) for example in examples]

    @classmethod
    def key(cls, example: TagExample) -> str:
        return _read(example)[0]

    def labels_in(self, examples: Items[TagExample]) -> list[str]:
        """The tags that the entities' types need."""
        types = sorted({span.type for example in examples for span in entities_of(example)})
        if not types:
            raise UserError("no row has an entity; there is nothing to learn")
        return labels_of(types, self.config.scheme)

    def target(self, example: TagExample) -> Any:
        """The entities [n, 3] int64: first character, one past the last, and number of the type."""
        types, spans = types_of(self.labels), entities_of(example)
        for one, other in pairwise(spans):
            if other.start < one.end:
                raise UserError(
                    f"entities {tuple(one)} and {tuple(other)} overlap, and a word has one tag; "
                    "keep one of them"
                )
        rows = []
        for span in spans:
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

    def _gold(self, sequence: Sequence, entities: Any) -> Ints:
        """The tag of each unit of a window; of an entity that it cuts, the part that it shows."""
        assert sequence.units is not None
        types = types_of(self.labels)
        spans = []
        for start, end, kind in entities.tolist():
            found = units_of(Span(start, end, types[kind]), sequence.units)
            if found is not None:
                self.widened += characters_of(found, sequence.units)[:2] != (start, end)
                spans.append(found)
        tags = tags_of(spans, len(sequence.units), self.config.scheme)
        return np.array([self.labels.index(tag) for tag in tags], dtype=np.int64)

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
        if not self.widened:
            return []
        return [
            f"{self.widened:,} times an entity began or ended inside a word: it was taken for the "
            "whole words it touches"
        ]

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
        return joined(example.tokens)
    if example.text is None:
        raise UserError("neither text nor tokens; give one of them")
    return example.text, None


def text_of(example: TagExample) -> str:
    """The text, of tokens too: what entities are counted in."""
    return _read(example)[0]


def entities_of(example: TagExample) -> list[Span]:
    """The gold entities by characters, in order; raises UserError where they cannot be."""
    text, given = _read(example)
    if example.entities is not None:
        for e in example.entities:
            if not e.start < e.end <= len(text):
                raise UserError(
                    f"entity {e.label!r} from {e.start} to {e.end} does not lie within the "
                    f"{len(text)} characters of its text"
                )
        return sorted(Span(e.start, e.end, e.label) for e in example.entities)
    if given is None or example.tags is None or len(example.tags) != len(given):
        raise UserError(
            f"{len(example.tags or [])} tags for {0 if given is None else len(given)} tokens; "
            "give a tag for each token"
        )
    return [characters_of(span, given) for span in spans_of(example.tags)]


def _asked(batch: Batch) -> tuple[Tensor, Tensor]:
    """The packed rows [M] of all units, and how many there are before each sequence, [N + 1]."""
    rows, counts = [], []
    for first, sequence in zip(batch.firsts.tolist(), batch.sequences, strict=True):
        assert sequence.rows is not None
        rows.append(sequence.rows + first)
        counts.append(len(sequence.rows))
    ends = bounds(np.array(counts, dtype=np.int64))
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(ends)
