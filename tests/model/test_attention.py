"""Laws of attention: packed is padded is alone, in outputs and gradients, by every road."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import varlen

from clozeworks.model import attention
from clozeworks.model.attention import (
    MIN_CAPACITY,
    Drop,
    Layout,
    View,
    _Attend,
    attend,
    attend_fused,
    attend_plainly,
    takes_varlen,
)
from clozeworks.model.noise import Noise
from tiny import UNEQUAL, gap

HEADS, WIDTH = 4, 32
SHAPES = [UNEQUAL, [64, 64, 64], [130, 130], [1], [1, 2, 3], [65, 1, 63]]
STILL = Drop(0.0, Noise())


def bounds_of(lengths):
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))


def random_qkv(lengths, dtype=torch.float32):
    generator = torch.Generator().manual_seed(len(lengths))
    return torch.randn(sum(lengths), 3 * WIDTH, generator=generator, dtype=dtype)


def by_the_paper(qkv, lengths):
    """softmax(QKᵀ / √d) V for each sequence by itself (Vaswani et al. 2017, equation 1)."""
    outputs = []
    for rows in qkv.split(lengths):
        q, k, v = rows.view(len(rows), 3, HEADS, -1).permute(1, 2, 0, 3)
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(outputs)


def by_hand(qkv, lengths):
    layout = Layout.of(bounds_of(lengths))
    return attend(qkv, View(layout, layout.mask(qkv.dtype)), HEADS, STILL)


def fused(qkv, lengths):
    layout = Layout.of(bounds_of(lengths))
    return attend_fused(qkv, View(layout, layout.mask(qkv.dtype)), HEADS, STILL)


def plain(qkv, lengths):
    layout = Layout.of(bounds_of(lengths))
    return attend_plainly(qkv, View(layout, layout.mask(qkv.dtype)), HEADS)[0]


@pytest.mark.parametrize("lengths", SHAPES, ids=str)
@pytest.mark.parametrize("road", [by_hand, fused, plain])
def test_every_road_gives_the_papers_outputs_and_gradients(road, lengths):
    qkv = random_qkv(lengths)
    theirs, ours = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    expected, found = by_the_paper(theirs, lengths), road(ours, lengths)
    assert gap(found, expected) < 1e-5
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    expected.backward(cotangent)
    found.backward(cotangent)
    assert gap(ours.grad, theirs.grad) < 1e-5


def test_without_torchs_own_kernel_the_backward_is_the_same(monkeypatch):
    monkeypatch.setattr(attention, "_PRIVATE", None)
    for lengths in SHAPES:
        test_every_road_gives_the_papers_outputs_and_gradients(by_hand, lengths)


@pytest.mark.parametrize("lengths", [[3, 5, 2], [64]], ids=str)
def test_the_written_backward_is_the_derivative(lengths):
    width = 6 if len(lengths) > 1 else 2
    qkv = torch.randn(
        sum(lengths), 3 * width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    layout = Layout.of(bounds_of(lengths))
    mask = layout.mask(torch.float64)

    def function(x):
        return _Attend.apply(x, layout, mask, 2, STILL)

    assert torch.autograd.gradcheck(function, (qkv,), fast_mode=len(lengths) == 1)


class FrozenNoise(Noise):
    """Gives the same mask at every call, so that a derivative can be taken."""

    def keep(self, like, share):
        self.reseed(3)
        return super().keep(like, share)


def test_the_written_backward_is_the_derivative_under_dropout():
    lengths = [4, 7]
    qkv = torch.randn(
        11, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    layout = Layout.of(bounds_of(lengths))
    drop = Drop(0.3, FrozenNoise())
    mask = layout.mask(torch.float64)
    assert torch.autograd.gradcheck(lambda x: attend(x, View(layout, mask), 2, drop), (qkv,))


def test_dropped_attention_still_keeps_sequences_apart():
    lengths = [9, 20]
    qkv = random_qkv(lengths).requires_grad_()
    layout = Layout.of(bounds_of(lengths))
    view = View(layout, layout.mask(qkv.dtype))
    out = attend(qkv, view, HEADS, Drop(0.5, Noise()))
    out[:9].sum().backward()
    assert qkv.grad[:9].abs().sum() > 0
    assert qkv.grad[9:].abs().max() == 0


@pytest.mark.parametrize("lengths", SHAPES, ids=str)
def test_attention_shares_sum_to_one_and_stay_inside_the_sequence(lengths):
    layout = Layout.of(bounds_of(lengths))
    qkv = random_qkv(lengths)
    _, probs = attend_plainly(qkv, View(layout, layout.mask(qkv.dtype)), HEADS)
    assert torch.allclose(probs.sum(-1), torch.ones(probs.shape[:-1]), atol=1e-6)
    other = (layout.owner[:, :, None] != layout.owner[:, None, :])[:, None]
    assert probs.masked_select(other.expand_as(probs)).abs().sum() == 0


def test_a_lower_precision_stays_close():
    exact = random_qkv(UNEQUAL).requires_grad_()
    rounded = exact.detach().bfloat16().requires_grad_()
    expected, found = by_the_paper(exact, UNEQUAL), by_hand(rounded, UNEQUAL)
    assert gap(found.float(), expected) < 0.02
    expected.sum().backward()
    found.sum().backward()
    assert gap(rounded.grad.float(), exact.grad) < 0.05


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_a_layout_gives_every_token_one_slot_and_no_row_too_much(lengths):
    layout = Layout.of(bounds_of(lengths))
    total = sum(lengths)
    assert layout.capacity >= max(MIN_CAPACITY, max(lengths))
    assert layout.owner.shape == (layout.rows, layout.capacity)
    assert len(set(layout.slots.tolist())) == total
    assert torch.equal(layout.source[layout.slots], torch.arange(total))
    owners = layout.owner.reshape(-1)[layout.slots]
    assert torch.equal(owners, torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)))
    assert int((layout.owner >= 0).sum()) == total
    row_of = layout.slots // layout.capacity
    for rows in row_of.split(lengths):
        assert rows.unique().numel() == 1
    tokens = torch.arange(total, dtype=torch.float32)
    assert torch.equal(layout.gather(layout.spread(tokens)), tokens)
    assert layout.rows <= len(lengths)


@pytest.mark.parametrize("lengths", [[100, 30, 77, 5], [96, 96], [13, 61, 90, 2, 96]], ids=str)
def test_blocks_give_what_the_whole_square_gives(lengths):
    window = 7
    layout = Layout.of(bounds_of(lengths))
    square = View(layout, layout.mask(torch.float32, window))
    blocks = View.local(layout, torch.float32, window)
    assert blocks.blocks
    qkv = random_qkv(lengths)
    theirs, ours = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    expected, found = attend(theirs, square, HEADS, STILL), attend(ours, blocks, HEADS, STILL)
    assert gap(found, expected) < 1e-5
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    expected.backward(cotangent)
    found.backward(cotangent)
    assert gap(ours.grad, theirs.grad) < 1e-5


def test_blocks_hold_no_square():
    length, window = 4096, 16
    layout = Layout.of(bounds_of([length]))
    view = View.local(layout, torch.float32, window)
    assert view.mask.numel() == 3 * window * length
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        attend(random_qkv([length]).requires_grad_(), view, HEADS, STILL)
    assert max(kept) < length * length / 16


def test_long_rows_keep_no_probabilities(monkeypatch):
    monkeypatch.setattr("clozeworks.model.attention.LONG", 64)
    lengths = [130, 40]
    qkv = random_qkv(lengths)
    theirs, ours = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    expected, found = by_the_paper(theirs, lengths), by_hand(ours, lengths)
    assert gap(found, expected) < 1e-5
    expected.sum().backward()
    found.sum().backward()
    assert gap(ours.grad, theirs.grad) < 1e-5


def test_dropout_in_blocks_drops_its_share_and_keeps_the_mean():
    lengths = [300]
    layout = Layout.of(bounds_of(lengths))
    view, noise = View.local(layout, torch.float32, 16), Noise()
    qkv = random_qkv(lengths)
    still = attend(qkv, view, HEADS, STILL)
    runs = []
    for step in range(200):
        noise.reseed(step)
        runs.append(attend(qkv, view, HEADS, Drop(0.25, noise)))
    noise.reseed(0)
    assert torch.equal(attend(qkv, view, HEADS, Drop(0.25, noise)), runs[0])
    assert not torch.equal(runs[0], runs[1])
    assert gap(torch.stack(runs).mean(0), still) < 0.1


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("private", [False, True])
def test_the_gradient_before_a_softmax_is_autograds_however_it_lies(private, turned, monkeypatch):
    if not private:
        monkeypatch.setattr(attention, "_PRIVATE", None)
    generator = torch.Generator().manual_seed(0)
    scores, grad = torch.randn(2, 3, 40, 40, generator=generator, dtype=torch.float64)
    scores.requires_grad_()
    probs = torch.softmax(scores, -1)
    probs.backward(grad)
    given = grad.mT.contiguous().mT if turned else grad.clone()
    assert gap(attention.before_softmax(given, probs.detach()), scores.grad) < 1e-12


# === The GPU's kernel for sequences end to end, which runs on no CPU ===


def stand_in(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k):
    """What `varlen_attn` promises: [T, h, d] each, int32 bounds on either side, longest lengths."""
    assert cu_seq_q.dtype == torch.int32 and torch.equal(cu_seq_q, cu_seq_k)
    lengths = cu_seq_q.diff().tolist()
    assert max(lengths) == max_q == max_k and sum(lengths) == len(q)
    parts = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    outputs = [F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part)) for part in parts]
    return torch.cat([out.transpose(0, 1) for out in outputs])


@pytest.mark.parametrize("lengths", SHAPES)
def test_end_to_end_is_by_the_paper(lengths, monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    monkeypatch.setattr(attention, "takes_varlen", lambda x, width, share: True)
    qkv = random_qkv(lengths)
    view = View.everywhere(Layout.of(bounds_of(lengths)), qkv, HEADS)
    assert view.mask is None
    assert gap(attend(qkv, view, HEADS, STILL), by_the_paper(qkv, lengths)) < 1e-5


def test_the_kernel_is_asked_only_where_it_can_answer(monkeypatch):
    class Cuda(NamedTuple):
        dtype: torch.dtype = torch.bfloat16
        is_cuda: bool = True
        device: str = "cuda"

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert takes_varlen(Cuda(), 64, 0.0) and takes_varlen(Cuda(torch.float16), 256, 0.0)
    assert not takes_varlen(Cuda(torch.float32), 64, 0.0)
    assert not takes_varlen(Cuda(), 64, 0.1)
    assert not takes_varlen(Cuda(), 26, 0.0) and not takes_varlen(Cuda(), 264, 0.0)
    assert not takes_varlen(torch.zeros(1, dtype=torch.bfloat16), 64, 0.0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not takes_varlen(Cuda(), 64, 0.0)
