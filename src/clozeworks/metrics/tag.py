"""How well entities were found: exact spans with their types, and tags one by one."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Record
from clozeworks.metrics.classify import Averages
from clozeworks.text.tags import Span


class TypeRow(Record):
    """Entities of one type; a ratio whose denominator is zero is 0."""

    type: str
    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int
    right: int
    """Those found with exactly their first unit, last unit and type."""


class TagMetrics(Record):
    """Every number of finding entities; entities may lie inside one another."""

    rows: int
    micro: Averages
    """Over all entities alike: the F1 that the CoNLL tasks report."""
    macro: Averages
    """Mean over the types that occur among gold or predicted entities: what CLUENER reports."""
    weighted: Averages
    """Mean over the types weighted by their gold entities."""
    gold: int
    predicted: int
    right: int
    types: list[TypeRow]
    """In the order of their names."""
    whole: float
    """The share of rows in which every entity was found and none invented."""


def tag_metrics(
    gold: Sequence[Collection[Span]], predicted: Sequence[Collection[Span]]
) -> TagMetrics:
    """Judge the entities of each row against the gold ones; the same span twice counts once.

    Raises UserError for no rows or a different number of them.
    """
    _check(gold, predicted, "rows")
    pairs = [(set(g), set(p)) for g, p in zip(gold, predicted, strict=True)]
    wanted = _by_type(g for g, _ in pairs)
    found = _by_type(p for _, p in pairs)
    right = _by_type(g & p for g, p in pairs)
    names = sorted(wanted.keys() | found.keys())
    types = [_type_row(name, wanted[name], found[name], right[name]) for name in names]
    return TagMetrics(
        rows=len(pairs),
        micro=_ratios(wanted.total(), found.total(), right.total()),
        macro=_mean(types, [1] * len(types)),
        weighted=_mean(types, [row.gold for row in types]),
        gold=wanted.total(),
        predicted=found.total(),
        right=right.total(),
        types=types,
        whole=float(np.mean([g == p for g, p in pairs])),
    )


def tag_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The share of units that were given their gold tag; mostly that of "O", so no measure alone.

    Raises UserError where two rows have a different number of tags, or there are none.
    """
    _check(gold, predicted, "rows")
    for row, (g, p) in enumerate(zip(gold, predicted, strict=True), 1):
        if len(g) != len(p):
            raise UserError(f"row {row} has {len(g)} gold tags and {len(p)} predicted ones")
    same = [a == b for g, p in zip(gold, predicted, strict=True) for a, b in zip(g, p, strict=True)]
    if not same:
        raise UserError("there are no tags to judge; every row is empty")
    return float(np.mean(same))


def _check(gold: Sequence[object], predicted: Sequence[object], what: str) -> None:
    if len(gold) != len(predicted):
        raise UserError(f"{len(gold)} gold {what} and {len(predicted)} predicted ones")
    if not gold:
        raise UserError(f"there are no {what} to judge; check that the file is not empty")


def _by_type(rows: Iterable[set[Span]]) -> Counter[str]:
    return Counter(span.type for row in rows for span in row)


def _ratios(gold: int, predicted: int, right: int) -> Averages:
    return Averages(
        precision=right / predicted if predicted else 0.0,
        recall=right / gold if gold else 0.0,
        f1=2 * right / (gold + predicted) if gold + predicted else 0.0,
    )


def _type_row(name: str, gold: int, predicted: int, right: int) -> TypeRow:
    ratios = _ratios(gold, predicted, right).model_dump()
    return TypeRow(type=name, **ratios, gold=gold, predicted=predicted, right=right)


def _mean(types: Sequence[TypeRow], weights: Sequence[int]) -> Averages:
    if not sum(weights):
        return Averages(precision=0.0, recall=0.0, f1=0.0)
    rows = [(row.precision, row.recall, row.f1) for row in types]
    precision, recall, f1 = np.average(np.array(rows), axis=0, weights=weights)
    return Averages(precision=float(precision), recall=float(recall), f1=float(f1))
