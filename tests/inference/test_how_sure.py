"""Laws of the settings that say how sure is sure enough: they go before what dev has told."""

import pytest
import torch

from clozeworks import tasks
from clozeworks.core.bundle import Calibration, Card
from clozeworks.core.errors import UserError
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from tiny import TOKENIZER, make_examples, make_model, make_task

CPU = torch.device("cpu")


def labels_of(answer):
    return [] if answer.label is None else [answer.label]


GIVEN = {
    "classify": ("threshold", labels_of),
    "classify:multi": ("threshold", lambda answer: answer.labels),
    "tag:nested": ("threshold", lambda answer: answer.entities),
    "qa": ("margin", lambda answer: [] if answer.answer is None else [answer.answer]),
}
"""The setting of a kind of task, and what its model gave a row."""
ENDS = {"threshold": (0.05, 1.0), "margin": (1e9, -1e9)}
"""Values with which as much as can be is given, and nothing."""


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("told", ["much", "nothing"])
def test_the_setting_decides_whatever_dev_has_told(name, told, tmp_path):
    task, (setting, given) = make_task(name), GIVEN[name]
    strict = told == "nothing"  # what dev is made to have told
    least = ENDS["threshold"][strict]
    each = None if name in ("classify", "qa") else [least] * len(task.labels)
    task.calibration = Calibration(threshold=least, thresholds=each, margin=ENDS["margin"][strict])
    card = Card(
        task=task.name, settings=task.settings, labels=task.labels, calibration=task.calibration
    )
    write_bundle(tmp_path, make_model(task), TOKENIZER, card)
    rows = make_examples(task, 8)
    for least, value in zip(("much", "nothing"), ENDS[setting], strict=True):
        engine = Engine.open(tmp_path, CPU, torch.float32, {setting: value})
        counts = [len(given(answer)) for answer in engine.predict(rows)]
        assert all(counts) if least == "much" else not any(counts)


def test_calibrating_in_training_leaves_what_is_set():
    task = tasks.create("classify", {"threshold": 0.7}, TOKENIZER.vocabulary, ["a", "b"])
    assert task.as_set(Calibration(temperature=2.0, threshold=0.1)) == Calibration(
        temperature=2.0, threshold=0.7
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("classify", {"threshold": 1.5}, "threshold"),
        ("classify", {"kind": "regression", "threshold": 0.5}, "threshold is about classes"),
        ("tag", {"threshold": 0.5}, "threshold is about nested entities"),
        ("tag", {"threshold": 0.01, "nested": True}, "greater than or equal to 0.05"),
    ],
)
def test_it_is_refused_where_nothing_has_it(name, settings, message):
    with pytest.raises(UserError, match=message):
        tasks.create(name, settings, TOKENIZER.vocabulary, ["1", "2"])
