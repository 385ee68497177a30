"""Laws of the loop: cutting a step changes nothing, measuring leaves no trace, losses fall."""

import numpy as np
import pytest
import torch

from clozeworks import tasks
from clozeworks.data.batches import Group
from clozeworks.data.order import ExampleStream
from clozeworks.tasks.base import Draw
from clozeworks.train import loop
from clozeworks.train.loop import (
    Learner,
    TrainSettings,
    held_out_losses,
    portion_of,
    seconds_per_step,
    take_step,
    train,
)
from clozeworks.train.optim import Optimizer
from clozeworks.train.state import Cursor
from tiny import (
    LABELS,
    TOKENIZER,
    VOCABULARY,
    gap,
    make_examples,
    make_groups,
    make_model,
    make_task,
)

NAMES = ["mlm", "nsp", "sop", "rtd", "mlm+nsp", "classify"]
SETTINGS = TrainSettings(precision="fp32", lr=1e-3, batch=8, seed=3)


def groups_for(name, count=30):
    lengths = np.random.default_rng(0).integers(4, 60, count)
    return make_groups(lengths, classes=3 if name == "classify" else 2)


def stream_for(name, settings=SETTINGS):
    return ExampleStream(groups_for(name), settings.batch, settings.unit, settings.seed)


def run(name, total, settings=SETTINGS, dtype=torch.float32):
    task = make_task(name)
    model = make_model(task)
    learner = Learner(model, task, settings, Optimizer(model, dtype))
    cursor = Cursor(total=total)
    events = list(train(learner, stream_for(name, settings), cursor))
    return model, events, cursor


@pytest.mark.parametrize("name", NAMES)
def test_a_step_cut_into_parts_is_the_whole_step(name):
    gradients, losses = [], []
    for micro_tokens in (100_000, 90, 1):
        task = make_task(name)
        model = make_model(task)
        settings = SETTINGS.model_copy(update={"micro_tokens": micro_tokens})
        stream = stream_for(name, settings)
        optimizer = Optimizer(model, torch.float32, clip=0)
        before = [m.clone() for m in optimizer.masters]
        learner = Learner(model, task, settings, optimizer)
        portion = portion_of(learner, stream, Cursor(total=1), stream.steps(0)[0])
        assert len(portion.batches) == 1 if micro_tokens > 1000 else len(portion.batches) > 2
        found, _ = take_step(learner, portion, rate=1e-3)
        losses.append(found)
        gradients.append([m / 0.1 for m in optimizer.first])
        assert any(not torch.equal(a, b) for a, b in zip(before, optimizer.masters, strict=True))
    for parts, loss in zip(gradients[1:], losses[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        largest = max(g.abs().max() for g in gradients[0])
        for part, whole, parameter in zip(parts, gradients[0], optimizer.names, strict=True):
            # a key's bias moves all scores of a row alike: its gradient is only rounding
            against = largest if "qkv.bias" in parameter else None
            assert gap(part, whole, against) < 1e-5, parameter


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall_and_events_tell_what_happened(name):
    _, events, cursor = run(name, total=24)
    assert [e.step for e in events] == list(range(1, 25))
    assert [e.ends_epoch for e in events] == [i % 4 == 0 for i in range(1, 25)]
    assert events[3].epoch == 1.0
    for term in events[0].losses:
        first = np.mean([e.losses[term] for e in events[:4]])
        last = np.mean([e.losses[term] for e in events[-4:]])
        assert last < first
    assert cursor.tokens == sum(e.tokens for e in events) == 6 * stream_for(name).lengths(0).sum()
    assert cursor.step == cursor.total == 24
    assert events[0].lr < events[1].lr == SETTINGS.lr
    assert events[-1].lr < events[5].lr


def test_a_run_is_a_function_of_its_seed():
    dropped = SETTINGS.model_copy(update={"dropout": 0.1})

    def weights(settings):
        task = make_task("mlm+nsp")
        model = make_model(task)
        model.set_dropout(0.1)
        learner = Learner(model, task, settings, Optimizer(model, torch.float32))
        list(train(learner, stream_for("mlm+nsp", settings), Cursor(total=6)))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(dropped)
    torch.manual_seed(99)
    assert torch.equal(first, weights(dropped))
    assert not torch.equal(first, weights(dropped.model_copy(update={"seed": 4})))


def test_measuring_the_speed_leaves_no_trace(monkeypatch):
    clock = iter(np.arange(0, 10_000, 0.5))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    task = make_task("mlm+nsp")
    model, stream = make_model(task), stream_for("mlm+nsp")
    optimizer = Optimizer(model, torch.float32)
    before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    learner = Learner(model, task, SETTINGS, optimizer)
    assert seconds_per_step(learner, stream) == pytest.approx(0.5)
    for name, tensor in optimizer.state().items():
        assert torch.equal(tensor, before[name])
    assert optimizer.steps == 0


def test_held_out_losses_are_means_that_no_cutting_changes():
    task = make_task("mlm+nsp")
    model = make_model(task).train()
    model.set_dropout(0.5)
    stream = stream_for("mlm+nsp")
    whole = held_out_losses(model, task, stream, 1_000_000)
    assert held_out_losses(model, task, stream, 50) == pytest.approx(whole, rel=1e-5)
    assert held_out_losses(model, task, stream, 1_000_000) == whole
    assert model.training
    assert set(whole) == {"mlm", "nsp", "mlm_accuracy", "nsp_accuracy"}


@pytest.mark.parametrize("name", ["mlm", "nsp", "sop", "rtd"])
def test_held_out_accuracy_is_the_share_of_right_answers(name):
    task = make_task(name)
    model, groups = make_model(task), groups_for(name)
    found = held_out_losses(model, task, stream_for(name), 200)[f"{name}_accuracy"]
    right = seen = 0
    for group in groups:
        batch = task.collate([group], Draw(0, 0))
        with torch.no_grad():
            read, _ = task.begin(model, batch)
            truth, answers = truth_and_answers(name, model, read)
        right, seen = right + int((truth == answers).sum()), seen + len(truth)
    assert 0 < right < seen
    assert found == pytest.approx(right / seen, abs=2 / seen)


def truth_and_answers(name, model, batch):
    """What a batch's rows really are, and what the model says, written out plainly."""
    x = model.encoder.encode(model.encoder.embed(batch), batch).x
    head, targets = model.heads[name], batch.targets
    if name == "mlm":
        rows = head(x[targets["mlm_rows"]])
        logits = rows @ model.encoder.embeddings.tokens.weight.t() + head.bias
        return targets["mlm_labels"], logits.argmax(1)
    if name == "rtd":
        return targets["rtd_replaced"] == 1, torch.sigmoid(head(x[targets["rtd_rows"]])) > 0.5
    return targets[name], head(model.pooled(x[batch.firsts], batch)).argmax(1)


def test_texts_are_learned_through_the_whole_path():
    task = make_task("classify")
    examples = make_examples(task, 30)
    features = task.features(examples, TOKENIZER)
    groups = [
        Group(i, sequences, task.target(example))
        for i, (example, sequences) in enumerate(zip(examples, features, strict=True))
    ]
    model = make_model(task)
    stream = ExampleStream(groups, 10, "examples", seed=0)
    settings = SETTINGS.model_copy(update={"lr": 3e-3})
    learner = Learner(model, task, settings, Optimizer(model, torch.float32))
    events = list(train(learner, stream, Cursor(total=60)))
    assert events[-1].losses["classify"] < 0.5 * np.log(len(LABELS))


def test_what_is_on_a_course_goes_along_it():
    task = tasks.create("mlm", {"rate": "0.6 -> 0.1"}, VOCABULARY)
    model, seen = make_model(task), []
    collate = task.collate
    task.collate = lambda groups, draw: seen.append(draw.progress) or collate(groups, draw)
    learner = Learner(model, task, SETTINGS, Optimizer(model, torch.float32))
    list(train(learner, stream_for("mlm", SETTINGS), Cursor(total=5)))
    assert sorted(set(seen)) == [step / 5 for step in range(5)]
    groups = make_groups()
    hidden = [task.counts(collate(groups, Draw(0, 0, p)))["mlm"] for p in (0.0, 0.5, 1.0)]
    assert hidden[0] > hidden[1] > hidden[2]
