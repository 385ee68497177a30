"""Laws of slicing rows by length and language."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.evaluation.slices import language, slices, words


@pytest.mark.parametrize(
    ("text", "name", "length"),
    [
        ("where is my order?", "english", 4),
        ("我的订单到哪里了？", "chinese", 8),
        ("查一下订单 A1234 到哪了", "chinese", 9),
        ("我的 order 还没到 please help", "mixed", 8),
        ("Où est mon café ?", "english", 4),
        ("１２３ ！", "other", 1),
        ("\U00020000𠀁", "chinese", 2),
        ("", "other", 0),
    ],
)
def test_language_and_length_are_what_a_person_says(text, name, length):
    assert (language(text), words(text)) == (name, length)


texts = st.lists(st.text("ab 退款。1", max_size=30), min_size=1, max_size=40)


@given(texts, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_length_and_one_language(rows, seed):
    random = np.random.default_rng(seed)
    right, answered = random.random((2, len(rows))) < 0.6
    found = slices(rows, right, answered)
    for kind in ("length", "language"):
        part = [s for s in found if s.kind == kind]
        assert sum(s.rows for s in part) == len(rows)
        assert sum(s.right for s in part) == right.sum()
        assert sum(s.answered for s in part) == answered.sum()
        assert all(s.rows for s in part)
    lengths = [s for s in found if s.kind == "length"]
    assert len(lengths) <= 4
    ends = [end for s in lengths for end in (s.shortest, s.longest)]
    assert ends == sorted(ends)


def test_a_megabyte_word_is_measured():
    assert words("x" * 1_000_000) == 1
