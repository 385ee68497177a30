"""Laws of making tasks, joined ones included, and of what classes and pairs are answered."""

import math

import numpy as np
import pytest
import torch

from clozeworks import tasks
from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.tasks.nsp import NspExample
from tiny import DRAW, LABELS, TOKENIZER, VOCABULARY, gap, make_groups, make_model, make_task


def test_unknown_names_and_settings_suggest_the_nearest():
    with pytest.raises(UserError, match="'clasify' is not known; did you mean 'classify'"):
        tasks.create("clasify", {}, VOCABULARY)
    with pytest.raises(UserError, match="unknown key 'max_lenght'; did you mean 'max_length'"):
        tasks.create("classify", {"max_lenght": 9}, VOCABULARY, LABELS)
    with pytest.raises(UserError, match="max_length = 3"):
        tasks.create("classify", {"max_length": 3}, VOCABULARY, LABELS)


@pytest.mark.parametrize("name", ["mlm+classify", "mlm+mlm", "classify+nsp"])
def test_what_cannot_be_joined_is_refused(name):
    with pytest.raises(UserError, match="cannot join"):
        tasks.create(name, {}, VOCABULARY, LABELS)


def test_a_joint_task_takes_its_parts_settings_and_no_others():
    task = tasks.create("mlm+nsp", {"mlm": {"rate": 0.4}}, VOCABULARY)
    assert task.settings["mlm"]["rate"] == 0.4
    assert tasks.create("mlm+nsp", task.settings, VOCABULARY).settings == task.settings
    with pytest.raises(UserError, match="'rate' is not known"):
        tasks.create("mlm+nsp", {"rate": 0.4}, VOCABULARY)
    with pytest.raises(UserError, match="unknown key 'rat'"):
        tasks.create("mlm+nsp", {"mlm": {"rat": 0.4}}, VOCABULARY)
    with pytest.raises(UserError, match=r"mlm = 5; .*\[settings\.mlm\]"):
        tasks.create("mlm+nsp", {"mlm": 5}, VOCABULARY)


def test_a_joint_loss_is_the_losses_of_its_parts():
    joint = make_task("mlm+nsp")
    model = make_model(joint)
    groups = make_groups()
    batch = joint.collate(groups, DRAW)
    together = joint.loss(model, batch, DRAW)
    assert list(together) == ["mlm", "nsp"] == list(joint.counts(batch))
    for name in together:
        part = make_task(name)
        for target, tensor in part.collate(groups, DRAW).targets.items():
            assert torch.equal(tensor, batch.targets[target])
        assert gap(part.loss(model, batch, DRAW)[name], together[name]) < 1e-5
    assert joint.pairs and joint.from_shards and joint.counts(batch)["nsp"] == len(groups)
    assert not make_task("mlm").pairs


def test_a_joint_task_predicts_as_its_first_part():
    joint = make_task("mlm+nsp")
    assert joint.Example is make_task("mlm").Example
    assert make_task("nsp+mlm").Example is make_task("nsp").Example


# === classify ===


def parts_of(*logits):
    task = make_task("classify")
    batch = task.collate(make_groups([5] * len(logits), classes=3), DRAW)
    return task, task.decode({"logits": torch.tensor(logits)}, batch)


def test_the_answer_is_the_likeliest_class_or_nothing():
    task, parts = parts_of([2.0, 1.0, 0.0], [0.0, 0.1, 0.2])
    for threshold, answers in ((0.0, ["退款", "other"]), (0.5, ["退款", None]), (0.9, [None] * 2)):
        task.calibration = Calibration(threshold=threshold)
        found = [task.join(ClassifyExample(text="x"), [part]) for part in parts]
        assert [p.label for p in found] == answers
        assert [p.best for p in found] == ["退款", "other"]
        for prediction in found:
            assert list(prediction.scores) == LABELS
            assert sum(prediction.scores.values()) == pytest.approx(1)
            assert prediction.confidence == max(prediction.scores.values())


def test_a_confidence_at_the_threshold_is_answered():
    task, parts = parts_of([2.0, 1.0, 0.0])
    exactly = max(parts[0]["probs"])
    task.calibration = Calibration(threshold=exactly)
    assert task.join(ClassifyExample(text="x"), parts[:1]).label == "退款"
    task.calibration = Calibration(threshold=math.nextafter(exactly, 1))
    assert task.join(ClassifyExample(text="x"), parts[:1]).label is None


def test_temperature_moves_confidence_and_not_the_answer():
    task, cold = parts_of([2.0, 1.0, 0.0])
    batch = task.collate(make_groups([5], classes=3), DRAW)
    task.calibration = Calibration(temperature=4.0)
    hot = task.decode({"logits": torch.tensor([[2.0, 1.0, 0.0]])}, batch)
    assert max(hot[0]["probs"]) < max(cold[0]["probs"])
    assert np.argsort(hot[0]["probs"]).tolist() == np.argsort(cold[0]["probs"]).tolist()
    expected = torch.softmax(torch.tensor([0.5, 0.25, 0.0]), -1).tolist()
    assert hot[0]["probs"] == pytest.approx(expected)
    assert hot[0]["logits"] == cold[0]["logits"]


def test_calibration_is_fitted_on_what_was_decoded():
    task, _ = parts_of([0.0, 0.0, 0.0])
    random = np.random.default_rng(0)
    gold = random.integers(0, 3, 300)
    logits = 8 * random.normal(size=(300, 3)) + 4 * np.eye(3)[gold]
    examples = [ClassifyExample(text="x", label=LABELS[g]) for g in gold]
    fitted = task.calibrate(examples, [[{"logits": row.tolist()}] for row in logits])
    assert fitted.temperature > 2
    assert 0 < fitted.threshold < 1
    always = tasks.create("classify", {"target": 0}, VOCABULARY, LABELS)
    assert always.calibrate(examples, [[{"logits": r.tolist()}] for r in logits]).threshold == 0


def test_a_label_never_seen_is_an_error_with_the_nearest():
    task = make_task("classify")
    assert task.target(ClassifyExample(text="x")) == -1
    assert [task.target(ClassifyExample(text="x", label=name)) for name in LABELS] == [0, 1, 2]
    with pytest.raises(UserError, match=r"'delivry' was never seen.*did you mean 'delivery'"):
        task.target(ClassifyExample(text="x", label="delivry"))


def test_texts_and_pairs_may_be_mixed_and_what_is_cut_is_counted():
    task = tasks.create("classify", {"max_length": 8}, VOCABULARY, LABELS)
    examples = [
        ClassifyExample(text="where is my parcel"),
        ClassifyExample(text="where is my parcel", text_pair="late late late late late"),
        ClassifyExample(text="lost " * 20),
    ]
    groups = task.features(examples, TOKENIZER)
    assert [len(s) for (s,) in groups] == [6, 8, 8]
    assert [s.truncated for (s,) in groups] == [0, 4, 14]
    assert [int(s.segments.max()) for (s,) in groups] == [0, 1, 0]
    plain = task.features(examples[:1], TOKENIZER)
    assert plain[0][0].ids.tolist() == groups[0][0].ids.tolist()


def test_accuracy_counts_the_best_class():
    task = make_task("classify")
    examples = [ClassifyExample(text="x", label=name) for name in LABELS]
    found = [
        task.Answer(label=None, best=best, confidence=0.5, scores={})
        for best in ("退款", "other", "other")
    ]
    assert task.metrics(found, examples) == {"accuracy": pytest.approx(2 / 3)}
    assert task.metrics([], []) == {"accuracy": 0}


# === nsp ===


def test_next_sentence_answers_and_targets():
    task = make_task("nsp")
    pair = {"text": "my parcel", "text_pair": "is late"}
    targets = [task.target(NspExample(**pair, label=label)) for label in ("next", "random", None)]
    assert targets == [0, 1, -1]
    ((sequence,),) = task.features([NspExample(**pair)], TOKENIZER)
    assert sequence.segments.tolist() == [0, 0, 0, 0, 1, 1, 1]
    batch = task.collate(make_groups([5, 5]), DRAW)
    parts = task.decode({"logits": torch.tensor([[3.0, 0.0], [0.0, 3.0]])}, batch)
    found = [task.join(NspExample(**pair), [part]) for part in parts]
    assert [p.label for p in found] == ["next", "random"]
    assert found[0].probability == pytest.approx(1 / (1 + math.exp(-3)))
    assert found[0].probability + found[1].probability == pytest.approx(1)
    examples = [NspExample(**pair, label="next")] * 2
    assert task.metrics(found, examples) == {"accuracy": 0.5}
