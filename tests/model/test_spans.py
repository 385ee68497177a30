"""Laws of scoring spans: the sum of its parts, within its sequence alone, and a loss as written."""

from math import exp, log1p

import pytest
import torch

from clozeworks.model.heads import encoder_of
from clozeworks.model.rotary import turns
from clozeworks.model.spans import WIDTH, SpanHead
from tiny import CONFIG, gap

SIZES = [5, 1, 0, 9, 3]
TYPES, LONGEST = 2, 4


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    made = SpanHead(encoder_of(CONFIG), TYPES)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return made


def packed(sizes=SIZES):
    offsets = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(sizes), CONFIG.hidden_size, generator=generator), offsets


def turned(vector, place):
    cos, sin = (turn[0, 0] for turn in turns(torch.tensor([place]), WIDTH, 10_000.0))
    a, b = vector.chunk(2)
    return torch.cat([a * cos - b * sin, b * cos + a * sin])


def test_a_score_is_the_meeting_of_both_ends_and_what_each_is(head):
    x, offsets = packed()
    scores, there, _ = head.spans(x, offsets, LONGEST)
    assert scores.shape == (sum(SIZES), LONGEST, TYPES)
    seen = 0
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for i in range(begin, end):
            for w in range(LONGEST):
                assert bool(there[i, w]) == (i + w < end)
                if i + w >= end:
                    continue
                query = turned(head.points(x[i])[:WIDTH], i - begin)
                key = turned(head.points(x[i + w])[WIDTH:], i + w - begin)
                first, last = head.dense(x[i]), head.dense(x[i + w])
                wanted = query @ key / WIDTH**0.5 + first[0::2] + last[1::2]
                assert torch.allclose(scores[i, w], wanted, atol=1e-4)
                seen += 1
    assert seen > 40


def test_spans_of_a_sequence_alone_are_those_in_company(head):
    x, offsets = packed()
    scores, there, _ = head.spans(x, offsets, LONGEST)
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if end - begin < LONGEST:
            continue
        alone, own, _ = head.spans(x[begin:end], torch.tensor([0, end - begin]), LONGEST)
        assert gap(alone[own], scores[begin:end][there[begin:end]]) < 1e-5


def test_the_loss_sets_gold_spans_apart_from_all_others(head):
    x, offsets = packed()
    spans = head.spans(x, offsets, LONGEST)
    gold = torch.zeros_like(spans.scores, dtype=torch.bool)
    for i, w, t in [(0, 0, 0), (0, 3, 1), (1, 1, 1), (8, 2, 0)]:
        gold[i, w, t] = True
    total = 0.0
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for kind in range(TYPES):
            wanted = others = 0.0
            for i in range(begin, end):
                for w in range(min(LONGEST, end - i)):
                    score = spans.scores[i, w, kind].item()
                    if gold[i, w, kind]:
                        wanted += exp(-score)
                    else:
                        others += exp(score)
            total += log1p(wanted) + log1p(others)
    assert spans.loss(gold).item() == pytest.approx(total, rel=1e-5)


def test_scores_far_out_stay_numbers_and_what_is_not_there_learns_nothing(head):
    x, offsets = packed()
    leaf = (x * 300).requires_grad_()
    spans = head.spans(leaf, offsets, LONGEST)
    spans.scores.retain_grad()
    loss = spans.loss(torch.zeros_like(spans.scores, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(leaf.grad).all()
    assert spans.scores.grad[~spans.there].abs().max() == 0
