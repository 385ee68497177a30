"""Laws of the metrics of numbers: scipy's correlations, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clozeworks.core.errors import UserError
from clozeworks.metrics.regress import pearson, ranks, regress_metrics, spearman

numbers = st.sampled_from([0.0, 0.5, 1.0, 2.25, 5.0]) | st.floats(-1e6, 1e6).map(
    lambda x: round(x, 3)
)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30)


def sides(pairs):
    return (np.array(side) for side in zip(*pairs, strict=True))


@given(pairs)
def test_correlations_are_scipys(pairs):
    a, b = sides(pairs)
    assert ranks(a) == pytest.approx(stats.rankdata(a))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert pearson(a, b) is None and spearman(a, b) is None
        return
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)
    assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-6)


@given(pairs)
def test_spearman_sees_order_alone_and_pearson_straight_lines(pairs):
    a, b = sides(pairs)
    bent = np.cbrt(b)  # rises with b, and is no straight line
    if len(np.unique(bent)) == len(np.unique(b)):
        assert spearman(a, bent) == pytest.approx(spearman(a, b))
    if np.ptp(a):
        assert pearson(a, 3 * a - 7) == pytest.approx(1) and pearson(a, -a) == pytest.approx(-1)


def test_numbers_of_any_size_correlate():
    a = np.array([1.0, 2.0, 4.0])
    for scale in (1e-300, 1e-160, 1e300):
        assert pearson(a * scale, a) == pytest.approx(1)


def test_distances_by_hand():
    found = regress_metrics([1, 2, 3, 4], [1, 2, 3, 0])
    assert (found.rows, found.mean_absolute_error, found.root_mean_square_error) == (4, 1, 2)
    assert regress_metrics([1, 2], [3, 3]).pearson is None


def test_bad_input_is_named():
    with pytest.raises(UserError, match="no rows"):
        regress_metrics([], [])
    with pytest.raises(UserError, match="2 gold values and 1"):
        regress_metrics([1, 2], [1])
    with pytest.raises(UserError, match="row 2: the predicted value is nan"):
        regress_metrics([1, 2], [1, float("nan")])
