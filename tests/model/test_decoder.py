"""Laws of the decoder: it sees what is before and its own source, packed or alone, cached or no."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozeworks.model.across import Across, attend_across, attend_across_fused
from clozeworks.model.attention import Drop, Layout
from clozeworks.model.decoder import Decoder, Tokens, depths
from clozeworks.model.heads import encoder_of
from clozeworks.model.noise import Noise
from clozeworks.model.rows import rounded
from tiny import CONFIG, UNEQUAL, VOCABULARY, gap

PAIRS = [(70, 5), (5, 40), (131, 64), (3, 1), (33, 33), (64, 70), (1, 3)]
"""Lengths of sources and targets."""


def offsets(lengths):
    return torch.tensor([0, *np.cumsum(lengths)])


def bounds(pairs=PAIRS):
    return [offsets(side) for side in zip(*pairs, strict=True)]


def make_decoder(layers=3, shares=True, seed=0):
    """A decoder whose every parameter matters."""
    torch.manual_seed(seed)
    decoder = Decoder(encoder_of(CONFIG), layers, shares)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.normal_(0.0, 0.2)
            if "norm.weight" in name:
                parameter.add_(1.0)
    return decoder.eval()


def drawn(pairs=PAIRS):
    """Vectors of sources, and target tokens, with their bounds."""
    sources, targets = bounds(pairs)
    memory = torch.randn(int(sources[-1]), CONFIG.hidden_size)
    ids = torch.randint(5, VOCABULARY.size, (int(targets[-1]),))
    return memory, sources, ids, targets


def plainly(q, kv, heads):
    """Cross-attention of one pair, as the formula has it."""
    width = q.shape[1]
    k, v = kv.split(width, 1)
    q, k, v = (x.view(len(x), heads, -1).transpose(0, 1) for x in (q, k, v))
    probs = torch.softmax(q @ k.transpose(1, 2) / (width // heads) ** 0.5, -1)
    return (probs @ v).transpose(0, 1).reshape(-1, width)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=12))
@example([(64, 10)])  # the source fills its row, and the target's has room
def test_cross_attention_is_that_of_each_pair_alone_with_its_gradients(pairs):
    sources, targets = bounds(pairs)
    torch.manual_seed(0)
    q = torch.randn(int(targets[-1]), 32, requires_grad=True)
    kv = torch.randn(int(sources[-1]), 64, requires_grad=True)
    across = Across.of(sources, targets, torch.float32)
    assert (across.mask == 0).any(-1).all()
    drop = Drop(0.0, Noise())
    wanted = torch.cat(
        [
            plainly(q[a:b], kv[c:d], 4)
            for (a, b), (c, d) in zip(
                itertools.pairwise(targets),
                itertools.pairwise(sources),
                strict=True,
            )
        ]
    )
    weight = torch.randn_like(wanted)
    theirs = torch.autograd.grad((wanted * weight).sum(), (q, kv))
    for attended in (attend_across, attend_across_fused):
        found = attended(rounded(q), rounded(kv), across, 4, drop)
        assert torch.equal(found[len(q) :], torch.zeros_like(found[len(q) :]))
        assert gap(found[: len(q)], wanted) < 1e-5
        full = torch.zeros_like(found)
        full[: len(q)] = weight
        ours = torch.autograd.grad((found * full).sum(), (q, kv))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rows_of_the_plan_hold_each_pair_once_and_whole():
    sources, targets = bounds()
    across = Across.of(sources, targets, torch.float32)
    for side, ends in ((across.sources, sources), (across.targets, targets)):
        owner = side.owner.flatten()
        assert len(set(side.slots.tolist())) == int(ends[-1])
        assert torch.equal(torch.bincount(owner[owner >= 0]), ends.diff())
        assert torch.equal(side.source[side.slots], torch.arange(int(ends[-1])))
    row_of = [{side: set() for side in ("s", "t")} for _ in PAIRS]
    for name, side in (("s", across.sources), ("t", across.targets)):
        for row, owners in enumerate(side.owner.tolist()):
            for owner in set(owners) - {-1}:
                row_of[owner][name].add(row)
    assert all(r["s"] == r["t"] and len(r["s"]) == 1 for r in row_of)


def test_a_causal_mask_lets_each_token_see_what_is_before_it_alone():
    for lengths in (UNEQUAL, [64, 64]):
        layout = Layout.of(offsets(lengths))
        mask = layout.mask(torch.float32, causal=True).expand(layout.rows, -1, -1)
        seen = (mask == 0).nonzero()
        owner = layout.owner
        for row, query, key in seen[:: max(1, len(seen) // 2000)].tolist():
            assert key <= query and owner[row, query] == owner[row, key]
        per_token = (mask == 0).sum(2).flatten()[layout.slots]
        assert per_token.tolist() == [i + 1 for length in lengths for i in range(length)]


def test_pairs_packed_are_pairs_alone():
    decoder = make_decoder()
    memory, sources, ids, targets = drawn()
    together = decoder(Tokens.of(ids, targets), memory, sources)
    for i in range(len(PAIRS)):
        a, b, c, d = *targets[i : i + 2].tolist(), *sources[i : i + 2].tolist()
        alone = decoder(
            Tokens.of(ids[a:b], torch.tensor([0, b - a])), memory[c:d], torch.tensor([0, d - c])
        )
        assert gap(together[a:b], alone[: b - a]) < 1e-5


def test_nothing_that_comes_later_and_no_other_source_changes_a_token():
    decoder = make_decoder()
    memory, sources, ids, targets = drawn([(20, 12), (9, 30)])
    before = decoder(Tokens.of(ids, targets), memory, sources)
    changed, other = ids.clone(), memory.clone()
    changed[7:12] = torch.randint(5, VOCABULARY.size, (5,))
    other[20:] = 3.0
    after = decoder(Tokens.of(changed, targets), other, sources)
    assert gap(after[:7], before[:7]) < 1e-6
    assert gap(after[8:12], before[8:12]) > 1e-3
    assert gap(after[12:42], before[12:42]) > 1e-3


@pytest.mark.parametrize("beams", [1, 3])
def test_a_step_at_a_time_with_its_cache_is_the_whole_at_once(beams):
    decoder = make_decoder()
    length = 41  # longer than the cache's first growth
    memory, sources, ids, targets = drawn([(n, length) for n, _ in PAIRS] * 1)
    cache = decoder.begin(memory, sources, beams)
    whole = decoder(Tokens.of(ids, targets), memory, sources)[: len(ids)].view(
        len(PAIRS), length, -1
    )
    ids = ids.view(len(PAIRS), length)
    for place in range(length):
        x = decoder.step(ids[:, place].repeat_interleave(beams), cache)
        assert gap(x, whole[:, place].repeat_interleave(beams, 0)) < 1e-5


def test_a_cache_goes_on_from_the_rows_and_sources_chosen():
    decoder = make_decoder()
    memory, sources, _ids, _ = drawn([(9, 8), (30, 8), (14, 8)])
    beams, rows = 2, torch.randint(5, VOCABULARY.size, (6, 5))
    cache = decoder.begin(memory, sources, beams)
    for place in range(4):
        decoder.step(rows[:, place], cache)
    chosen = torch.tensor([1, 1, 2, 3, 5, 4])  # within each source
    cache.choose(chosen)
    cache.keep(torch.tensor([0, 2]))
    kept = torch.tensor([1, 1, 5, 4])
    found = decoder.step(rows[kept, 4], cache)
    targets = offsets([5] * 4)
    own = torch.cat([memory[:9], memory[:9], memory[39:], memory[39:]])
    tokens = Tokens.of(rows[kept].flatten(), targets)
    wanted = decoder(tokens, own, offsets([9, 9, 14, 14]))[4:20:5]
    assert gap(found, wanted) < 1e-5


def test_running_layers_again_changes_no_gradient():
    grads = []
    for recompute in (False, True):
        decoder = make_decoder().train()
        decoder.recompute = recompute
        for layer in decoder.layers:
            layer.attention_dropout = layer.dropout.share = 0.2
        torch.manual_seed(1)
        memory, sources, ids, targets = drawn()
        decoder.noise.reseed(3)
        decoder(Tokens.of(ids, targets), memory, sources)[: len(ids)].square().sum().backward()
        grads.append([p.grad for p in decoder.parameters() if p.grad is not None])
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


@given(st.integers(1, 48), st.data())
def test_layers_are_taken_evenly_and_end_with_the_last(layers, data):
    wanted = data.draw(st.integers(1, layers))
    found = depths(layers, wanted)
    assert len(found) == wanted and found == sorted(set(found)) and found[-1] == layers - 1
    assert wanted == 1 or found[0] == 0
    steps = np.diff(found)
    assert wanted == 1 or steps.max() - steps.min() <= 1
