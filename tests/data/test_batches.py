"""Laws of packing: sequences end to end, every bound in its place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.records import Sequence
from clozeworks.data.batches import Group, bounds, pack


def sequence(length, seed=0):
    ids = np.random.default_rng(seed).integers(0, 99, length)
    return Sequence(ids, (ids % 2).astype(np.int64))


groups_of = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=9)


@given(groups_of)
def test_a_batch_can_be_taken_apart_again(shape):
    groups = [
        Group(10 * i, [sequence(n, seed=i + j) for j, n in enumerate(lengths)])
        for i, lengths in enumerate(shape)
    ]
    batch = pack(groups)
    flat = [s for group in groups for s in group.sequences]
    assert batch.num_tokens == sum(map(len, flat))
    assert batch.groups.tolist() == np.cumsum([0, *map(len, shape)]).tolist()
    assert batch.index.tolist() == [group.index for group in groups]
    assert batch.firsts.tolist() == batch.offsets[:-1].tolist()
    sizes = batch.offsets.diff().tolist()
    rows = zip(
        batch.input_ids.split(sizes),
        batch.segments.split(sizes),
        batch.positions.split(sizes),
        strict=True,
    )
    for s, (ids, segments, positions) in zip(flat, rows, strict=True):
        assert ids.tolist() == s.ids.tolist()
        assert segments.tolist() == s.segments.tolist()
        assert positions.tolist() == list(range(len(s)))
    for name in ("input_ids", "positions", "segments", "offsets", "groups", "index"):
        assert getattr(batch, name).dtype == torch.int64


@given(groups_of)
def test_words_travel_where_every_sequence_tells_them(shape):
    def group(i, lengths):
        told = [replace(sequence(n, i), words=np.arange(n) % 3 == 0) for n in lengths]
        return Group(i, told)

    groups = [group(i, lengths) for i, lengths in enumerate(shape)]
    batch = pack(groups)
    flat = [s.words.tolist() for g in groups for s in g.sequences]
    assert batch.words.tolist() == [begins for words in flat for begins in words]
    assert batch.with_targets(label=torch.tensor([1])).words is batch.words
    assert pack([*groups, Group(99, [sequence(4)])]).words is None


def test_targets_are_added_to_a_copy():
    batch = pack([Group(0, [sequence(4)])])
    more = batch.with_targets(label=torch.tensor([1])).with_targets(other=torch.tensor([2]))
    assert set(more.targets) == {"label", "other"}
    assert batch.targets == {}
    masked = more.with_targets(input_ids=torch.zeros(4, dtype=torch.int64))
    assert masked.input_ids.sum() == 0
    assert set(masked.targets) == {"label", "other"}
    assert batch.to(torch.device("cpu")) is batch


def test_nothing_cannot_be_packed():
    with pytest.raises(ValueError, match="at least one sequence"):
        pack([])
    assert bounds(np.array([], dtype=np.int64)).tolist() == [0]
