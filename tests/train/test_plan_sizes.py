"""Laws of a plan: its sizes are those that were fast, its steps as many as the minutes hold."""

from hypothesis import given
from hypothesis import strategies as st

from clozeworks.train.plan import FEWEST, MOST, NEAR, OVERHEAD, SIZES, Trial, chosen

POSITIVE = st.floats(0.001, 10.0)


@st.composite
def measured(draw):
    count = draw(st.integers(1, len(SIZES)))
    rates = draw(st.lists(st.floats(100, 100_000), min_size=count, max_size=count))
    rates.sort()  # larger passes are no slower
    update = draw(POSITIVE)
    return [Trial(s, r, update, 100.0) for s, r in zip(SIZES, rates, strict=False)]


@given(measured(), st.floats(0.1, 10_000))
def test_a_plan_keeps_to_its_time_and_to_what_was_fast(tried, minutes):
    choice = chosen(tried, minutes)
    best = max(t.tokens_per_second for t in tried)
    fast = min(t.micro_tokens for t in tried if t.tokens_per_second >= NEAR * best)
    assert choice.micro_tokens == min(choice.batch, fast)
    assert choice.tokens == choice.steps * choice.batch
    pace = {t.micro_tokens: t.tokens_per_second for t in tried}[choice.micro_tokens]
    seconds = choice.batch / pace + tried[0].update_seconds
    assert choice.steps == 1 or choice.steps * seconds <= 60 * minutes * (1 + 1e-9)
    assert (choice.steps + 1) * seconds >= 60 * minutes * (1 - 1e-9)
    if choice.batch > SIZES[0]:
        assert choice.steps >= FEWEST


@given(measured(), st.floats(0.1, 10_000))
def test_a_step_is_as_large_as_it_must_be_and_no_larger(tried, minutes):
    choice = chosen(tried, minutes)
    moving = tried[0].update_seconds * choice.steps / (60 * minutes)
    enough = moving <= OVERHEAD and choice.steps <= MOST
    longer = chosen(tried, 2.2 * minutes)
    assert enough or choice.steps <= 2 * FEWEST
    assert longer.batch >= choice.batch
