"""Laws of choosing masks: whole words, the asked share of tokens, a function of the key alone."""

from collections import Counter
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.data.masking import LONGEST, Counters, Rule, Unit, choose

UNITS = get_args(Unit)
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=30)
sequences = st.lists(st.tuples(sizes, sizes), min_size=1, max_size=5)


class Field:
    """Sequences `[CLS] words [SEP] words [SEP]`, given the tokens of each word."""

    def __init__(self, shape, key=(0, 0), first_index=0):
        maskable, begins, breaks, lengths = [], [], [], []
        for sides in shape:
            before = len(maskable)
            maskable.append(False)
            begins.append(True)
            breaks.append(True)
            for words in sides:
                for number, size in enumerate(words):
                    maskable += [True] * size
                    # a window may be cut inside a word, so the first token need not begin one
                    begins += [number > 0] + [False] * (size - 1)
                    breaks += [number == 0] + [False] * (size - 1)
                maskable.append(False)
                begins.append(True)
                breaks.append(not words)
            lengths.append(len(maskable) - before)
        self.maskable, self.begins, self.breaks = (
            np.array(part, dtype=np.bool_) for part in (maskable, begins, breaks)
        )
        self.offsets = np.cumsum([0, *lengths])
        count = len(lengths)
        index = first_index + np.arange(count)
        self.key = Counters(*key, index, np.zeros(count, dtype=np.int64), self.offsets)

    def choose(self, unit, rate=0.15, **more):
        rule = Rule(unit, rate, more.pop("longest", LONGEST.get(unit, 1)), **more)
        return choose(rule, self.maskable, self.begins, self.breaks, self.key)

    @property
    def words(self):
        """The tokens that may be hidden, by word."""
        bounds = [*np.flatnonzero(self.begins | self.breaks).tolist(), len(self.begins)]
        parts = [range(a, b) for a, b in pairwise(bounds)]
        kept = [[t for t in part if self.maskable[t]] for part in parts]
        return [word for word in kept if word]


@pytest.mark.parametrize("unit", UNITS)
@given(sequences, st.integers(0, 1000), st.floats(0.02, 0.9))
def test_masks_are_whole_words_of_ordinary_tokens(unit, shape, seed, rate):
    field = Field(shape, (seed, 0))
    rows, units = field.choose(unit, rate)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert field.maskable[rows].all()
    assert (units <= rows).all()
    hidden = set(rows.tolist())
    for word in field.words:
        if unit != "token":
            assert hidden.isdisjoint(word) or hidden.issuperset(word)
    per_sequence = np.bincount(np.searchsorted(field.offsets, rows, "right") - 1)
    assert len(per_sequence) == len(shape) and per_sequence.min() >= 1


@given(sequences, st.integers(0, 1000), st.floats(0.02, 0.9))
def test_single_tokens_fill_their_quota_to_the_token(shape, seed, rate):
    field = Field(shape, (seed, 0))
    rows, units = field.choose("token", rate)
    assert rows.tolist() == units.tolist()
    owner = np.searchsorted(field.offsets, rows, "right") - 1
    for i, sides in enumerate(shape):
        exact = rate * sum(map(sum, sides))
        assert max(1, int(exact)) <= (owner == i).sum() <= max(1, int(exact) + 1)


@pytest.mark.parametrize("unit", UNITS)
@given(sequences, st.integers(0, 5), st.integers(0, 5))
def test_choices_do_not_depend_on_company(unit, shape, seed, epoch):
    together = Field(shape, (seed, epoch))
    rows, units = together.choose(unit)
    for i, one in enumerate(shape):
        alone = Field([one], (seed, epoch), first_index=i).choose(unit)
        start, end = together.offsets[i : i + 2]
        inside = (rows >= start) & (rows < end)
        assert (rows[inside] - start).tolist() == alone.rows.tolist()
        assert (units[inside] - start).tolist() == alone.units.tolist()


@pytest.mark.parametrize(("unit", "rate"), [*((unit, 0.15) for unit in UNITS), ("word", 0.4)])
def test_the_rate_is_the_asked_one_and_long_words_are_hidden_as_often(unit, rate):
    """Over many draws of sequences of every length, short ones too."""
    random = np.random.default_rng(0)
    shape = [
        tuple(random.choice([1, 1, 1, 2, 3, 4], n // 2).tolist() for _ in range(2))
        for n in np.tile([24, 40, 60, 90], 25)
    ]
    every, by_size = rates(Field(shape), Rule(unit, rate, LONGEST.get(unit, 1)))
    assert every == pytest.approx(rate, abs=0.002)
    assert by_size == pytest.approx([rate] * 4, abs=0.01)


@pytest.mark.parametrize(("length", "spread"), [(32, 0.025), (128, 0.008)])
def test_short_windows_hide_short_words_oftener_and_the_asked_share_of_tokens(length, spread):
    random = np.random.default_rng(0)
    shape = []
    for _ in range(200):
        words = random.choice([1, 1, 1, 2, 3, 4], length).tolist()
        shape.append((words[: int(np.searchsorted(np.cumsum(words), length - 2))], []))
    every, by_size = rates(Field(shape), Rule("word", 0.15))
    assert every == pytest.approx(0.15, abs=0.002)
    assert by_size == pytest.approx([0.15] * 4, abs=spread)
    assert by_size[0] > by_size[3]


def rates(field, rule, epochs=60):
    """Share of all tokens that is hidden, and of those of words of 1, 2, 3 and 4 tokens."""
    bounds = np.flatnonzero(field.begins | field.breaks)
    sizes = np.add.reduceat(field.maskable.astype(int), bounds)
    hidden = np.zeros(len(sizes), dtype=int)
    for epoch in range(epochs):
        key = field.key._replace(epoch=epoch)
        rows, _ = choose(rule, field.maskable, field.begins, field.breaks, key)
        hidden += np.add.reduceat(np.bincount(rows, minlength=len(field.begins)), bounds)
    by_size = [hidden[sizes == n].mean() / n / epochs for n in (1, 2, 3, 4)]
    return hidden.sum() / sizes.sum() / epochs, by_size


@pytest.mark.parametrize("unit", ["span", "ngram"])
@given(sequences, st.integers(0, 100), st.integers(1, 12))
def test_spans_are_neighbouring_words_of_one_segment(unit, shape, seed, longest):
    field = Field(shape, (seed, 0))
    rows, units = field.choose(unit, 0.5, longest=longest)
    place = {token: number for number, word in enumerate(field.words) for token in word}
    segment = np.cumsum(field.breaks)
    for lead in set(units.tolist()):
        inside = rows[units == lead]
        words = sorted({place[row] for row in inside.tolist()})
        assert len(words) <= longest
        assert words == list(range(words[0], words[0] + len(words)))
        assert len(set(segment[inside].tolist())) == 1
        assert words[0] == place[lead]


@pytest.mark.parametrize(
    ("unit", "chances"),
    [
        ("ngram", {1: 6 / 11, 2: 3 / 11, 3: 2 / 11}),
        ("span", {n: 0.2 * 0.8 ** (n - 1) / (1 - 0.8**10) for n in range(1, 11)}),
    ],
)
def test_lengths_are_those_of_the_papers(unit, chances):
    found = Counter()
    for seed in range(60):
        field = Field([([1] * 2000, [1])], (seed, 0))
        _, units = field.choose(unit, 0.15)
        found.update(Counter(units.tolist()).values())
    total = sum(found.values())
    assert set(found) == set(chances)
    for length, chance in chances.items():
        assert found[length] / total == pytest.approx(chance, abs=0.02)


def test_a_huge_word_does_not_swallow_its_sequence():
    shape = [([1, 2, 40, 1, 2, 1], [3, 1, 1])]
    hidden = Counter()
    for seed in range(300):
        field = Field(shape, (seed, 0))
        rows, _ = field.choose("word", most_pieces=16)
        hidden.update(rows.tolist())
        assert 1 <= len(rows) <= 12
    huge = next(word for word in field.words if len(word) == 40)
    assert hidden.keys() == {t for word in field.words for t in word} - set(huge)


def test_beside_a_huge_word_short_ones_are_hidden_at_most_twice_as_often():
    hidden = Counter()
    for seed in range(400):
        rows, _ = Field([([100, *[1] * 20], [])], (seed, 0)).choose("word", most_pieces=16)
        hidden.update(rows.tolist())
    share = sum(hidden.values()) / 400 / 20
    assert share == pytest.approx(2 * 0.15, abs=0.03)


def test_where_there_is_nothing_but_a_huge_word_its_pieces_stand_alone():
    hidden = Counter()
    for seed in range(300):
        field = Field([([40], []), ([1, 2], [])], (seed, 0))
        rows, _ = field.choose("word", most_pieces=16)
        assert 6 <= (rows < 42).sum() <= 7 + 1
        hidden.update(rows[rows < 42].tolist())
    assert len(hidden) == 40


def test_sequences_without_ordinary_tokens_are_left():
    field = Field([([], []), ([2, 1], []), ([], [])])
    for unit in UNITS:
        rows, _ = field.choose(unit)
        assert len(rows) and ((rows >= 3) & (rows < 7)).all()
    nothing = Field([([], [])])
    assert len(nothing.choose("span").rows) == 0


def test_unknown_tokens_inside_a_word_are_not_touched_and_part_no_word():
    field = Field([([4, 3, 2], [1, 3])])
    field.maskable[3] = field.maskable[6] = False
    for seed in range(50):
        key = field.key._replace(seed=seed)
        rule = Rule("word", 0.4)
        rows, _ = choose(rule, field.maskable, field.begins, field.breaks, key)
        assert not {3, 6} & set(rows.tolist())
        for word in field.words:
            assert set(rows.tolist()).isdisjoint(word) or set(rows.tolist()).issuperset(word)
