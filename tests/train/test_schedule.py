"""Laws of duration and learning rate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.data.order import ExampleStream
from clozeworks.train.loop import TrainSettings
from clozeworks.train.schedule import UNITS, Duration, count_steps, linear_rate
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
