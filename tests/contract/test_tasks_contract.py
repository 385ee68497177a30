"""What every task owes, tried on all of them, and on joint ones."""

import pytest
import torch

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.records import Example, Prediction
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.encoder import initialise
from clozeworks.tasks import TASKS
from clozeworks.tasks.base import FEW, Draw
from clozeworks.train.loop import Learner, TrainSettings, take_step
from clozeworks.train.optim import Optimizer
from clozeworks.train.portion import Portion
from tiny import (
    DRAW,
    KINDS,
    TOKENIZER,
    groups_from,
    make_config,
    make_examples,
    make_groups,
    make_model,
    make_task,
)

SINGLE = TASKS.names()
EVERY = [*SINGLE, *KINDS, "mlm+nsp", "mlm+sop"]


def groups_of(task, count=12):
    """What the task learns from: cut from a corpus, or made of Examples."""
    if task.from_shards:
        return make_groups([10 + 5 * i for i in range(count)])
    groups = groups_from(task, make_examples(task, count))
    task.look_over(groups)
    return task.readings(groups)


def has_answers(name):
    """Whether its answers are judged by numbers of their own, not by its losses."""
    return bool(make_task(name).metrics([], []))


@pytest.mark.parametrize("name", SINGLE)
def test_it_describes_itself(name):
    kind = TASKS.get(name)
    assert kind.name == name
    assert TASKS.summary(name).endswith(".")
    assert issubclass(kind.Config, Settings)
    assert issubclass(kind.Example, Example) and issubclass(kind.Answer, Prediction)
    for record in (kind.Config, kind.Example, kind.Answer):
        assert record.__doc__
        for field, info in record.model_fields.items():
            assert info.description or record is kind.Answer, f"{record.__name__}.{field}"
    for field, info in kind.Config.model_fields.items():
        assert not info.is_required(), f"{field} needs a default"


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_is_a_function_of_its_groups_and_the_draw(name):
    task = make_task(name)
    groups = groups_of(task)
    batch, again = task.collate(groups, DRAW), task.collate(groups, DRAW)
    assert batch.targets.keys() == again.targets.keys() != set()
    assert torch.equal(batch.input_ids, again.input_ids)
    for key, tensor in batch.targets.items():
        assert torch.equal(tensor, again.targets[key])


@pytest.mark.parametrize("name", EVERY)
def test_its_loss_is_finite_counted_and_falls(name):
    task = make_task(name)
    model = make_model(task)
    batch = task.collate(groups_of(task), DRAW)
    losses, counts = task.loss(model, batch, DRAW), task.counts(batch)
    assert list(losses) == list(counts)
    assert all(torch.isfinite(loss) and loss.dim() == 0 for loss in losses.values())
    assert all(count > 0 for count in counts.values())
    settings = TrainSettings(precision="fp32", lr=5e-5)
    learner = Learner(model, task, settings, Optimizer(model, torch.float32))
    first, _ = take_step(learner, Portion.of([batch]), 1e-3)
    assert first == pytest.approx(
        {n: float(losses[n].detach()) / counts[n] for n in losses}, rel=1e-4
    )
    for _ in range(15):
        last, _ = take_step(learner, Portion.of([batch]), 1e-3)
    assert all(last[term] < first[term] for term in first)


BY_HEART = [name for name in [*SINGLE, *KINDS] if not make_task(name).from_shards]
BY_HEART.remove("embed:simcse")  # it has no answers to know


@pytest.mark.parametrize("name", BY_HEART)
def test_it_learns_thirty_two_examples_by_heart(name):
    task = make_task(name)
    examples, groups, model = make_examples(task, 32), groups_of(task, 32), make_model(task)
    settings = TrainSettings(precision="fp32", lr=5e-5)
    learner = Learner(model, task, settings, Optimizer(model, torch.float32))
    engine = Engine(model, task, TOKENIZER)

    def known():
        task.calibration = task.calibrate(*zip(*engine.parts(examples), strict=True))
        return next(iter(task.metrics(list(engine.predict(examples)), examples).values()))

    for epoch in range(200):
        batch = task.collate(groups, Draw(seed=7, epoch=epoch))
        take_step(learner, Portion.of([batch]), 5e-3)
        if epoch % 25 == 24 and known() > 0.97:
            return
    assert known() > 0.97


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_learns(name):
    task = make_task(name)
    model = make_model(task)
    losses = task.loss(model, task.collate(groups_of(task), DRAW), DRAW)
    torch.stack(list(losses.values())).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", EVERY)
def test_from_chance_nothing_is_kept(name):
    model = make_model(make_task(name))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    initialise(model, 0.02, seed=0)
    kept = [name for name, parameter in model.named_parameters() if (parameter == 3.0).any()]
    assert not kept


@pytest.mark.parametrize("name", EVERY)
def test_a_step_in_parts_is_the_step(name):
    """Where the Examples of a step are compared with one another, too."""
    whole = stepped(name, 12)
    for size in (5, 1):
        losses, norm, gradients = stepped(name, size)
        assert losses == pytest.approx(whole[0], rel=1e-5)
        assert norm == pytest.approx(whole[1], rel=1e-5)
        largest = max(gradient.abs().max() for gradient in gradients)
        for found, expected in zip(gradients, whole[2], strict=True):
            assert (found - expected).abs().max() < 1e-5 * largest


def stepped(name, size):
    """Losses, norm and gradients of a step of 12 groups, so many in each pass."""
    task = make_task(name)
    model, groups = make_model(task), groups_of(task)
    parts = [task.collate(groups[i : i + size], DRAW) for i in range(0, len(groups), size)]
    optimizer = Optimizer(model, torch.float32, clip=0)
    learner = Learner(model, task, TrainSettings(precision="fp32", lr=5e-5), optimizer)
    losses, norm = take_step(learner, Portion.of(parts), 1e-3)
    return losses, norm, [moment / 0.1 for moment in optimizer.first]


@pytest.mark.parametrize("name", EVERY)
def test_predictions_alone_are_predictions_in_company(name):
    task = make_task(name)
    engine = Engine(make_model(task), task, TOKENIZER)
    examples = make_examples(task.parts[0], 15)
    together = list(engine.predict(examples))
    assert len(together) == len(examples)
    for example, found in zip(examples, together, strict=True):
        assert isinstance(found, task.Answer)
        assert close(next(engine.predict([example])).model_dump(), found.model_dump())


def close(one, other):
    """Whether two values agree, numbers but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-3, abs=1e-5)
    return one == other


@pytest.mark.parametrize("name", EVERY)
def test_decode_gives_a_part_a_sequence_and_join_an_answer_that_can_be_written(name):
    task = make_task(name)
    examples = make_examples(task.parts[0], 6)
    groups = [
        Group(i, s)
        for i, s in enumerate(task.features([task.asked(e) for e in examples], TOKENIZER))
    ]
    batch = pack(groups)
    with torch.inference_mode():
        parts = task.decode(task.predict(make_model(task), batch), batch)
    assert len(parts) == len(batch.firsts)
    for i, example in enumerate(examples):
        start, end = batch.groups[i : i + 2].tolist()
        answer = task.join(example, parts[start:end])
        assert task.Answer.model_validate_json(answer.model_dump_json()) == answer
        assert type(example).model_validate_json(example.model_dump_json()) == example
    assert isinstance(dict(task.metrics([], [])), dict)


@pytest.mark.parametrize("name", EVERY)
def test_a_bundle_brings_it_back(name, tmp_path):
    task = make_task(name)
    engine = Engine(make_model(task, make_config(task)), task, TOKENIZER)
    labels = task.labels or None
    card = Card(task=task.name, settings=task.settings, labels=labels, calibration=task.calibration)
    write_bundle(tmp_path, engine.model, TOKENIZER, card)
    opened = Engine.open(tmp_path, torch.device("cpu"), torch.float32)
    assert opened.task.settings == task.settings
    assert opened.task.name == task.name
    examples = make_examples(task.parts[0], 10)
    assert list(opened.predict(examples)) == list(engine.predict(examples))


@pytest.mark.parametrize("name", [*SINGLE, *KINDS])
def test_numbers_of_nothing_tell_what_its_numbers_are_called(name):
    task = make_task(name)
    if not has_answers(name):
        assert task.metrics([], []) == {}
        return
    examples = make_examples(task, 3)
    model = make_model(task)
    predictions = list(Engine(model, task, TOKENIZER).predict(examples))
    assert task.metrics(predictions, examples).keys() == task.metrics([], []).keys() != set()


LEARNED = [name for name in SINGLE if not make_task(name).from_shards]


@pytest.mark.parametrize("name", [name for name in LEARNED if name != "seq2seq"])
def test_more_positions_and_another_folder_change_no_answer(name, tmp_path):
    task = make_task(name)
    engine = Engine(make_model(task), task, TOKENIZER)
    card = Card(task=task.name, settings=task.settings, labels=task.labels or None)
    made = write_bundle(tmp_path / "made", engine.model, TOKENIZER, card)
    api.extend(api.ExtendRecipe(model=made, positions=170, out=tmp_path / "longer"))
    api.convert(api.ConvertRecipe(source=made, out=tmp_path / "there"))
    examples = make_examples(task, 10)
    for folder in ("longer", "there"):
        opened = Engine.open(tmp_path / folder, torch.device("cpu"), torch.float32)
        assert list(opened.predict(examples)) == list(engine.predict(examples))


@pytest.mark.parametrize("name", LEARNED)
def test_only_what_becomes_of_answers_may_change_once_trained(name, tmp_path):
    task = make_task(name)
    assert task.free <= type(task.config).model_fields.keys()
    card = Card(task=task.name, settings=task.settings, labels=task.labels or None)
    made = write_bundle(tmp_path / "made", make_model(task), TOKENIZER, card)
    fixed = next(field for field in type(task.config).model_fields if field not in task.free)
    value = {fixed: getattr(task.config, fixed)}
    with pytest.raises(UserError, match=f"{fixed}' of '{name}' may not change"):
        Engine.open(made, torch.device("cpu"), torch.float32, value)


@pytest.mark.parametrize("name", [n for n in (*SINGLE, *KINDS) if not make_task(n).from_shards])
def test_a_dev_set_of_few_rows_is_told_once_and_one_of_enough_is_not(name):
    task = make_task(name)
    if task.sampled is not None:
        assert task.remarks([], []) == []  # its dev set decides nothing
        return
    for rows, times in ((3, 1), (FEW, 0)):
        pairs = list(Engine(make_model(task), task, TOKENIZER).parts(make_examples(task, rows)))
        examples, parts = zip(*pairs, strict=True)
        task.calibration = task.calibrate(examples, parts)
        said = task.remarks(examples, parts)
        assert sum(f"dev has only {rows} rows" in line for line in said) == times, said
