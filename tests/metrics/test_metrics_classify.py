"""Laws of the single-label metrics."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from clozeworks.core.errors import UserError
from clozeworks.metrics.classify import classify_metrics, thinned

LABELS = ["a", "退款", "c", "never"]
rows = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_counts_add_up_and_averages_are_scikit_learns(pairs):
    gold, guess = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classify_metrics(gold, guess, LABELS)
        want = precision_recall_fscore_support(gold, guess, average="macro", zero_division=0)
    confusion = np.array(found.confusion)
    assert confusion.sum() == found.rows == len(pairs)
    assert confusion.sum(axis=1).tolist() == [row.gold for row in found.classes]
    assert confusion.sum(axis=0).tolist() == [row.predicted for row in found.classes]
    assert found.accuracy == pytest.approx(confusion.trace() / len(pairs))
    assert found.micro.f1 == pytest.approx(found.accuracy)
    macro = (found.macro.precision, found.macro.recall, found.macro.f1)
    assert macro == pytest.approx(want[:3])


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one, other = (classify_metrics(*zip(*p, strict=True), LABELS) for p in (pairs, shuffled))
    assert one == other


@pytest.mark.parametrize("gold", [["no"] * 4, ["no", "no", "yes", "yes"]])
def test_a_class_absent_from_gold_has_no_area_and_no_warning(gold):
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classify_metrics(gold, ["no"] * 4, ["no", "yes"], scores)
    assert (found.roc is None) == (len(set(gold)) == 1)
    assert found.auc == (None if len(set(gold)) == 1 else 1.0)


def test_area_is_the_share_of_pairs_in_the_right_order():
    random = np.random.default_rng(0)
    right = random.integers(0, 2, 50)
    chance = np.clip(0.5 + 0.2 * (right - 0.5) + random.normal(0, 0.2, 50), 0, 1).round(1)
    labels = ["no", "yes"]
    gold = [labels[i] for i in right]
    found = classify_metrics(gold, gold, labels, np.stack([1 - chance, chance], axis=1))
    above = chance[right == 1][:, None] - chance[right == 0][None, :]
    assert found.auc == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    curve = found.roc
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(found.auc)
    assert curve.positive == "yes"


def test_one_class_is_judged_like_any():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classify_metrics(["a", "a"], ["a", "a"], ["a"], np.ones((2, 1)))
    assert found.accuracy == 1 and found.confusion == [[2]] and found.auc is None


def test_bad_input_is_named():
    with pytest.raises(UserError, match="no rows"):
        classify_metrics([], [], LABELS)
    with pytest.raises(
        UserError, match=r"row 2: label '退款款' was never seen.*did you mean '退款'"
    ):
        classify_metrics(["a", "退款款"], ["a", "a"], LABELS)
    with pytest.raises(UserError, match="NaN"):
        classify_metrics(["a"], ["a"], LABELS, np.full((1, 4), np.nan))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=500), st.integers(3, 50))
@settings(max_examples=50, deadline=None)
def test_thinning_keeps_both_ends_and_the_order(values, points):
    position = np.sort(np.array(values))
    kept = thinned(position, points)
    assert len(kept) <= points and (np.diff(kept) > 0).all()
    assert position[kept[0]] == position[0] and kept[-1] == len(position) - 1
