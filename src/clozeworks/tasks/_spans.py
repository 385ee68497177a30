"""Entities told by a score for each span, so that they may lie inside one another."""

from collections.abc import Iterator
from collections.abc import Sequence as Items
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.records import Ints, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.metrics.labels import EVEN, best_f1
from clozeworks.model.heads import AnyEncoder
from clozeworks.model.spans import SpanHead
from clozeworks.tasks._tags import Sure, TagSettings, asked, room_of, units_in, widened_remark
from clozeworks.tasks.base import Output, Part
from clozeworks.text.tags import Span, characters_of, types_of, units_of

LEAST = 0.05
"""A span that is less likely than this is never an entity, whatever dev says."""


class NestedSpans:
    """Each span of words has a score for each type; those that are likely enough are entities."""

    def __init__(self, config: TagSettings, labels: Items[str]) -> None:
        self.config, self.types = config, types_of(labels)
        self.widened = self.lost = 0
        """Training entities that begin or end inside a word; that no window holds, or are too
        long."""

    def labels_of(self, types: Items[str]) -> list[str]:
        """What the classes of tokens are called: the first word of each type, and its last."""
        return [f"{prefix}-{type}" for type in types for prefix in "BE"]

    def check(self, spans: Items[Span]) -> None:
        """Nothing is refused: any spans can be told."""

    def look_over(self, groups: Items[Group]) -> None:
        """Count the entities that words do not fit, and those that cannot be learned."""
        for group in groups:
            target: Any = group.target
            for entity in target.tolist():
                fits = [self._place(entity, units_in(s)) for s in group.sequences]
                whole = [(s, f) for s, f in zip(group.sequences, fits, strict=True) if f]
                self.lost += not whole
                for sequence, (first, more, _) in whole[:1]:
                    found = Span(first, first + more + 1, "")
                    covers = characters_of(found, units_in(sequence))
                    self.widened += [covers.start, covers.end] != entity[:2]

    def calibrate(self, gold: Items[list[Span]], parts: Items[list[Part]]) -> Calibration:
        """How likely a span of dev must be, so that micro F1 is best there."""
        found = [self.join(own, Calibration(thresholds=[LEAST])) for own in parts]
        chances = [sure.confidence for own in found for sure in own]
        pairs = zip(found, gold, strict=True)
        right = [sure.span in set(spans) for own, spans in pairs for sure in own]
        count = sum(len(set(spans)) for spans in gold)
        threshold = best_f1(np.array(chances), np.array(right, dtype=np.bool_), count)
        return Calibration(thresholds=[threshold])

    def remarks(self, calibration: Calibration) -> list[str]:
        """What `look_over` has counted, and dev has decided."""
        said = widened_remark(self.widened)
        if calibration.thresholds:
            least = calibration.thresholds[0]
            by = "fitted on dev" if self.config.threshold is None else "as set"
            said.append(f"{by}: a span is an entity from a probability of {least:.2f} on")
        if self.lost:
            said.append(
                f"{self.lost:,} entities were left out: they have over {self.config.longest} words "
                "(--longest), or no window holds them whole (--overlap)"
            )
        return said

    def mark(self, batch: Batch, groups: Items[Group]) -> Batch:
        """Add `tag` [E, 3] int64: of each gold span its first unit, how many follow, its type."""
        ends = asked(batch)[1].tolist()
        windows = [(s, group.target) for group in groups for s in group.sequences]
        rows = [
            (before + first, more, kind)
            for before, (sequence, target) in zip(ends, windows, strict=False)
            for first, more, kind in self._gold(sequence, target)
        ]
        gold = torch.from_numpy(np.array(rows, dtype=np.int64).reshape(-1, 3))
        return batch.with_targets(tag=gold)

    def _gold(self, sequence: Sequence, target: Any) -> Iterator[tuple[int, int, int]]:
        for entity in target.tolist():
            if found := self._place(entity, units_in(sequence)):
                yield found

    def _place(self, entity: list[int], units: Ints) -> tuple[int, int, int] | None:
        """An entity's first unit, how many follow, and its type; None where a window cuts it."""
        start, end, kind = entity
        found = units_of(Span(start, end, ""), units)
        if found is None or units[0, 0] > start or units[-1, 1] < end:
            return None
        more = found.end - found.start - 1
        return (found.start, more, kind) if more < self.config.longest else None

    def head(self, encoder: AnyEncoder) -> nn.Module:
        """A fresh head."""
        return SpanHead(encoder, len(self.types), self.config.dropout)

    def count(self, batch: Batch) -> float:
        """The windows."""
        return float(len(batch.offsets) - 1)

    def loss(self, head: nn.Module, x: Tensor, batch: Batch) -> Tensor:
        """The summed loss of windows: x [M, H] → scalar."""
        assert isinstance(head, SpanHead)
        spans = head.spans(x, batch.targets["tag_bounds"], self.config.longest)
        gold = torch.zeros_like(spans.scores, dtype=torch.bool)
        gold[tuple(batch.targets["tag"].unbind(1))] = True
        return spans.loss(gold)

    def predict(self, head: nn.Module, x: Tensor, ends: Tensor) -> Output:
        """`spans` [F, 3] int64 as in `mark`, of those that may be entities, and how `sure` [F]."""
        assert isinstance(head, SpanHead)
        scores, there, _ = head.spans(x, ends, self.config.longest)
        found = torch.nonzero((scores > log(LEAST / (1 - LEAST))) & there[:, :, None])
        return {"spans": found, "sure": torch.sigmoid(scores[tuple(found.unbind(1))])}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """Of each sequence its `units` [k, 2], their `room`, and the spans `found`, with `sure`.

        No more spans than there are units, the surest: a model that has learned nothing finds any.
        """
        ends = asked(batch)[1].tolist()
        spans, sure = output["spans"].numpy(), output["sure"].numpy()
        bounds = np.searchsorted(spans[:, 0], ends)
        parts: list[Part] = []
        for i, sequence in enumerate(batch.sequences):
            here = np.arange(bounds[i], bounds[i + 1])
            kept = here[np.argsort(-sure[here], kind="stable")[: ends[i + 1] - ends[i]]]
            own = spans[kept] - [ends[i], 0, 0]
            part = {"units": units_in(sequence), "room": room_of(sequence).tolist()}
            parts.append({**part, "found": own.tolist(), "sure": sure[kept].tolist()})
        return parts

    def join(self, parts: list[Part], calibration: Calibration) -> list[Sure]:
        """Of the windows that hold a span whole, that in which it is farthest inside decides."""
        least = calibration.thresholds[0] if calibration.thresholds else EVEN
        held = [_Window(part, self.types) for part in parts]
        found = []
        for span in sorted({span for window in held for span in window.found}):
            room, window = max(
                ((window.room(span), window) for window in held), key=lambda pair: pair[0]
            )
            assert room >= 0
            sure = window.found.get(span)
            if sure is not None and sure >= least:
                found.append(Sure(span, sure))
        return found

    def tags(self, found: Items[Sure], given: Ints) -> list[str] | None:
        """None: tags cannot tell entities inside one another."""
        return None


class _Window:
    """What was found in a window, by characters."""

    def __init__(self, part: Part, types: list[str]) -> None:
        units, room = part["units"].tolist(), list[int](part["room"])
        self._firsts = {start: room[i] for i, (start, _) in enumerate(units)}
        self._lasts = {end: room[i] for i, (_, end) in enumerate(units)}
        self.found: dict[Span, float] = {}
        for (first, more, kind), sure in zip(part["found"], part["sure"], strict=True):
            span = Span(units[first][0], units[first + more][1], types[kind])
            self.found[span] = min(1.0, sure)

    def room(self, span: Span) -> int:
        """How far inside the span is; -1 where the window does not hold it whole."""
        return min(self._firsts.get(span.start, -1), self._lasts.get(span.end, -1))
