"""Laws of the masking report: it counts what is there, and finds what must not be."""

import numpy as np
import pytest

from clozeworks.metrics.masking import Sample, Scripts, measure_masking

MASK, CLS, SEP = 1, 2, 3
SPECIAL = np.array([0, MASK, CLS, SEP])
SCRIPTS = Scripts(("latin", "cjk", "other"), np.array([2] * 4 + [0] * 10 + [1] * 10, np.uint8))
BEFORE = np.array([CLS, 4, 5, 6, SEP, CLS, 14, 15, 16, 17, SEP])
BEGINS = np.array([1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1], dtype=bool)
OFFSETS = np.array([0, 5, 11])


def measured(rows, changes, begins=BEGINS):
    after = BEFORE.copy()
    for row, value in changes.items():
        after[row] = value
    sample = Sample(BEFORE, after, np.array(rows), OFFSETS, begins)
    return measure_masking([sample, sample], 0.5, MASK, SPECIAL, SCRIPTS)


def test_it_counts_what_is_there():
    report = measured([1, 6, 7, 9], {1: MASK, 6: MASK, 9: 20})
    assert report.rate == pytest.approx(4 / 7)
    assert (report.masked, report.random, report.kept) == (0.5, 0.25, 0.25)
    assert (report.sequences, report.tokens) == (4, 14)
    assert (report.fewest, report.most) == (1, 3)
    assert report.scripts["latin"].model_dump() == {"tokens": 6, "rate": pytest.approx(1 / 3)}
    assert report.scripts["cjk"].rate == pytest.approx(3 / 4)
    assert list(report.scripts) == ["latin", "cjk"]
    assert (report.specials_touched, report.words_split) == (0, 0)
    assert "asked 50.00%" in report.lines()[0] and "0 words split" in report.lines()[1]


@pytest.mark.parametrize(
    ("rows", "changes", "touched"),
    [
        ([1], {4: MASK}, 1),  # a special token masked though nobody chose it
        ([1, 4], {1: MASK}, 1),  # one to be predicted
        ([1], {1: SEP}, 1),  # one drawn
        ([0, 1], {0: MASK, 10: 7}, 2),
    ],
)
def test_special_tokens_that_are_touched_are_found(rows, changes, touched):
    assert measured(rows, changes).specials_touched == 2 * touched


def test_split_words_are_found():
    assert measured([2], {2: MASK}).words_split == 2
    assert measured([7], {7: MASK}).words_split == 2
    assert measured([2, 3], {2: MASK}).words_split == 0
    assert measured([2], {2: MASK}, begins=None).words_split is None
    cut = BEGINS.copy()
    cut[1] = False  # a window that begins inside a word
    assert measured([1], {1: MASK}, begins=cut).words_split == 0


def test_nothing_is_a_report_too():
    report = measure_masking([], 0.15, MASK, SPECIAL, SCRIPTS)
    assert (report.rate, report.tokens, report.sequences, report.words_split) == (0, 0, 0, None)
    assert len(report.lines()) == 2
