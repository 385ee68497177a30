"""The equivalence suite: for every objective, what must change nothing changes nothing.

Packed or one by one, whole or cut into micro-batches, stopped or not: the same losses, the same
gradients, the same bytes. Packed beside padded is in `tests/parity/test_objectives.py`.
"""

from itertools import count

import numpy as np
import pytest
import torch
from small_run import SETTINGS as RUN
from small_run import small_run, what_it_left

from clozeworks import tasks
from clozeworks.data.batches import Group
from clozeworks.data.order import ExampleStream
from clozeworks.train.loop import (
    Learner,
    TrainSettings,
    held_out_losses,
    portion_of,
    take_step,
)
from clozeworks.train.optim import Optimizer
from clozeworks.train.portion import Portion
from clozeworks.train.state import Cursor
from tiny import DRAW, VOCABULARY, gap, make_groups, make_model, make_task

NAMES = ["mlm", "nsp", "sop", "rtd", "mlm+nsp", "mlm+sop"]
SETTINGS = TrainSettings(precision="fp32", lr=5e-5, batch=24, seed=3)
LIMIT = 1e-5


def groups_for(name, size=24):
    """Groups of unequal lengths; for sentence order, some with nothing to tell."""
    groups = make_groups(np.random.default_rng(0).integers(4, 60, size))
    if "sop" not in name:
        return groups
    return [Group(g.index, g.sequences, -1 if g.index % 5 == 2 else g.target) for g in groups]


def gradients_of(model, terms, weights=None):
    """The gradient of the weighted sum of some terms, by parameter."""
    model.zero_grad()
    total = [t * (weights or {}).get(name, 1.0) for name, t in terms.items()]
    torch.stack(total).sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    return {n: torch.zeros(()) if g is None else g.clone() for n, g in grads.items()}


def same(found, expected):
    """Whether all gradients agree, each against its own largest magnitude."""
    largest = max(g.abs().max() for g in expected.values())
    for name, whole in expected.items():
        # a key's bias moves all scores of a row alike: its gradient is only rounding
        against = largest if "qkv.bias" in name else None
        assert gap(found[name], whole, against) < LIMIT, name


# === Packed, cut, weighed ===


@pytest.mark.parametrize("name", NAMES)
def test_packed_is_one_by_one(name):
    task = make_task(name)
    model, groups = make_model(task), groups_for(name)
    batch = task.collate(groups, DRAW)
    packed = task.loss(model, batch, DRAW)
    expected = gradients_of(model, packed)
    apart = [task.collate([group], DRAW) for group in groups]
    assert task.counts(batch) == {
        term: sum(task.counts(one)[term] for one in apart) for term in packed
    }
    sums = dict.fromkeys(packed, 0.0)
    found = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for one in apart:
        losses = task.loss(model, one, DRAW)
        for term, value in losses.items():
            sums[term] += float(value.detach())
        for parameter, gradient in gradients_of(model, losses).items():
            found[parameter] += gradient
    assert sums == pytest.approx({t: float(v.detach()) for t, v in packed.items()}, rel=LIMIT)
    same(found, expected)


def stepped(name, micro_tokens, dtype=torch.float32, recompute=False, muon=False):
    """Passes, losses, norm, gradients and Muon's moves, of one step cut at so many tokens."""
    task = tasks.create(name, {}, VOCABULARY)
    task.weigh(
        {term: weight * (2 + i) / 3 for i, (term, weight) in enumerate(task.weights.items())}
    )
    model, settings = make_model(task), SETTINGS.model_copy(update={"micro_tokens": micro_tokens})
    stream = ExampleStream(groups_for(name), settings.batch, settings.unit, settings.seed)
    model.encoder.recompute = recompute
    hidden = model.hidden_matrices() if muon else None
    optimizer = Optimizer(model, dtype, clip=0, hidden=hidden)
    learner = Learner(model, task, settings, optimizer)
    portion = portion_of(learner, stream, Cursor(total=1), stream.steps(0)[0])
    before = [master.clone() for master in optimizer.masters]
    losses, norm = take_step(learner, portion, 1e-3)
    first = zip(optimizer.names, optimizer.first, strict=True)
    gradients = {name: moment / 0.1 for name, moment in first}
    masters = zip(optimizer.names, optimizer.masters, before, optimizer.parts, strict=True)
    moves = {name: after - start for name, after, start, parts in masters if parts}
    return len(portion.batches), losses, norm, gradients, moves


@pytest.mark.parametrize("name", NAMES)
def test_accumulated_is_whole(name):
    once, losses, norm, gradients, _ = stepped(name, 100_000)
    assert once == 1
    for micro_tokens in (300, 90, 1):
        parts, found, length, others, _ = stepped(name, micro_tokens)
        assert parts > 2
        assert found == pytest.approx(losses, rel=LIMIT)
        assert length == pytest.approx(norm, rel=LIMIT)
        same(others, gradients)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_for_speed_or_memory_leaves_the_step_what_it_is(name):
    _, losses, norm, gradients, _ = stepped(name, 100_000)
    _, found, length, others, _ = stepped(name, 300, recompute=True)
    assert found == pytest.approx(losses, rel=LIMIT) and length == pytest.approx(norm, rel=LIMIT)
    same(others, gradients)
    _, found, length, *_ = stepped(name, 300, torch.bfloat16, recompute=True)
    assert found == pytest.approx(losses, rel=0.03) and length == pytest.approx(norm, rel=0.1)
    *_, whole = stepped(name, 100_000, muon=True)
    *_, cut = stepped(name, 300, recompute=True, muon=True)
    assert whole.keys() == cut.keys() != set()
    for weights, move in whole.items():
        # made orthogonal, in bf16, what is hardly there is as large as the rest
        assert (cut[weights] - move).norm() < 0.1 * move.norm(), weights


@pytest.mark.parametrize("name", ["rtd", "mlm+nsp", "mlm+sop"])
def test_what_is_minimised_is_the_weighted_sum_of_the_means(name):
    weights = {"mlm": 0.5, "nsp": 3.0, "sop": 0.0, "rtd": 7.0}
    task = make_task(name)
    task.weigh({term: weights[term] for term in task.weights})
    model, batch = make_model(task), task.collate(groups_for(name), DRAW)
    means = {t: v / task.counts(batch)[t] for t, v in task.loss(model, batch, DRAW).items()}
    expected = gradients_of(model, means, task.weights)
    model.zero_grad()
    optimizer = Optimizer(model, torch.float32, clip=0)
    losses, _ = take_step(Learner(model, task, SETTINGS, optimizer), Portion.of([batch]), 1e-3)
    assert losses == pytest.approx({t: float(v.detach()) for t, v in means.items()}, rel=LIMIT)
    found = {n: m / 0.1 for n, m in zip(optimizer.names, optimizer.first, strict=True)}
    same(found, {n: torch.zeros_like(found[n]) + g for n, g in expected.items()})


def test_a_term_with_nothing_to_count_is_0_and_teaches_nothing():
    task = make_task("mlm+sop")
    model = make_model(task)
    groups = [Group(g.index, g.sequences, -1) for g in make_groups()]
    batch = task.collate(groups, DRAW)
    assert task.counts(batch)["sop"] == 0
    optimizer = Optimizer(model, torch.float32)
    before = model.heads["sop"].dense.bias.clone()
    losses, norm = take_step(Learner(model, task, SETTINGS, optimizer), Portion.of([batch]), 1e-3)
    assert losses["sop"] == 0 and losses["mlm"] > 0 and np.isfinite(norm)
    assert torch.equal(model.heads["sop"].dense.bias, before)
    stream = ExampleStream(groups, 24, "examples", 0)
    assert set(held_out_losses(model, task, stream, 1000)) == {"mlm", "mlm_accuracy"}


# === Stopped and resumed ===


class Crash(Exception):
    """Stands for whatever ends a process."""


FAST = {
    "optimizer": "muon",
    "precision": "bf16",
    "dropout": 0.1,
    "recompute": True,
    "micro_tokens": 200,
    "schedule": "wsd",
}
"""Every setting of training that is there for speed or memory, and what they might disturb."""


@pytest.mark.parametrize("changes", [{}, FAST], ids=["usual", "fast"])
@pytest.mark.parametrize("name", NAMES)
def test_resumed_is_uninterrupted_bit_for_bit(name, changes, tmp_path, monkeypatch):
    settings = RUN.model_copy(update={"duration": "6 steps", **changes})
    small_run(tmp_path / "straight", settings, name=name)
    before, steps = Optimizer.step, count(1)

    def step(self, rate):
        if next(steps) in (3, 6):
            raise Crash
        return before(self, rate)

    monkeypatch.setattr(Optimizer, "step", step)
    for _ in range(2):
        with pytest.raises(Crash):
            small_run(tmp_path / "stopped", settings, name=name)
    small_run(tmp_path / "stopped", settings, name=name)
    assert what_it_left(tmp_path / "stopped") == what_it_left(tmp_path / "straight")
