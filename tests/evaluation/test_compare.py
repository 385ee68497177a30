"""Laws of intervals and of comparing two models on the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.evaluation.compare import (
    Marked,
    differences,
    digest_rows,
    marks_of,
    paired_gain,
    proportion,
    resampled,
)

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(pairs)
def test_a_gain_is_the_difference_of_accuracies_and_its_opposite_the_other_way(rows):
    one, other = (marks_of(np.array(side)) for side in zip(*rows, strict=True))
    gain, loss = paired_gain(one, other), paired_gain(other, one)
    assert gain.estimate == pytest.approx((one.count("1") - other.count("1")) / len(rows))
    assert gain.estimate == -loss.estimate
    assert gain.low <= gain.estimate + 1e-9 and gain.estimate - 1e-9 <= gain.high
    assert paired_gain(one, one).model_dump() == {"estimate": 0, "low": 0, "high": 0}


def test_the_interval_is_the_one_of_resampled_rows():
    random = np.random.default_rng(1)
    one, other = random.random(300) < 0.8, random.random(300) < 0.7
    drawn = random.integers(0, 300, (4000, 300))
    gains = one[drawn].mean(axis=1) - other[drawn].mean(axis=1)
    gain = paired_gain(marks_of(one), marks_of(other))
    assert (gain.low, gain.high) == pytest.approx(np.quantile(gains, [0.025, 0.975]), abs=0.01)


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_proportion_lies_inside_its_interval(right, more):
    found = proportion(right, right + more)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high


def test_wilsons_interval_holds_the_truth_nineteen_times_in_twenty():
    random = np.random.default_rng(0)
    for truth in (0.5, 0.9, 0.97):
        intervals = [proportion(int(r), 100) for r in random.binomial(100, truth, 2000)]
        held = np.mean([i.low <= truth <= i.high for i in intervals])
        assert held == pytest.approx(0.95, abs=0.025)


def test_a_resampled_mean_has_the_interval_of_its_standard_error():
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = resampled(lambda rows: float(values[rows].mean()), 400)
    assert found is not None and found.estimate == values.mean()
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.05
    )


def test_a_share_that_never_varies_has_wilsons_interval_and_another_number_none():
    assert resampled(lambda rows: 1.0, 20) == proportion(20, 20)
    sure = resampled(lambda rows: 1.0, 20, share=False)
    assert sure is not None and (sure.low, sure.high) == (1, 1)


def test_draws_that_say_nothing_are_left_out_and_nothing_has_no_interval():
    def mean_of_first(rows):
        own = rows[rows < 3]
        return float(own.mean()) if len(own) else None

    assert resampled(mean_of_first, 10) is not None
    assert resampled(lambda rows: None, 10) is None


def test_models_judged_on_other_rows_are_not_compared():
    judged = [Marked(name=n, rows_digest=n, marks="10") for n in ("a", "b")]
    with pytest.raises(UserError, match="'a' and 'b' were judged on different rows"):
        differences(judged)
    assert differences(judged[:1]) == differences([]) == []


@given(st.lists(st.lists(st.text())), st.lists(st.lists(st.text())))
def test_only_the_same_rows_have_the_same_digest(one, other):
    assert (digest_rows(one) == digest_rows(other)) == (one == other)
