"""Entities told by a tag for each word."""

from collections.abc import Sequence as Items
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Sequence
from clozeworks.data.batches import Batch, Group, bounds
from clozeworks.model.crf import Crf
from clozeworks.model.heads import AnyEncoder, ClassHead
from clozeworks.tasks.base import Output, Part
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


class Sure(NamedTuple):
    """An entity by characters, and how sure a model is of it."""

    span: Span
    confidence: float


class TagSettings(Protocol):
    """What is read of the task's settings."""

    @property
    def scheme(self) -> Scheme: ...
    @property
    def crf(self) -> bool: ...
    @property
    def enforce(self) -> bool: ...
    @property
    def longest(self) -> int: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def dropout(self) -> float: ...


class TagHead(ClassHead):
    """Rows of words → tag logits, [M, H] → [M, K], and how tags may follow one another."""

    def __init__(self, encoder: AnyEncoder, legal: Tensor, share: float, *, crf: bool) -> None:
        super().__init__(encoder, len(legal) - 1, share)
        self.crf = Crf(legal) if crf else None


class Tagged(NamedTuple):
    """What a window says of one unit."""

    unit: tuple[int, int]
    """Its characters."""
    tag: str
    sure: float
    room: int
    """Tokens to the nearer end of the window."""


class WordTags:
    """Each word has one tag; entities are read from the tags."""

    def __init__(self, config: TagSettings, labels: Items[str]) -> None:
        self.config, self.labels = config, list(labels)
        self.widened = self.shared = self.lost = 0
        """Training entities that begin or end inside a word; share one with another; hold none."""
        legal = np.ones((len(self.labels) + 1,) * 2, dtype=np.bool_)
        if config.enforce and self.labels:
            legal = legal_moves(self.labels, _scheme_of(self.labels))
        self._legal = torch.from_numpy(legal)

    def labels_of(self, types: Items[str]) -> list[str]:
        """The tags that types need."""
        return labels_of(types, self.config.scheme)

    def check(self, spans: Items[Span]) -> None:
        """Raise UserError for entities that tags cannot tell."""
        for one, other in pairwise(spans):
            if other.start < one.end:
                raise UserError(
                    f"entities {tuple(one)} and {tuple(other)} overlap, and a word has one tag; "
                    "keep one of them, or learn them all with --nested"
                )

    def look_over(self, groups: Items[Group]) -> None:
        """Count the entities that words do not fit."""
        for group in groups:
            units = {tuple(unit) for s in group.sequences for unit in units_in(s).tolist()}
            whole = np.array(sorted(units), dtype=np.int64).reshape(-1, 2)
            _, widened, shared, lost = self._fitted(group.target, whole)
            self.widened, self.shared = self.widened + widened, self.shared + shared
            self.lost += lost

    def calibrate(self, gold: Items[list[Span]], parts: Items[list[Part]]) -> Calibration:
        """Tags need no threshold: of all of a word's, the likeliest is taken."""
        return Calibration()

    def remarks(self, calibration: Calibration) -> list[str]:
        """What `look_over` has counted."""
        said = widened_remark(self.widened)
        if self.shared:
            said.append(
                f"{self.shared:,} entities share a word with another and were left out: a word "
                "has one tag (--nested: as many as there are)"
            )
        if self.lost:
            said.append(
                f"{self.lost:,} entities hold no word, such as white space alone, and were left out"
            )
        return said

    def mark(self, batch: Batch, groups: Items[Group]) -> Batch:
        """Add `tag` [M] int64: the tag of each unit of every sequence."""
        gold = [self._gold(s, group.target) for group in groups for s in group.sequences]
        return batch.with_targets(tag=torch.from_numpy(np.concatenate(gold)))

    def _gold(self, sequence: Sequence, entities: Any) -> Ints:
        """The tag of each unit of a window; of an entity that it cuts, the part that it shows."""
        spans, *_ = self._fitted(entities, units_in(sequence))
        tags = tags_of(spans, len(units_in(sequence)), self.config.scheme)
        return np.array([self.labels.index(tag) for tag in tags], dtype=np.int64)

    def _fitted(self, entities: Any, units: Ints) -> tuple[list[Span], int, int, int]:
        """The entities as spans of units; how many were widened, or left out: shared and lost.

        Of two that touch one unit the first has it; one that touches none is lost.
        """
        types, spans = types_of(self.labels), list[Span]()
        widened = shared = lost = 0
        for start, end, kind in entities.tolist():
            found = units_of(Span(start, end, types[kind]), units)
            if found is None:
                lost += 1
                continue
            if spans and found.start < spans[-1].end:
                shared += 1
                continue
            widened += characters_of(found, units)[:2] != (start, end)
            spans.append(found)
        return spans, widened, shared, lost

    def head(self, encoder: AnyEncoder) -> nn.Module:
        """A fresh head."""
        return TagHead(encoder, self._legal, self.config.dropout, crf=self.config.crf)

    def count(self, batch: Batch) -> float:
        """The words that have a tag."""
        return float(len(batch.targets["tag"]))

    def loss(self, head: nn.Module, x: Tensor, batch: Batch) -> Tensor:
        """The summed loss of tags, or of whole sequences of them: x [M, H] → scalar."""
        logits, gold = head(x).float(), batch.targets["tag"]
        if isinstance(head, TagHead) and head.crf is not None:
            return -head.crf.log_likelihood(logits, gold, batch.targets["tag_bounds"])
        return F.cross_entropy(logits, gold, reduction="sum")

    def predict(self, head: nn.Module, x: Tensor, ends: Tensor) -> Output:
        """`tags` [M] int64 and their probabilities `sure` [M], of the units of every sequence."""
        logits = head(x).float()
        own = head.crf if isinstance(head, TagHead) else None
        path = own or Crf(self._legal).to(logits.device)  # untrained, it only bars what is illegal
        tags = path.decode(logits, ends)
        chances = torch.softmax(logits, -1) if own is None else own.marginals(logits, ends)
        return {"tags": tags, "sure": chances.gather(1, tags[:, None])[:, 0]}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """Of each sequence its `units` [k, 2], their `tags`, `sure`, and `room` (see `room_of`)."""
        ends = asked(batch)[1].tolist()
        names = [self.labels[tag] for tag in output["tags"].tolist()]
        sure = output["sure"].tolist()
        return [
            {
                "units": units_in(sequence),
                "tags": names[ends[i] : ends[i + 1]],
                "sure": sure[ends[i] : ends[i + 1]],
                "room": room_of(sequence).tolist(),
            }
            for i, sequence in enumerate(batch.sequences)
        ]

    def join(self, parts: list[Part], calibration: Calibration) -> list[Sure]:
        """Each unit's tag is that of the window in which it stands farthest from an end.

        Where that would let a tag follow another that may not, the change from one window to the
        next is made at the nearest place where it does not.
        """
        said: list[Tagged] = []
        for part in parts:
            places = map(tuple, part["units"].tolist())
            own = zip(places, part["tags"], part["sure"], part["room"], strict=True)
            self._follow(said, [Tagged(*one) for one in own])
        units = np.array([one.unit for one in said], dtype=np.int64).reshape(-1, 2)
        return [
            Sure(
                characters_of(span, units),
                min(1.0, *(one.sure for one in said[span.start : span.end])),
            )
            for span in spans_of([one.tag for one in said])
        ]

    def _follow(self, said: list[Tagged], more: list[Tagged]) -> None:
        """Add to what windows before have said of their units what the next one says."""
        last = said[-1].unit if said else (-1, -1)
        both = sum(one.unit <= last for one in more)
        first = len(said) - both
        usual = sum(a.room >= b.room for a, b in zip(said[first:], more, strict=False))
        near = sorted(range(both + 1), key=lambda seam: (abs(seam - usual), seam))
        before = {seam: said[max(0, first + seam - 1) : first + seam] for seam in near}
        legal = (s for s in near if self._may_follow(before[s], more[s : s + 1]))
        seam = next(legal, usual)
        del said[first + seam :]
        said += more[seam:]

    def _may_follow(self, before: list[Tagged], after: list[Tagged]) -> bool:
        """Whether one tag may stand after another; of none, any may."""
        if not before or not after:
            return True
        one, other = (self.labels.index(tags[0].tag) for tags in (before, after))
        return bool(self._legal[one, other])

    def tags(self, found: Items[Sure], given: Ints) -> list[str] | None:
        """A tag for each token given, also for those without a piece of their own."""
        own = [units_of(entity.span, given) for entity in found]
        return tags_of([s for s in own if s is not None], len(given), self.config.scheme)


def _scheme_of(labels: Items[str]) -> Scheme:
    """The scheme that a model's tags are of."""
    return "bioes" if any(label[:2] in ("E-", "S-") for label in labels) else "bio"


def widened_remark(count: int) -> list[str]:
    """What is said of entities that begin or end inside a word."""
    if not count:
        return []
    return [
        f"{count:,} entities begin or end inside a word: they were taken for the whole words "
        "they touch"
    ]


def units_in(sequence: Sequence) -> Ints:
    """The characters of a window's units, [k, 2]."""
    assert sequence.units is not None
    return sequence.units


def room_of(sequence: Sequence) -> Ints:
    """Tokens between each unit and the nearer end of its window, [k] int64."""
    assert sequence.rows is not None
    return np.minimum(sequence.rows, len(sequence) - 1 - sequence.rows)


def asked(batch: Batch) -> tuple[Tensor, Tensor]:
    """The packed rows [M] of all units, and how many there are before each sequence, [N + 1]."""
    rows, counts = [], []
    for first, sequence in zip(batch.firsts.tolist(), batch.sequences, strict=True):
        assert sequence.rows is not None
        rows.append(sequence.rows + first)
        counts.append(len(sequence.rows))
    ends = bounds(np.array(counts, dtype=np.int64))
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(ends)
