"""Laws of numbers as answers: their scale changes nothing, and a folder gives the number itself."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from clozeworks import tasks
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.data.batches import Group
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.model.heads import NumberHead
from tiny import DRAW, TOKENIZER, VOCABULARY, gap, make_model

TEXTS = [f"word {'a ' * (i % 5)}{i}" for i in range(24)]
NUMBERS = [float(i % 5) + i / 8 for i in range(24)]


def looked_over(zero=0.0, unit=1.0):
    """A task that has seen numbers on a scale of their own, its rows and its groups."""
    task = tasks.create("classify", {"kind": "regression", "dropout": 0}, VOCABULARY, ["value"])
    labels = [str(zero + unit * number) for number in NUMBERS]
    rows = [task.Example(text=t, label=n) for t, n in zip(TEXTS, labels, strict=True)]
    pairs = zip(task.features(rows, TOKENIZER), rows, strict=True)
    groups = [Group(i, s, task.target(row)) for i, (s, row) in enumerate(pairs)]
    task.look_over(groups)
    return task, rows, groups


def learned(task, groups, steps=12):
    """A model after some steps of Adam, its losses, and its last batch."""
    torch.manual_seed(0)
    model = make_model(task).train()
    model.set_dropout(0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        batch = task.collate(groups, DRAW)
        loss = task.loss(model, batch, DRAW)["classify"] / len(groups)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


@pytest.mark.parametrize(("zero", "unit"), [(1000.0, 128.0), (-3.0, 1 / 64), (0.5, 1.0)])
def test_numbers_are_learned_alike_on_any_scale(zero, unit):
    task, rows, groups = looked_over()
    other, others, scaled = looked_over(zero, unit)
    model, losses = learned(task, groups)
    twin, again = learned(other, scaled)
    assert losses == pytest.approx(again, rel=1e-3)
    assert losses[-1] < 0.9 * losses[0]
    values = [p.value for p in Engine(model, task, TOKENIZER).predict(rows)]
    theirs = [p.value for p in Engine(twin, other, TOKENIZER).predict(others)]
    assert theirs == pytest.approx([zero + unit * value for value in values], abs=0.01 * unit)


def test_a_folder_gives_the_number_itself_and_is_trained_further_from_there(tmp_path):
    task, rows, groups = looked_over(1000.0, 128.0)
    model, _ = learned(task, groups)
    before = [p.value for p in Engine(model, task, TOKENIZER).predict(rows)]
    assert min(before) > 500
    card = Card(task="classify", settings=task.settings, labels=["value"])
    card = card.model_copy(update={"calibration": task.calibrate(rows, _parts(model, task, rows))})
    folder = write_bundle(tmp_path / "m", model, TOKENIZER, card)

    after = Engine.open(folder, torch.device("cpu"), torch.float32).predict(rows)
    assert [p.value for p in after] == pytest.approx(before, rel=1e-5)
    rough = Engine.open(folder, torch.device("cpu"), torch.bfloat16).predict(rows)
    assert [p.value for p in rough] == pytest.approx(before, abs=4.0)

    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = TOKENIZER.encode(rows[3].text, max_length=128).ids
    with torch.inference_mode():
        (said,) = theirs(torch.tensor(ids)[None].long()).logits[0].tolist()
    assert said == pytest.approx(before[3], rel=1e-5)

    others, _, _ = looked_over(3.0, 0.25)
    opened = open_model(open_bundle(folder), others, to_train=True)
    head = opened.model.heads["classify"]
    assert isinstance(head, NumberHead) and head.unit == others.calibration.unit != 1
    found = Engine(opened.model, others, TOKENIZER).predict(rows)
    assert [p.value for p in found] == pytest.approx(before, rel=1e-4)


def test_numbers_hardly_apart_have_a_unit_still():
    task, _, _ = looked_over(1e5, 1e-7)
    assert 0 < task.calibration.unit < 1
    assert gap(torch.tensor(task.calibration.zero), torch.tensor(1e5)) < 1e-3


def _parts(model, task, rows):
    return [parts for _, parts in Engine(model, task, TOKENIZER).parts(rows)]
