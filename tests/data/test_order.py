"""Laws of order: every item once an epoch, within budget, another order the next epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.data.order import ExampleStream, ShardStream, cut
from tiny import VOCABULARY, make_groups

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=80)


class Corpus:
    """A corpus in memory: token i of the whole has an id that tells its place."""

    def __init__(self, documents):
        lengths = [n for document in documents for n in document]
        self.sentences = np.cumsum([0, *lengths])
        self.documents = np.cumsum([0, *map(len, documents)])

    def take(self, start, stop):
        return np.arange(start, stop, dtype=np.int64) + 1000


def shard_stream(documents, *, pairs, tokens=100, seed=0, max_length=30):
    return ShardStream(
        Corpus(documents),
        np.arange(len(documents)),
        VOCABULARY,
        max_length,
        pairs=pairs,
        tokens=tokens,
        seed=seed,
    )


@given(sizes, st.integers(1, 200), st.sampled_from(["tokens", "examples"]))
def test_steps_hold_everything_once_within_budget(lengths, size, unit):
    order = np.random.default_rng(0).permutation(len(lengths))
    steps = cut(order, np.array(lengths), size, unit)
    assert np.concatenate(steps).tolist() == order.tolist()
    for i, step in enumerate(steps):
        spent = len(step) if unit == "examples" else sum(lengths[j] for j in step)
        assert spent <= size or len(step) == 1
        if i + 1 < len(steps):  # another item would not have fitted
            more = 1 if unit == "examples" else lengths[steps[i + 1][0]]
            assert spent + more > size


@pytest.mark.parametrize("unit", ["tokens", "examples"])
def test_examples_come_once_an_epoch_in_another_order(unit):
    groups = make_groups(range(3, 60))
    stream = ExampleStream(groups, 40, unit, seed=1)
    epochs = [np.concatenate(stream.steps(epoch)).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(len(groups))) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 3
    again = ExampleStream(groups, 40, unit, seed=1)
    assert np.concatenate(again.steps(1)).tolist() == epochs[1]
    other = ExampleStream(groups, 40, unit, seed=2)
    assert np.concatenate(other.steps(0)).tolist() != epochs[0]
    chosen = stream.groups(0, stream.steps(0)[0])
    assert [g.index for g in chosen] == stream.steps(0)[0].tolist()
    assert stream.lengths(0).tolist() == list(range(3, 60))


@pytest.mark.parametrize("pairs", ["none", "next", "order"])
def test_shards_come_once_an_epoch_as_planned(pairs):
    documents = [[7, 3, 9, 12, 4, 8]] * 6 + [[5]] * 3
    stream = shard_stream(documents, pairs=pairs)
    for epoch in range(3):
        steps, lengths = stream.steps(epoch), stream.lengths(epoch)
        assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
        for step in steps:
            assert lengths[step].sum() <= 100
        for step in steps:
            for group, length in zip(stream.groups(epoch, step), lengths[step], strict=True):
                check_group(group, length, stream.plan(epoch))


def check_group(group, length, plan):
    (sequence,) = group.sequences
    ids = sequence.ids.tolist()
    assert len(ids) == length == len(sequence.segments)
    start, end = plan.first[group.index]
    first = list(range(start + 1000, end + 1000))
    assert ids[: len(first) + 2] == [VOCABULARY.cls, *first, VOCABULARY.sep]
    assert sequence.segments[: len(first) + 2].sum() == 0
    rest = ids[len(first) + 2 :]
    assert group.target == plan.labels[group.index]
    start, end = plan.second[group.index]
    if end > start:
        assert rest == [*range(start + 1000, end + 1000), VOCABULARY.sep]
        assert (sequence.segments[len(first) + 2 :] == 1).all()
    else:
        assert rest == []


def test_shards_come_in_another_order_each_epoch():
    stream = shard_stream([[7, 3, 9, 12]] * 20, pairs="none")
    orders = {tuple(np.concatenate(stream.steps(epoch)).tolist()) for epoch in range(3)}
    assert len(orders) == 3
    other = shard_stream([[7, 3, 9, 12]] * 20, pairs="none", seed=1)
    assert tuple(np.concatenate(other.steps(0)).tolist()) not in orders


def test_pairs_differ_between_epochs_and_seeds_and_are_functions_of_them():
    documents = [[4] * 20] * 5
    stream = shard_stream(documents, pairs="next")
    first, second = stream.plan(0), stream.plan(1)
    assert first.second.tolist() != second.second.tolist()
    assert shard_stream(documents, pairs="next").plan(1).second.tolist() == second.second.tolist()
    assert stream.plan(0).second.tolist() == first.second.tolist()
    other = shard_stream(documents, pairs="next", seed=1)
    assert other.plan(0).second.tolist() != first.second.tolist()


def test_too_little_text_is_an_error_not_an_endless_loop():
    with pytest.raises(UserError, match="no document"):
        shard_stream([], pairs="none")
    with pytest.raises(UserError, match="no pair of sentences"):
        shard_stream([[5]], pairs="next").steps(0)
    with pytest.raises(UserError, match="no pair of sentences"):
        shard_stream([[5]] * 9, pairs="order").steps(0)
