"""Laws of rounding row counts: few shapes, and nothing seen of what was appended."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.data.batches import pack
from clozeworks.model.rows import STEP, missing_rows, rounded, rounded_index, rounded_offsets
from tiny import gap, make_groups, make_model, make_task


@given(st.integers(0, 500))
def test_counts_go_up_to_the_next_multiple(count):
    extra = missing_rows(count)
    assert 0 <= extra < STEP
    assert (count + extra) % STEP == 0
    x = torch.ones(count, 3, requires_grad=True)
    assert rounded(x).shape == (count + extra, 3)
    assert rounded(x)[count:].abs().sum() == 0
    rows = torch.arange(count)
    assert rounded_index(rows).tolist() == [*range(count), *[0] * extra]
    assert rounded_offsets(torch.tensor([0, count]))[-1] == count + extra


@pytest.mark.parametrize("lengths", [[STEP], [STEP, STEP * 3], [STEP - 1], [5, STEP - 4], [70, 63]])
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
