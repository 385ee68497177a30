"""Laws of the held-out dev set: a function of the texts and their classes, of nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.data.split import hold_out

ROWS = st.lists(
    st.tuples(
        st.sampled_from([f"text {i}" for i in range(12)] + ["你好", "再见"]), st.sampled_from("ABC")
    ),
    min_size=1,
    max_size=40,
)


def divide(rows, fraction=0.3):
    return hold_out(rows, fraction, key=lambda r: r[0], label=lambda r: r[1])


def divided_or_none(rows):
    try:
        return divide(rows)
    except UserError:
        return None


@given(ROWS, st.randoms())
def test_rows_are_all_kept_and_their_order_does_not_matter(rows, rng):
    shuffled = random.Random(rng.random()).sample(rows, len(rows))
    one, other = divided_or_none(rows), divided_or_none(shuffled)
    if one is None or other is None:
        assert one == other
        return
    assert sorted(one[0] + one[1]) == sorted(rows)
    assert [sorted(side) for side in one] == [sorted(side) for side in other]


@given(ROWS)
def test_a_text_falls_on_one_side_and_every_class_keeps_one(rows):
    texts = {c: {t for t, label in rows if label == c} for c in "ABC"}
    divided = divided_or_none(rows)
    if divided is None:
        alone = {t for own in texts.values() if len(own) == 1 for t in own}
        assert {t for t, _ in rows} <= alone
        return
    train, dev = divided
    assert dev
    assert not {t for t, _ in train} & {t for t, _ in dev}
    for label, own in texts.items():
        if len(own) > 1:
            assert any(c == label for _, c in train)


def test_the_fraction_holds_in_each_class_and_over_many_small_ones():
    large = [(f"{c} {i}", c) for c in "ab" for i in range(1000)]
    _, dev = divide(large, 0.1)
    for c in "ab":
        assert abs(sum(label == c for _, label in dev) - 100) <= 1
    small = [(f"{c} {i}", str(c)) for c in range(400) for i in range(5)]
    _, dev = divide(small, 0.1)
    assert 160 <= len(dev) <= 240


def test_the_division_is_the_same_in_every_process():
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(20)]
    _, dev = divide(rows, 0.2)
    assert [text for text, _ in dev] == ["text 2", "text 3", "text 17", "text 18"]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="give a dev file"):
        divide([("same", "A"), ("same", "A")])
    with pytest.raises(UserError, match="between 0 and 1"):
        divide([("a", "A"), ("b", "A")], 1.5)
