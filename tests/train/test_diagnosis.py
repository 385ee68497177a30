"""Laws of the diagnosis: what is amiss is said, what is well is not; made-up histories."""

import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.train.diagnosis import MOST, SIZE, Facts, History, diagnose

FACTS = Facts(unigram=7.2, max_length=128, lr=1e-3, warmup=0.1, total=2000, corpus=10_000_000)
CHANCE = random.Random(0)


def falling(step, noise=0.1):
    """A healthy loss: steep, then flat."""
    return 3.2 + 5 * math.exp(-step / 300) + CHANCE.gauss(0, noise)


def made(loss=falling, norm=lambda step: 1.0, held=None, steps=2000, tokens=2048, every=200):
    """A history of so many steps, judged now and then; `held` gives the numbers after a step."""
    history = History()
    for step in range(1, steps + 1):
        history.step(step, {"mlm": loss(step)}, norm(step), tokens)
        if step % every == 0:
            numbers = held(step) if held else {"mlm": falling(step, 0)}
            history.judge(step, numbers)
    return history


def stuck(step):
    return {"mlm": 6.9 - step / 20_000}


def test_a_healthy_run_has_nothing_amiss():
    assert diagnose(made(), FACTS) == {}
    assert diagnose(History(), FACTS) == {}
    assert diagnose(made(steps=1, every=1), FACTS) == {}


def test_a_run_at_the_loss_of_guessing_says_so_and_what_to_change():
    found = diagnose(made(lambda s: 6.9, held=stuck), FACTS)
    assert list(found) == ["plateau"]
    assert "4.1 million tokens" in found["plateau"]
    assert "6.80 nats, about what guessing each by its frequency gives (7.20)" in found["plateau"]
    first = found["plateau"].split("likeliest first: ")[1]
    assert first.startswith("begin with short sequences (--max-length 32 instead of 128)")


@pytest.mark.parametrize(
    ("changes", "tokens", "words"),
    [
        ({"max_length": 32, "total": 100_000}, 2048, "look for lines that come again and again"),
        ({"max_length": 32}, 2048, "take more steps: 4.1 million tokens in all are few"),
        ({"max_length": 32, "total": 10_000}, 600, r"take larger steps \(--train.batch 2048"),
        ({"max_length": 32, "total": 10_000, "lr": 5e-3}, 2048, "lower --train.lr"),
        ({"max_length": 32, "total": 10_000, "lr": 5e-5}, 2048, "raise --train.lr"),
        ({"max_length": 32, "total": 10_000, "corpus": 99_000}, 2048, "give more text"),
    ],
)
def test_the_advice_fits_the_run(changes, tokens, words):
    history = made(lambda s: 6.9, held=stuck, tokens=tokens)
    found = diagnose(history, FACTS._replace(**changes))["plateau"]
    assert re.search(f"likeliest first: {words}", found), found


def test_a_run_that_has_only_begun_or_still_falls_is_left_alone():
    begun = made(lambda s: 6.9, held=stuck, steps=400)
    assert begun.tokens < 1_000_000 and diagnose(begun, FACTS) == {}
    leaving = made(lambda s: 7 - s / 500, held=lambda s: {"mlm": 7.6 - s / 800}, steps=600)
    assert min(j.numbers["mlm"] for j in leaving.judged) > FACTS.unigram - 0.5
    assert diagnose(leaving, FACTS) == {}


def test_next_sentences_alone_are_seen_through():
    """The sum falls, as in google-research/bert 746, and masked tokens do not."""
    alone = made(
        lambda s: 7.6 - 0.4 * s / 2000, held=lambda s: {**stuck(s), "nsp": 0.69 - s / 5000}
    )
    found = diagnose(alone, FACTS)
    assert list(found) == ["plateau", "nsp_alone"]
    assert "0.29 nats; guessing gives 0.69" in found["nsp_alone"]
    both = made(held=lambda s: {"mlm": falling(s, 0), "nsp": 0.3})
    assert diagnose(both, FACTS) == {}


def test_pairs_that_stay_a_guess_are_seen():
    for name in ("sop", "nsp"):
        guess = made(held=lambda s, name=name: {"mlm": falling(s, 0), name: 0.692}, steps=3000)
        found = diagnose(guess, FACTS)
        assert list(found) == ["pairs"] and f"{name}: 0.69 nats" in found["pairs"]
        learned = made(
            held=lambda s, name=name: {"mlm": falling(s, 0), name: 0.692 - s / 50_000}, steps=3000
        )
        assert diagnose(learned, FACTS) == {}


def test_a_discriminator_that_answers_the_same_for_all_is_seen():
    """Its loss is then the entropy of its errors; one that is sure where it may be has less."""

    def judged(loss):
        return lambda s: {"mlm": falling(s, 0), "rtd": loss, "rtd_accuracy": 0.89}

    alike = -0.11 * math.log(0.11) - 0.89 * math.log(0.89)
    found = diagnose(made(held=judged(alike)), FACTS)
    assert list(found) == ["replaced"]
    said = "0.347 nats is what the same answer for every token gives, right 89%"
    assert said in found["replaced"]
    assert diagnose(made(held=judged(0.9 * alike)), FACTS) == {}


def with_rtd(rtd, mlm=falling, steps=2000):
    """A history of both terms, weighed as they are."""
    history = History({"mlm": 1.0, "rtd": 50.0})
    for step in range(1, steps + 1):
        history.step(step, {"mlm": mlm(step), "rtd": rtd(step)}, 1.0, 2048)
        if step % 200 == 0:
            history.judge(step, {"mlm": 3.3, "rtd": 0.2, "rtd_accuracy": 0.9})
    return history


def test_a_discriminator_is_heard_beside_its_generator():
    """In the sum that is minimised its few nats weigh fifty times as much."""

    def learning(step):
        return 0.2 + 0.3 * math.exp(-step / 300) + CHANCE.gauss(0, 0.005)

    assert diagnose(with_rtd(learning), FACTS) == {}
    rising = with_rtd(lambda s: learning(s) if s < 1000 else 0.21 + (s - 1000) / 10_000)
    assert list(diagnose(rising, FACTS)) == ["rising"]
    jump = with_rtd(lambda s: learning(s) + 0.4 * (s == 1203))
    assert list(diagnose(jump, FACTS)) == ["spikes"]
    generator = with_rtd(learning, lambda s: falling(s) + (s > 1000) * (s - 1000) / 1500)
    assert diagnose(generator, FACTS) == {}, "a thousandth of what is minimised"


def test_a_loss_that_rises_is_seen():
    rising = made(lambda s: falling(s) if s < 1000 else falling(1000) + (s - 1000) / 400)
    found = diagnose(rising, FACTS)
    assert list(found) == ["rising"]
    assert "lower --train.lr (0.001)" in found["rising"]


def test_spikes_are_seen_and_named_by_their_step():
    found = diagnose(made(lambda s: falling(s) + 4 * (s in (1203, 1700))), FACTS)
    assert list(found) == ["spikes"]
    assert "near step 1,20" in found["spikes"] and "and 1 times more" in found["spikes"]


def test_a_short_last_step_of_an_epoch_is_no_spike():
    history = History()
    for step in range(1, 1001):
        short = step % 100 == 0
        history.step(step, {"mlm": 12.0 if short else falling(step)}, 1.0, 20 if short else 2048)
    assert diagnose(history, FACTS) == {}


def test_a_gradient_that_explodes_is_seen():
    growing = made(norm=lambda s: 1.0 if s < 1900 else 50.0)
    assert "is 50 now, against a median of 1" in diagnose(growing, FACTS)["norm"]
    once = made(norm=lambda s: 500.0 if s == 1500 else 1.0)
    assert "was 500 near step 1,5" in diagnose(once, FACTS)["norm"]
    warming = made(norm=lambda s: 500.0 if s < 100 else 1.0)
    assert diagnose(warming, FACTS) == {}


def test_learning_by_heart_is_seen():
    by_heart = made(held=lambda s: {"mlm": 4.0 + abs(s - 800) / 1000})
    found = diagnose(by_heart, FACTS._replace(corpus=100_000))
    assert list(found) == ["overfit"]
    assert "mlm: 4.00 after step 800, 5.20 now" in found["overfit"]
    assert "read 41.0 times" in found["overfit"]
    assert "overfit" not in diagnose(by_heart, FACTS), "that was read once at most"
    read_twice = FACTS._replace(corpus=1_000_000)
    noisy = made(held=lambda s: {"mlm": 4.0 + 0.02 * (s % 400 == 0)})
    assert diagnose(noisy, read_twice) == {}
    both_rise = made(lambda s: 4 + s / 10_000, held=lambda s: {"mlm": 4 + s / 10_000})
    assert diagnose(both_rise, read_twice) == {}


@settings(max_examples=20)
@given(st.integers(1, 5000), st.integers(0, 3))
def test_a_history_stays_small_and_keeps_its_sums(steps, seed):
    chance = random.Random(seed)
    history, losses, norms = History(), [], []
    for step in range(1, steps + 1):
        losses.append(chance.random())
        norms.append(chance.random())
        history.step(step, {"mlm": losses[-1] / 2, "nsp": losses[-1] / 2}, norms[-1], 100)
    found = history.stretches
    assert len(found) <= MOST and history.tokens == 100 * steps
    assert sum(s.steps for s in found) == steps and found[-1].last == steps
    assert math.isclose(sum(s.loss * s.tokens for s in found), 100 * sum(losses))
    assert math.isclose(sum(s.norm * s.steps for s in found), sum(norms))
    assert max(s.highest_norm for s in found) == max(norms)
    assert max(s.highest for s in found) == pytest.approx(max(losses))


def test_the_diagnosis_is_a_function_of_the_history():
    history = made(lambda s: 6.9, held=stuck)
    assert diagnose(history, FACTS) == diagnose(history, FACTS)


def test_weights_that_have_grown_are_told_with_a_decay_that_holds_them():
    def held(step):
        return {"mlm": falling(step, 0), "weights_rms": 0.26 * step / 2000}

    found = diagnose(made(held=held), FACTS._replace(decay=0.01))
    assert list(found) == ["large"]
    assert (
        "grown to 0.26" in found["large"] and "--train.decay 0.3 instead of 0.01" in found["large"]
    )
    assert "--train.decay 0.9" in diagnose(made(held=held), FACTS._replace(decay=0.3))["large"]
    small = made(held=lambda step: {**held(step), "weights_rms": 0.1})
    assert diagnose(small, FACTS) == {}


def test_the_first_fall_is_not_taken_for_noise():
    def loss(step):
        rise = max(0, step - 15) / 30
        return 7 + 5 * math.exp(-step / 2) + rise + CHANCE.gauss(0, 0.03)

    assert "rising" in diagnose(made(loss, steps=30, every=10), FACTS)


def test_the_size_of_weights_is_not_taken_for_a_loss():
    read_twice = FACTS._replace(corpus=1_000_000)
    grown = made(held=lambda s: {SIZE: s / 20_000})
    assert "overfit" not in diagnose(grown, read_twice)


def test_steps_of_few_tokens_are_not_taken_for_a_rise():
    """A run that has just begun, at the loss of guessing, whose steps differ by chance."""
    for seed in range(20):
        chance = random.Random(seed)
        noisy = made(lambda step, draw=chance.gauss: 7.1 + draw(0, 0.3), steps=60, tokens=1000)
        assert "rising" not in diagnose(noisy, FACTS)
