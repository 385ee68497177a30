"""How well candidates were ordered: reciprocal rank, gain, recall and average precision."""

from collections.abc import Mapping, Sequence
from math import log2

from clozeworks.core.errors import UserError
from clozeworks.core.records import Record

CUTS = (1, 5, 10)
"""How many of the first candidates are looked at, where nothing else is asked for."""


class RankMetrics(Record):
    """Means over the queries that have something relevant; keys are how many were looked at."""

    queries: int
    """Those that were judged."""
    without: int
    """Those left out because nothing is relevant to them, as trec_eval leaves them out."""
    mrr: dict[int, float]
    """Reciprocal of the first relevant candidate's rank, 0 beyond the cut (Voorhees 1999)."""
    ndcg: dict[int, float]
    """Discounted gain, as a share of the best possible (Järvelin and Kekäläinen 2002)."""
    recall: dict[int, float]
    """The share of the relevant that stand among the first."""
    map: float
    """Mean of the average precision, over whole lists."""


def rank_metrics(
    ranked: Sequence[Sequence[str]],
    relevant: Sequence[Mapping[str, float]],
    cuts: Sequence[int] = CUTS,
) -> RankMetrics:
    """Judge lists of candidates, best first, against what is relevant to each query.

    `relevant` maps candidates to grades; above 0 is relevant, absent is not. What is relevant and
    not in the list counts as missed. Raises UserError for lists that do not belong together, a
    candidate listed twice, a cut below 1, or no query with anything relevant.
    """
    _check(ranked, relevant, cuts)
    judged = [(r, grades) for r, grades in zip(ranked, relevant, strict=True) if _any(grades)]
    if not judged:
        raise UserError("nothing is relevant to any query, so that no order can be judged")

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(judged)

    return RankMetrics(
        queries=len(judged),
        without=len(ranked) - len(judged),
        mrr={k: mean([reciprocal_rank(r, g, k) for r, g in judged]) for k in cuts},
        ndcg={k: mean([ndcg(r, g, k) for r, g in judged]) for k in cuts},
        recall={k: mean([recall(r, g, k) for r, g in judged]) for k in cuts},
        map=mean([average_precision(r, g) for r, g in judged]),
    )


def reciprocal_rank(ranked: Sequence[str], relevant: Mapping[str, float], k: int) -> float:
    """1 / the rank of the first relevant candidate, 0 where none is among the first `k`."""
    for rank, name in enumerate(ranked[:k], 1):
        if relevant.get(name, 0) > 0:
            return 1 / rank
    return 0.0


def ndcg(ranked: Sequence[str], relevant: Mapping[str, float], k: int) -> float:
    """Σ grade / log2(1 + rank) over the first `k`, divided by that of the best order.

    The gain is the grade itself, as in trec_eval and scikit-learn, not 2^grade - 1. 0 where nothing
    is relevant.
    """
    best = _gain(sorted(relevant.values(), reverse=True)[:k])
    return _gain([relevant.get(name, 0) for name in ranked[:k]]) / best if best else 0.0


def recall(ranked: Sequence[str], relevant: Mapping[str, float], k: int) -> float:
    """The share of the relevant that are among the first `k`; 0 where nothing is relevant."""
    wanted = {name for name, grade in relevant.items() if grade > 0}
    return len(wanted.intersection(ranked[:k])) / len(wanted) if wanted else 0.0


def average_precision(ranked: Sequence[str], relevant: Mapping[str, float]) -> float:
    """Mean, over all that is relevant, of the precision at its rank; 0 for what is not listed."""
    hits, total = 0, 0.0
    for rank, name in enumerate(ranked, 1):
        if relevant.get(name, 0) > 0:
            hits += 1
            total += hits / rank
    wanted = sum(grade > 0 for grade in relevant.values())
    return total / wanted if wanted else 0.0


def _gain(grades: Sequence[float]) -> float:
    return sum(max(grade, 0) / log2(1 + rank) for rank, grade in enumerate(grades, 1))


def _any(grades: Mapping[str, float]) -> bool:
    return any(grade > 0 for grade in grades.values())


def _check(
    ranked: Sequence[Sequence[str]], relevant: Sequence[Mapping[str, float]], cuts: Sequence[int]
) -> None:
    if len(ranked) != len(relevant):
        raise UserError(
            f"{len(ranked)} lists of candidates and {len(relevant)} of what is relevant"
        )
    if any(k < 1 for k in cuts):
        raise UserError(f"a cut of {min(cuts)} looks at no candidate; give numbers from 1")
    for row, names in enumerate(ranked, 1):
        if len(set(names)) != len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise UserError(f"query {row}: candidate {twice!r} is listed twice; list it once")
