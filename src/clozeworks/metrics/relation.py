"""How well relations were told: F1 with their direction, as SemEval-2010 Task 8 counts it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
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


class Tally(NamedTuple):
    """Labels, the relations they are directions of, and how often each was taken for each."""

    names: list[str]
    """The relations, no relation left out."""
    member: Ints
    """[R, K] int64, 1 where a label is a direction of a relation."""
    confusion: Ints
    """[K, K] int64, rows of one label that were given another."""

    @property
    def counts(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Of each relation [R]: rows that are it, were given it, are right, and are turned."""
        gold, given = (self.member @ self.confusion.sum(axis) for axis in (1, 0))
        right = self.member @ np.diag(self.confusion)
        both = np.einsum("rk,kl,rl->r", self.member, self.confusion, self.member)
        return gold, given, right, both - right

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the relations that are there or were given; 0 where none is."""
        gold, given, right, _ = self.counts
        seen = gold + given > 0
        return float((2 * right[seen] / (gold + given)[seen]).mean()) if seen.any() else 0.0

    @property
    def micro(self) -> Averages:
        """Over all relations together."""
        gold, given, right, _ = (int(counts.sum()) for counts in self.counts)
        return Averages(
            precision=right / max(1, given),
            recall=right / max(1, gold),
            f1=2 * right / max(1, gold + given),
        )


def tally(gold: Ints, given: Ints, labels: Sequence[str], no_relation: str = "") -> Tally:
    """Count label numbers [N]; `no_relation` is the label that means that there is none, if any."""
    size = len(labels)
    of = ["" if label == no_relation else relation_of(label)[0] for label in labels]
    names = sorted(set(of) - {""})
    member = np.array([[o == name for o in of] for name in names], dtype=np.int64)
    counts = np.bincount(gold * size + given, minlength=size * size)
    return Tally(names, member.reshape(-1, size), counts.reshape(size, size))


def relation_metrics(
    gold: Sequence[str], predicted: Sequence[str], no_relation: str = ""
) -> RelationMetrics:
    """Judge one label a row; `no_relation` is the label that means that there is none, if any.

    A relation in the wrong direction is wrong, and counts as given and as there: so the official
    scorer of SemEval-2010 Task 8 has it ("(9+1)-way evaluation taking directionality into
    account"). Raises UserError for no rows.
    """
    if not gold:
        raise UserError("there are no rows to judge; check that the file is not empty")
    labels = sorted({*gold, *predicted})
    numbers = {label: i for i, label in enumerate(labels)}
    there, given = (np.array([numbers[x] for x in side], np.int64) for side in (gold, predicted))
    found = tally(there, given, labels, no_relation)
    return RelationMetrics(
        rows=len(there),
        accuracy=float((there == given).mean()),
        macro_f1=found.macro_f1,
        micro=found.micro,
        relations=[
            RelationRow(
                relation=name,
                gold=g,
                predicted=p,
                right=r,
                turned=t,
                precision=r / max(1, p),
                recall=r / max(1, g),
                f1=2 * r / max(1, g + p),
            )
            for name, g, p, r, t in zip(
                found.names, *(counts.tolist() for counts in found.counts), strict=True
            )
        ],
    )
