"""How well vectors find what belongs to them among all others; in blocks, in flat memory."""

from collections.abc import Iterator, Sequence
from statistics import fmean as mean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clozeworks.core.records import Ints
from clozeworks.metrics.rank import CUTS, RankMetrics, rank_metrics

Floats = npt.NDArray[np.float32]

BLOCK = 1 << 23
"""Similarities held at a time: 32 MB."""
SPREAD = 2000
"""Vectors of which every pair is looked at, to say how far apart they lie."""


class Found(NamedTuple):
    """What each of Q queries found."""

    ranks: Ints
    """[Q], from 1: the place of the first that belongs to it."""
    first: Ints
    """[Q, k], the candidates that came first, the best first."""
    precision: Floats
    """[Q], the average precision over all candidates."""


class Pool(NamedTuple):
    """Queries [Q, H] and candidates [C, H] of length 1, and what belongs together.

    `relevant` are the candidates that belong to each query, `same` those that are the query itself,
    word for word, and stand aside.
    """

    queries: Floats
    candidates: Floats
    relevant: Sequence[Sequence[int]]
    same: Sequence[int | None]


def retrieve(pool: Pool, k: int = max(CUTS)) -> Found:
    """Order all candidates for every query by cosine; of equal ones the earlier goes first."""
    parts = [_block(pool, start, stop, k) for start, stop in _blocks(pool)]
    return Found(*(np.concatenate(some) for some in zip(*parts, strict=True)))


def _blocks(pool: Pool) -> Iterator[tuple[int, int]]:
    size = max(1, BLOCK // max(1, len(pool.candidates)))
    for start in range(0, len(pool.queries), size):
        yield start, min(start + size, len(pool.queries))


def _block(pool: Pool, start: int, stop: int, k: int) -> Found:
    scores = pool.queries[start:stop] @ pool.candidates.T
    for row, query in enumerate(range(start, stop)):
        aside = pool.same[query]
        if aside is not None and aside not in pool.relevant[query]:
            scores[row, aside] = -np.inf
    k = min(k, scores.shape[1])
    least = np.partition(scores, -k, axis=1)[:, -k]
    ranks, first, precision = [], [], []
    for row, query in enumerate(range(start, stop)):
        places = sorted(_rank(scores[row], own) for own in set(pool.relevant[query]))
        ranks.append(places[0])
        precision.append(mean(n / place for n, place in enumerate(places, 1)))
        some = np.flatnonzero(scores[row] >= least[row])
        first.append(some[np.argsort(-scores[row, some], kind="stable")][:k])
    return Found(
        np.array(ranks, dtype=np.int64),
        np.array(first, dtype=np.int64),
        np.array(precision, dtype=np.float32),
    )


def _rank(scores: Floats, own: int) -> int:
    """The place of a candidate; of equal scores the earlier goes first."""
    before = np.count_nonzero(scores[:own] == scores[own])
    return 1 + int(np.count_nonzero(scores > scores[own]) + before)


def retrieval_metrics(found: Found, relevant: Sequence[Sequence[int]]) -> RankMetrics:
    """The numbers of what was found, at the usual cuts."""
    ranked = [[str(i) for i in row] for row in found.first.tolist()]
    cut = rank_metrics(ranked, [{str(i): 1.0 for i in own} for own in relevant])
    return cut.model_copy(update={"map": float(found.precision.mean(dtype=np.float64))})


def spread(vectors: Floats) -> float:
    """How far apart vectors [N, H] of length 1 lie: -log of the mean of exp(-2 d²) over pairs.

    The uniformity of Wang and Isola (2020) with its sign turned, so that more is better; of many
    vectors, over SPREAD of them, evenly chosen. 0 where there are fewer than two.
    """
    chosen = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), SPREAD)).astype(int))
    if len(chosen) < 2:
        return 0.0
    some = vectors[chosen].astype(np.float64)
    squared = np.clip(2 - 2 * some @ some.T, 0, None)
    pairs = np.exp(-2 * squared)[np.triu_indices(len(some), 1)]
    return float(-np.log(pairs.mean()))
