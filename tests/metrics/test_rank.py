"""Laws of the ranking metrics: scikit-learn's numbers, and those of published examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from clozeworks.core.errors import UserError
from clozeworks.metrics.rank import average_precision, ndcg, rank_metrics, recall, reciprocal_rank

grades = st.lists(st.integers(0, 3), min_size=2, max_size=12).filter(any)
cuts = st.integers(1, 14)


def listed(grades):
    """A list in this order of grades, and what is relevant."""
    names = [str(i) for i in range(len(grades))]
    return names, dict(zip(names, map(float, grades), strict=True))


@given(grades, cuts)
def test_gain_and_precision_are_scikit_learns(grades, k):
    ranked, relevant = listed(grades)
    falling = np.arange(len(grades), 0, -1)[None]
    assert ndcg(ranked, relevant, k) == pytest.approx(ndcg_score([grades], falling, k=k))
    binary = np.array(grades) > 0
    want = average_precision_score(binary, falling[0])
    assert average_precision(ranked, relevant) == pytest.approx(want)


@given(grades, cuts)
def test_definitions(grades, k):
    ranked, relevant = listed(grades)
    places = [i + 1 for i, grade in enumerate(grades) if grade]
    first = 1 / places[0] if places[0] <= k else 0
    assert reciprocal_rank(ranked, relevant, k) == first
    assert recall(ranked, relevant, k) == sum(p <= k for p in places) / len(places)
    best = sorted(ranked, key=lambda name: -relevant[name])
    assert ndcg(best, relevant, k) == pytest.approx(1)
    assert average_precision(best, relevant) == pytest.approx(1)


@given(grades, st.data())
def test_moving_something_relevant_up_never_costs(grades, data):
    ranked, relevant = listed(grades)
    i = data.draw(st.integers(0, len(grades) - 2))
    if grades[i] >= grades[i + 1]:
        return
    better = [*ranked[:i], ranked[i + 1], ranked[i], *ranked[i + 2 :]]
    one, other = (rank_metrics([r], [relevant]) for r in (ranked, better))
    for name in ("mrr", "ndcg", "recall"):
        for k, value in getattr(one, name).items():
            assert getattr(other, name)[k] >= value - 1e-12
    assert other.map >= one.map - 1e-12


def test_the_example_of_graded_gain():
    """en.wikipedia.org/wiki/Discounted_cumulative_gain: grades 3 2 3 0 1 2, and 3 2 not listed."""
    ranked, relevant = listed([3, 2, 3, 0, 1, 2])
    relevant |= {"unlisted": 3.0, "another": 2.0}
    assert ndcg(ranked, relevant, 6) == pytest.approx(0.785, abs=5e-4)


def test_the_example_of_reciprocal_rank():
    """en.wikipedia.org/wiki/Mean_reciprocal_rank: right answers at 3, 2 and 1 give 11 / 18."""
    lists = [["catten", "cati", "cats"], ["torii", "tori", "toruses"], ["viruses", "virii", "viri"]]
    found = rank_metrics(lists, [{"cats": 1}, {"tori": 1}, {"viruses": 1}], (3, 2))
    assert found.mrr == {3: pytest.approx(11 / 18), 2: pytest.approx(0.5)}


def test_what_is_not_listed_is_missed_and_queries_without_anything_are_left_out():
    found = rank_metrics([["a", "b"], ["x"]], [{"b": 1, "c": 1}, {"x": 0}], (2,))
    assert (found.queries, found.without) == (1, 1)
    assert found.recall[2] == 0.5 and found.map == 0.25 and found.mrr[2] == 0.5


def test_bad_input_is_named():
    with pytest.raises(UserError, match="1 lists of candidates and 2"):
        rank_metrics([["a"]], [{"a": 1}, {}])
    with pytest.raises(UserError, match="query 1: candidate 'a' is listed twice"):
        rank_metrics([["a", "b", "a"]], [{"a": 1}])
    with pytest.raises(UserError, match="a cut of 0"):
        rank_metrics([["a"]], [{"a": 1}], (0, 3))
    for lists in ([], [["a"]]):
        with pytest.raises(UserError, match="nothing is relevant"):
            rank_metrics(lists, [{}] * len(lists))
