"""Retrieval: places and first ones are those of a whole sort, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from clozeworks.metrics import retrieve as module
from clozeworks.metrics.retrieve import Pool, retrieval_metrics, retrieve, spread


def made(queries, candidates, seed, levels=None):
    """A pool of random vectors; with few `levels` of their numbers, many cosines are equal."""
    random = np.random.default_rng(seed)

    def rows(count):
        if levels:
            return random.integers(0, levels, (count, 3)).astype(np.float32)
        return random.normal(size=(count, 5)).astype(np.float32)

    relevant = [
        sorted(set(random.integers(0, candidates, 1 + int(random.integers(3))).tolist()))
        for _ in range(queries)
    ]
    same = [int(random.integers(candidates)) if random.random() < 0.4 else None for _ in relevant]
    return Pool(rows(queries), rows(candidates), relevant, same)


def whole_order(pool, query):
    """All candidates of a query, the best first, sorted as a whole."""
    scores = pool.candidates @ pool.queries[query]
    aside = pool.same[query]
    places = [i for i in range(len(scores)) if i != aside or aside in pool.relevant[query]]
    return sorted(places, key=lambda i: (-scores[i], i))


@given(
    st.integers(1, 9),
    st.integers(12, 30),
    st.integers(0, 99),
    st.sampled_from([None, 1, 2, 4]),
    st.sampled_from([1, 40, 1 << 20]),
)
def test_places_are_those_of_a_whole_sort(queries, candidates, seed, levels, block):
    pool = made(queries, candidates, seed, levels)
    before, module.BLOCK = module.BLOCK, block
    try:
        found = retrieve(pool, 10)
    finally:
        module.BLOCK = before
    for query in range(queries):
        order = whole_order(pool, query)
        assert found.first[query].tolist() == order[:10]
        places = sorted(1 + order.index(i) for i in pool.relevant[query])
        assert found.ranks[query] == places[0]
        precision = np.mean([n / place for n, place in enumerate(places, 1)])
        assert found.precision[query] == pytest.approx(precision)
    metrics = retrieval_metrics(found, pool.relevant)
    assert metrics.map == pytest.approx(found.precision.mean())
    assert metrics.mrr[10] == pytest.approx(np.where(found.ranks <= 10, 1 / found.ranks, 0).mean())


def test_the_gain_is_scikit_learns():
    pool = made(6, 20, 0)._replace(same=[None] * 6)
    gold = np.zeros((6, 20))
    for query, own in enumerate(pool.relevant):
        gold[query, own] = 1
    wanted = ndcg_score(gold, pool.queries @ pool.candidates.T, k=10)
    assert retrieval_metrics(retrieve(pool), pool.relevant).ndcg[10] == pytest.approx(wanted)


def test_fewer_candidates_than_are_looked_at():
    pool = Pool(*(np.eye(3, dtype=np.float32),) * 2, [[0], [1], [2]], [None] * 3)
    found = retrieve(pool)
    assert found.ranks.tolist() == [1, 1, 1] and found.first.shape == (3, 3)


def test_spread_grows_as_vectors_part():
    together, apart = np.ones((4, 4), np.float32) / 2, np.eye(4, dtype=np.float32)
    assert spread(together) == pytest.approx(0) and spread(apart) == pytest.approx(4)
    assert spread(apart[:1]) == 0
