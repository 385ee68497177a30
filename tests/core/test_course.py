"""Laws of numbers that change over a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.course import Course
from clozeworks.core.errors import UserError

numbers = st.floats(0, 100, allow_nan=False)


@given(numbers, numbers, st.floats(0, 1))
def test_a_course_is_a_straight_line_between_its_ends(first, last, progress):
    course = Course.of(f"{first:f} -> {last:f}")
    assert course == (float(f"{first:f}"), float(f"{last:f}"))
    assert course.at(0) == course.first
    assert course.at(1) == pytest.approx(course.last)
    low, high = sorted(course)
    assert low - 1e-9 <= course.at(progress) <= high + 1e-9
    assert course.at(0.5) == pytest.approx(sum(course) / 2)


@given(numbers, st.floats(0, 1))
def test_a_number_stays(value, progress):
    for written in (value, str(value)):
        assert Course.of(written).at(progress) == value


@pytest.mark.parametrize("value", ["", "much", "0.3 ->", "0.3 -> 0.2 -> 0.1", "1.2.3 -> 1", "->"])
def test_what_is_neither_is_refused(value):
    with pytest.raises(UserError, match=r"as in '0\.3 -> 0\.15'"):
        Course.of(value)
