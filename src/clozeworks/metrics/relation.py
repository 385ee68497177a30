"""How well relations were told: F1 with their direction, as SemEval-2010 Task 8 counts it."""

import re
from collections.abc import Sequence

from clozeworks.core.errors import UserError
from clozeworks.core.records import Record
from clozeworks.metrics.classify import Averages

_DIRECTION = re.compile(r"^(.+)\((e1,e2|e2,e1)\)$")


class RelationRow(Record):
    """One relation, its two directions taken together."""

    relation: str
    gold: int
    predicted: int
    right: int
    """Of those, with the right direction."""
    turned: int
    """The relation is right and its direction wrong."""
    precision: float
    recall: float
    f1: float


class RelationMetrics(Record):
    """What all rows come to."""

    rows: int
    accuracy: float
    """Rows whose label is right, direction and all."""
    macro_f1: float
    """Mean F1 of the relations, no relation left out: SemEval-2010 Task 8's official figure."""
    micro: Averages
    """Over all rows but those that are, or are taken for, no relation, as TACRED counts it."""
    relations: list[RelationRow]
    """Each that is there or was given, no relation left out; by name."""


def relation_of(label: str) -> tuple[str, str]:
    """A label without its direction, and the direction: "e1,e2", "e2,e1" or ""."""
    found = _DIRECTION.match(label)
    return (found[1], found[2]) if found else (label, "")


def relation_metrics(
    gold: Sequence[str], predicted: Sequence[str], no_relation: str = ""
) -> RelationMetrics:
    """Judge one label a row; `no_relation` is the one that means that there is none, if any.

    A relation in the wrong direction is wrong, and counts as given and as there: so the official
    scorer of SemEval-2010 Task 8 has it ("(9+1)-way evaluation taking directionality into
    account"). Raises UserError for no rows.
    """
    if not gold:
        raise UserError("there are no rows to judge; check that the file is not empty")
    pairs = list(zip(gold, predicted, strict=True))
    names = {relation_of(label)[0] for pair in pairs for label in pair if label != no_relation}
    relations = [_row(name, pairs, no_relation) for name in sorted(names)]
    given = sum(p != no_relation for p in predicted)
    there = sum(g != no_relation for g in gold)
    right = sum(g == p != no_relation for g, p in pairs)
    return RelationMetrics(
        rows=len(pairs),
        accuracy=sum(g == p for g, p in pairs) / len(pairs),
        macro_f1=sum(row.f1 for row in relations) / max(1, len(relations)),
        micro=Averages(
            precision=right / max(1, given),
            recall=right / max(1, there),
            f1=2 * right / max(1, given + there),
        ),
        relations=relations,
    )


def _row(name: str, pairs: Sequence[tuple[str, str]], no_relation: str) -> RelationRow:
    gold = [g for g, _ in pairs if _is(g, name, no_relation)]
    given = [p for _, p in pairs if _is(p, name, no_relation)]
    both = [(g, p) for g, p in pairs if _is(g, name, no_relation) and _is(p, name, no_relation)]
    right = sum(g == p for g, p in both)
    return RelationRow(
        relation=name,
        gold=len(gold),
        predicted=len(given),
        right=right,
        turned=len(both) - right,
        precision=right / max(1, len(given)),
        recall=right / max(1, len(gold)),
        f1=2 * right / max(1, len(gold) + len(given)),
    )


def _is(label: str, name: str, no_relation: str) -> bool:
    return label != no_relation and relation_of(label)[0] == name
