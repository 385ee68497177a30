"""Laws of temperature, reliability and the threshold of "I don't know"."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.metrics.calibrate import (
    TEMPERATURES,
    calibrate,
    coverage_accuracy,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    reliability_bins,
    softmax,
)

judged = st.lists(
    st.tuples(st.floats(0, 1) | st.sampled_from([0.5, 0.9, 1.0]), st.booleans()), min_size=1
).map(lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows])))


def loss(logits, labels, temperature):
    chances = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return -np.log(chances).mean()


@pytest.mark.parametrize("heat", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_logits_were_heated_by_is_found(heat):
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 5))
    labels = (softmax(logits).cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(logits * heat, labels) == pytest.approx(heat, rel=0.03)


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5), st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_no_other_temperature_is_much_better(seed, heat, classes):
    random = np.random.default_rng(seed)
    logits = random.normal(0, heat, (400, classes))
    labels = random.integers(0, classes, 400)
    labels[:200] = logits[:200].argmax(axis=1)
    best = loss(logits, labels, fit_temperature(logits, labels))
    assert all(best < loss(logits, labels, t) + 0.003 for t in np.geomspace(*TEMPERATURES, 200))


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("margin", [1e-3, 1.0, 1e4])
def test_a_dev_set_without_mistakes_is_not_believed_beyond_its_size(rows, margin):
    logits = np.zeros((rows, 3))
    logits[:, 1] = margin
    labels = np.ones(rows, dtype=np.int64)
    temperature = fit_temperature(logits, labels)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    if margin == 1.0:
        chance = softmax(logits, temperature)[0, 1]
        assert chance == pytest.approx((rows + 1) / (rows + 2), abs=1e-3)


def test_nothing_to_learn_from_leaves_the_temperature_alone():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 1
    assert fit_temperature(np.ones((4, 3)), np.array([0, 1, 2, 0])) == 1
    assert fit_temperature(np.ones((4, 1)), np.zeros(4, dtype=np.int64)) == 1
    empty = calibrate(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    assert (empty.temperature, empty.threshold) == (1, 0)


def test_extreme_logits_do_not_overflow():
    logits = np.array([[1e30, 0.0], [-1e30, 1e30], [0.0, 1.0]])
    with np.errstate(all="raise", under="ignore"):
        assert 0 < fit_temperature(logits, np.array([1, 0, 1])) <= TEMPERATURES[1]


@given(judged, st.integers(1, 30))
@settings(max_examples=80, deadline=None)
def test_every_row_is_in_the_bin_that_holds_it(rows, bins):
    confidence, correct = rows
    found = reliability_bins(confidence, correct, bins)
    assert sum(b.rows for b in found) == len(confidence)
    for b in found:
        if b.rows:
            assert b.low - 1e-12 <= b.confidence <= b.high + 1e-12
    error = expected_calibration_error(confidence, correct, bins)
    assert 0 <= error <= 1
    assert error >= abs(confidence.mean() - correct.mean()) - 1e-9


def test_calibration_error_of_known_rows():
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    correct = np.array([True, True, True, False, True, False])
    # 4 rows promise .9 and keep .75; 2 promise .6 and keep .5
    assert expected_calibration_error(confidence, correct) == pytest.approx((4 * 0.15 + 0.2) / 6)
    assert reliability_bins(np.array([0.5]), np.array([True]), bins=2)[0].rows == 1
    always = np.ones(10)
    assert expected_calibration_error(always, always.astype(bool)) == 0


@given(judged)
@settings(max_examples=80, deadline=None)
def test_each_point_of_the_coverage_curve_is_true(rows):
    confidence, correct = rows
    curve = coverage_accuracy(confidence, correct)
    assert curve.coverage[-1] == 1 and curve.accuracy[-1] == pytest.approx(correct.mean())
    assert (np.diff(curve.coverage) > 0).all() and (np.diff(curve.threshold) < 0).all()
    for threshold, coverage, accuracy in zip(
        curve.threshold, curve.coverage, curve.accuracy, strict=True
    ):
        answered = confidence >= threshold
        assert coverage == pytest.approx(answered.mean())
        assert accuracy == pytest.approx(correct[answered].mean())


@given(judged, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_the_threshold_is_the_lowest_that_keeps_its_promise(rows, target, floor):
    confidence, correct = rows
    threshold = fit_threshold(confidence, correct, target, floor)
    answered = confidence >= threshold
    assert 0 <= threshold <= 1
    assert answered.mean() >= floor
    accuracy = correct[answered].mean()
    allowed = [t for t in [0.0, *confidence] if (confidence >= t).mean() >= floor]
    reachable = {t: correct[confidence >= t].mean() for t in allowed}
    wanted = target if max(reachable.values()) >= target else max(reachable.values())
    assert accuracy >= wanted
    lower = [a for t, a in reachable.items() if (confidence >= t).sum() > answered.sum()]
    assert all(a < wanted for a in lower)


def test_a_model_that_is_right_enough_answers_everything():
    just_enough = np.arange(20) != 0
    assert fit_threshold(np.linspace(0.1, 0.9, 20), just_enough, target=0.95) == 0
    assert fit_threshold(np.zeros(0), np.zeros(0, dtype=bool)) == 0


def test_the_threshold_stands_between_two_confidences():
    confidence = np.array([0.9] * 9 + [0.3])
    correct = np.array([True] * 9 + [False])
    assert fit_threshold(confidence, correct) == pytest.approx(0.6)


def test_no_rows_are_refused():
    none = np.zeros(0)
    for measure in (reliability_bins, coverage_accuracy):
        with pytest.raises(UserError, match="no rows"):
            measure(none, none.astype(bool))
