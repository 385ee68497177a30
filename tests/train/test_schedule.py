"""Laws of duration and learning rate."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.data.order import ExampleStream
from clozeworks.train.loop import TrainSettings, schedule_of
from clozeworks.train.schedule import UNITS, Duration, Schedule, count_steps, linear_rate
from tiny import make_groups


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("3 epochs", 3, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("0.5 Epochs", 0.5, "epochs"),
        ("500steps", 500, "steps"),
        ("2e7 tokens", 2e7, "tokens"),
        ("  30   minutes ", 30, "minutes"),
    ],
)
def test_durations_are_read(text, amount, unit):
    assert Duration.parse(text) == (amount, unit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an amount and a unit, as in '3 epochs'"),
        ("epochs", "not an amount and a unit"),
        ("3", "not an amount and a unit"),
        ("-3 epochs", "not an amount and a unit"),
        ("three epochs", "not an amount and a unit"),
        ("3 epoch now", "not an amount and a unit"),
        ("0 steps", "more than nothing"),
        ("1e999 steps", "and end"),
        ("1.2.3 steps", "'1.2.3' is not a number"),
        ("3 minuets", "did you mean 'minutes'"),
        ("3 hours", "choices: steps, epochs, tokens, minutes"),
    ],
)
def test_durations_that_mean_nothing_are_explained(text, message):
    with pytest.raises(UserError, match=message) as refusal:
        Duration.parse(text)
    with pytest.raises(UserError, match=message):
        validated(TrainSettings, {"duration": text}, "recipe.toml")
    assert "\n" not in str(refusal.value)


def test_durations_become_steps():
    stream = ExampleStream(make_groups([10] * 25), 4, "examples", seed=0)  # 7 steps an epoch

    def steps(text, seconds=None):
        return count_steps(Duration.parse(text), stream, seconds)

    assert steps("12 steps") == 12
    assert steps("0.2 steps") == 1
    assert (steps("1 epoch"), steps("3 epochs")) == (7, 21)
    assert steps("1.5 epochs") == 7 + round(3.5)
    assert steps("0.01 epochs") == 1
    assert steps("250 tokens") == 7
    assert steps("251 tokens") == 8
    assert steps("1 token") == 1
    assert steps("2 minutes", seconds=0.5) == 240
    assert steps("0.001 minutes", seconds=9.0) == 1
    assert {Duration.parse(f"1 {unit}").unit for unit in UNITS} == set(UNITS)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(1e-6, 1.0))
def test_the_rate_rises_to_its_peak_then_falls_in_a_line(total, share, peak):
    warmup = round(share * total)
    rates = np.array([linear_rate(peak, step, total, warmup) for step in range(total)])
    assert (rates > 0).all()
    assert rates.max() == pytest.approx(peak)
    assert (rates <= peak * (1 + 1e-9)).all()
    rise, fall = np.diff(rates[:warmup]), np.diff(rates[warmup:])
    assert np.allclose(rise, peak / max(1, warmup))
    assert np.allclose(fall, -peak / max(1, total - warmup))
    if warmup < total:
        assert linear_rate(peak, total, total, warmup) == 0
        assert rates[warmup] == pytest.approx(peak)
    assert math.isclose(rates[0], peak / warmup if warmup else peak)


SHAPES = ["linear", "cosine", "constant", "wsd"]


@pytest.mark.parametrize("shape", SHAPES)
@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(1e-6, 1.0))
def test_every_schedule_learns_from_the_first_step_to_the_last(shape, total, share, end, peak):
    warmup, cooldown = round(share * total), max(1, round(end * total))
    schedule = Schedule(peak, total, warmup, shape, cooldown)
    rates = [schedule.rate(step) for step in range(total)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(peak)
    assert rates[0] == pytest.approx(peak / warmup if warmup else peak)
    after = rates[max(0, warmup - 1) :]  # rises until then, falls or stays from then on
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(after))
    backwards = [schedule.rate(step) for step in reversed(range(total))]
    assert backwards == rates[::-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_schedules_are_continuous_where_their_parts_meet(shape):
    schedule = Schedule(2.0, 1000, 100, shape, 300)
    assert schedule.rate(99) == schedule.rate(100) == 2.0
    ends = schedule.rate(1000)  # where the step after the last would be
    assert ends == pytest.approx(2.0 if shape == "constant" else 0.0, abs=1e-12)
    assert schedule.rate(999) - ends < 0.01
    if shape == "wsd":
        assert [schedule.rate(step) for step in (101, 500, 699, 700)] == [2.0] * 4
        assert schedule.rate(850) == pytest.approx(2 * (1 - math.sqrt(0.5)))
    if shape == "cosine":
        assert schedule.rate(550) == pytest.approx(1.0)
    if shape == "linear":
        assert all(schedule.rate(s) == linear_rate(2.0, s, 1000, 100) for s in range(1000))


def test_a_run_has_the_schedule_of_its_settings():
    settings = TrainSettings(lr=1e-3, schedule="wsd", warmup=0.1, cooldown=0.25)
    assert schedule_of(settings, 40) == Schedule(1e-3, 40, 4, "wsd", 10)
    with pytest.raises(UserError, match=r"warmup 0.9 and cooldown 0.2 together are more than 1"):
        validated(TrainSettings, {"schedule": "wsd", "warmup": 0.9, "cooldown": 0.2}, "x")
    TrainSettings(schedule="linear", warmup=0.9, cooldown=0.2)
