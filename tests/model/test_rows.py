"""Laws of rounding row counts: few shapes, and nothing seen of what was appended."""

import random
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.data.batches import pack
from clozeworks.model.attention import Layout
from clozeworks.model.rows import (
    OCTAVE,
    STEP,
    missing_rows,
    rounded,
    rounded_index,
    rounded_offsets,
    step_of,
)
from tiny import gap, make_groups, make_model, make_task


@given(st.integers(0, 20_000))
def test_counts_go_up_to_the_next_multiple(count):
    extra = missing_rows(count)
    assert 0 <= extra < max(STEP, count / OCTAVE)
    assert (count + extra) % STEP == 0
    x = torch.ones(count, 3, requires_grad=True)
    assert rounded(x).shape == (count + extra, 3)
    assert rounded(x)[count:].abs().sum() == 0
    rows = torch.arange(count)
    assert rounded_index(rows).tolist() == [*range(count), *[0] * extra]
    offsets = rounded_offsets(torch.tensor([0, count]))
    assert offsets[-1] == count + extra
    assert offsets.diff()[1:].max() <= STEP if extra else len(offsets) == 2


def test_many_counts_become_few():
    """Not more than OCTAVE between a power of two and the next, wherever that is."""
    for power in (4, 7, 11, 13):
        counts = range(2**power + 1, 2 ** (power + 1) + 1)
        assert len({count + -count % step_of(count) for count in counts}) == OCTAVE
    tokens = {count + missing_rows(count) for count in range(1, 4097)}
    assert len(tokens) <= 16 + 4 * OCTAVE


def test_batches_of_ever_new_lengths_meet_few_shapes_of_attention():
    lengths = random.Random(0)
    shapes = set()
    for _ in range(300):
        drawn = [lengths.randint(5, 60) for _ in range(lengths.randint(90, 130))]
        layout = Layout.of(torch.tensor([0, *accumulate(drawn)]))
        shapes.add((layout.rows, layout.capacity))
    assert len(shapes) <= OCTAVE


@pytest.mark.parametrize(
    "lengths", [[STEP], [STEP, STEP * 3], [STEP - 1], [5, STEP - 4], [70, 63], [9] * 300]
)
def test_appended_rows_reach_no_output_and_no_gradient(lengths):
    task = make_task("classify")
    encoder = make_model(task).encoder
    batch = pack(make_groups(lengths))
    x = encoder.embed(batch).detach().requires_grad_()
    fast, plain = encoder.encode(x, batch).x, encoder.encode(x, batch, want=["hidden"]).x
    assert fast.shape == plain.shape == x.shape
    assert gap(fast, plain) < 1e-5
    weight = encoder.layers[0].qkv.weight
    one, other = (torch.autograd.grad(y.square().sum(), [x, weight]) for y in (fast, plain))
    for ours, theirs in zip(one, other, strict=True):
        assert gap(ours, theirs) < 1e-5
