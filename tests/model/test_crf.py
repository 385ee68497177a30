"""Laws of the CRF: it is what going through every path by hand comes to, packed or alone."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.model.crf import Crf
from clozeworks.text.tags import labels_of, legal_moves

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def made(lengths, labels, seed, barred=0.0):
    """A CRF with random scores, some moves barred, and emissions for sequences of these lengths.

    Label 0 may always be where it is, so that a path of every length is left.
    """
    generator = torch.Generator().manual_seed(seed)
    legal = torch.rand(labels + 1, labels + 1, generator=generator) >= barred
    legal[0, 0] = legal[-1, 0] = legal[0, -1] = True
    crf = Crf(legal)
    for parameter in crf.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    emissions = 2 * torch.randn(int(offsets[-1]), labels, generator=generator)
    return crf, emissions, offsets


def all_paths(crf, emissions):
    """Every legal path of one sequence, [P, L], and its score, [P], by the definition."""
    length, labels = emissions.shape
    paths = torch.cartesian_prod(*[torch.arange(labels)] * length).view(-1, length)
    steps = edged(paths, labels)
    paths = paths[crf.legal[steps[:, :-1], steps[:, 1:]].all(1)]
    scores = crf.start[paths[:, 0]] + crf.end[paths[:, -1]]
    scores = scores + crf.transitions[paths[:, :-1], paths[:, 1:]].sum(1)
    return paths, scores + emissions[torch.arange(length), paths].sum(1)


def edged(paths, labels):
    """Paths with the number of the start before them and of the end behind them."""
    edge = torch.full((len(paths), 1), labels)
    return torch.cat([edge, paths, edge], 1)


shapes = {
    "lengths": st.lists(st.integers(0, 4), min_size=1, max_size=4),
    "labels": st.integers(1, 3),
    "seed": st.integers(0, 2**20),
    "barred": st.sampled_from([0.0, 0.3, 0.6]),
}


@given(**shapes)
@settings(max_examples=40)
def test_likelihood_marginals_and_best_path_are_those_of_all_paths(lengths, labels, seed, barred):
    crf, emissions, offsets = made(lengths, labels, seed, barred)
    decoded, marginals = crf.decode(emissions, offsets), crf.marginals(emissions, offsets)
    gold, want = torch.zeros(len(emissions), dtype=torch.int64), torch.tensor(0.0)
    best = torch.zeros(len(lengths))
    for i, (start, end) in enumerate(pairwise(offsets.tolist())):
        if start == end:
            continue
        paths, scores = all_paths(crf, emissions[start:end])
        chance = scores.softmax(0)
        pick = seed % len(paths)
        gold[start:end] = paths[pick]
        want = want + chance[pick].log()
        best[i] = scores.max()
        share = torch.nn.functional.one_hot(paths, labels) * chance[:, None, None]
        torch.testing.assert_close(marginals[start:end], share.sum(0), **CLOSE)
        assert decoded[start:end].tolist() in paths.tolist()
    torch.testing.assert_close(crf.log_likelihood(emissions, gold, offsets), want, **CLOSE)
    torch.testing.assert_close(crf.score(emissions, decoded, offsets), best, **CLOSE)


@given(shapes["seed"], st.integers(1, 4), st.sampled_from([0.0, 0.4]))
@settings(max_examples=20)
def test_the_probabilities_of_all_paths_sum_to_one(seed, length, barred):
    crf, emissions, offsets = made([length], 3, seed, barred)
    paths, _ = all_paths(crf, emissions)
    logs = [crf.log_likelihood(emissions, path, offsets) for path in paths]
    assert torch.stack(logs).exp().sum().item() == pytest.approx(1, abs=1e-5)


@given(**shapes)
@settings(max_examples=40)
def test_gradients_are_gold_minus_what_is_expected(lengths, labels, seed, barred):
    """For every score: how often gold uses it, less how often paths do, by their probability."""
    crf, emissions, offsets = made(lengths, labels, seed, barred)
    emissions.requires_grad_()
    gold = crf.decode(torch.randn_like(emissions), offsets)
    crf.log_likelihood(emissions, gold, offsets).backward()
    expected = -crf.marginals(emissions, offsets)
    expected[torch.arange(len(gold)), gold] += 1
    torch.testing.assert_close(emissions.grad, expected, **CLOSE)
    moves = torch.zeros(labels + 1, labels + 1)
    for start, end in pairwise(offsets.tolist()):
        if start == end:
            continue
        paths, scores = all_paths(crf, emissions[start:end].detach())
        steps = edged(torch.cat([gold[start:end][None], paths]), labels)
        weights = torch.cat([torch.ones(1), -scores.softmax(0).detach()])
        weights = weights[:, None].expand(-1, steps.shape[1] - 1)
        moves.index_put_((steps[:, :-1], steps[:, 1:]), weights, accumulate=True)
    if len(emissions):
        torch.testing.assert_close(crf.start.grad, moves[-1, :-1], **CLOSE)
        torch.testing.assert_close(crf.end.grad, moves[:-1, -1], **CLOSE)
        torch.testing.assert_close(crf.transitions.grad, moves[:-1, :-1], **CLOSE)
        assert not crf.transitions.grad[~crf.legal[:-1, :-1]].any()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), shapes["seed"])
@settings(max_examples=20)
def test_packed_is_alone(lengths, seed):
    crf, emissions, offsets = made(lengths, 5, seed, 0.3)
    together = crf.decode(emissions, offsets)
    likelihood = crf.log_likelihood(emissions, together, offsets)
    marginals = crf.marginals(emissions, offsets)
    total = torch.tensor(0.0)
    for start, end in pairwise(offsets.tolist()):
        part, alone = emissions[start:end], torch.tensor([0, end - start])
        assert torch.equal(crf.decode(part, alone), together[start:end])
        torch.testing.assert_close(crf.marginals(part, alone), marginals[start:end], **CLOSE)
        total = total + crf.log_likelihood(part, together[start:end], alone)
    torch.testing.assert_close(likelihood, total, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_barred_moves_are_neither_decoded_nor_learned(scheme):
    labels = labels_of(["人", "loc"], scheme)
    crf = Crf(torch.from_numpy(legal_moves(labels, scheme)))
    offsets = torch.tensor([0, 1, 1, 30, 130])
    optimizer = torch.optim.SGD(crf.parameters(), lr=0.5)
    before = [p.detach().clone() for p in crf.parameters()]
    for seed in range(20):
        emissions = 5 * torch.randn(130, len(labels), generator=torch.manual_seed(seed))
        found = crf.decode(emissions, offsets)
        crf.log_likelihood(emissions, found, offsets)  # raises on a barred move
        gold = crf.decode(torch.randn_like(emissions), offsets)
        optimizer.zero_grad()
        (-crf.log_likelihood(emissions, gold, offsets) / 130).backward()
        optimizer.step()
    barred = ~crf.legal
    masks = (barred[-1, :-1], barred[:-1, :-1], barred[:-1, -1])
    for parameter, start, mask in zip(crf.parameters(), before, masks, strict=True):
        assert torch.equal(parameter[mask], start[mask])
        assert not torch.equal(parameter[~mask], start[~mask])


def test_gold_that_makes_a_barred_move_is_refused():
    crf, emissions, offsets = made([3], 2, 0)
    crf.legal[1, 1] = False
    with pytest.raises(ValueError, match="barred"):
        crf.log_likelihood(emissions, torch.tensor([0, 1, 1]), offsets)
    with pytest.raises(ValueError, match="not bool"):
        Crf(torch.ones(2, 3, dtype=torch.bool))


def test_marginals_are_there_in_inference_mode():
    crf, emissions, offsets = made([3, 0, 5], 4, 2, 0.3)
    want = crf.marginals(emissions, offsets)
    with torch.inference_mode():
        assert torch.equal(crf.marginals(emissions * 1, offsets + 0), want)
    assert all(parameter.grad is None for parameter in crf.parameters())


def test_half_precision_is_computed_in_full():
    crf, emissions, offsets = made([200, 3], 4, 1)
    half = emissions.bfloat16()
    gold = crf.decode(half, offsets)
    assert torch.equal(gold, crf.decode(half.float(), offsets))
    found, want = (crf.log_likelihood(e, gold, offsets) for e in (half, half.float()))
    assert found.dtype == torch.float32 and torch.equal(found, want)
    near = torch.tensor([[1.0, 1.0001]])  # the same in bf16
    plain = Crf(torch.ones(3, 3, dtype=torch.bool))
    assert plain.decode(near, torch.tensor([0, 1])).tolist() == [1]


def test_it_learns_what_emissions_do_not_say():
    """Labels that alternate, under emissions that say nothing, are learned from the moves alone."""
    crf = Crf(torch.ones(3, 3, dtype=torch.bool))
    offsets = torch.tensor([0, 6, 10])
    gold = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    emissions = torch.zeros(10, 2)
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = -crf.log_likelihood(emissions, gold, offsets)
        loss.backward()
        optimizer.step()
    assert torch.equal(crf.decode(emissions, offsets), gold) and loss < 1


def test_where_no_sequence_has_a_token_every_parameter_has_a_gradient_of_0():
    crf, nothing = Crf(torch.ones(4, 4, dtype=torch.bool)), torch.zeros(0, dtype=torch.int64)
    crf.log_likelihood(torch.zeros(0, 3), nothing, torch.zeros(3, dtype=torch.int64)).backward()
    assert all(p.grad is not None and not p.grad.any() for p in crf.parameters())
