"""Laws of making tasks, joined ones included, and of what classes and pairs are answered."""

import math

import numpy as np
import pytest
import torch

from clozeworks import tasks
from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.tasks.nsp import NspExample
from clozeworks.tasks.sop import SopExample
from tiny import DRAW, LABELS, TOKENIZER, VOCABULARY, gap, make_groups, make_model, make_task


def test_unknown_names_and_settings_suggest_the_nearest():
    with pytest.raises(UserError, match="'clasify' is not known; did you mean 'classify'"):
        tasks.create("clasify", {}, VOCABULARY)
    with pytest.raises(UserError, match="unknown key 'max_lenght'; did you mean 'max_length'"):
        tasks.create("classify", {"max_lenght": 9}, VOCABULARY, LABELS)
    with pytest.raises(UserError, match="max_length = 3"):
        tasks.create("classify", {"max_length": 3}, VOCABULARY, LABELS)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mlm+classify", "join different pretraining objectives"),
        ("mlm+mlm", "join different pretraining objectives"),
        ("classify+nsp", "join different pretraining objectives"),
        ("mlm+nsp+sop", "nsp and sop need different pairs of segments; choose one"),
        ("mlm+rtd", "rtd brings mlm of its own; leave mlm out"),
        ("rtd+mlm+sop", "rtd brings mlm of its own; leave mlm out"),
    ],
)
def test_what_cannot_be_joined_is_refused(name, why):
    with pytest.raises(UserError, match=f"cannot join .*{why}"):
        tasks.create(name, {}, VOCABULARY, LABELS)


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({"nps": 1.0}, r"weight of 'nps' is not known; did you mean 'nsp'\? \(choices: mlm, nsp\)"),
        ({"rtd": 1.0}, "weight of 'rtd' is not known"),
        ({"nsp": -0.1}, "weight of nsp = -0.1 must be 0 or more"),
        ({"nsp": math.inf}, "weight of nsp = inf must be 0 or more"),
        ({"nsp": math.nan}, "weight of nsp = nan must be 0 or more"),
        ({"mlm": 0, "nsp": 0}, "every weight is 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, why):
    with pytest.raises(UserError, match=why):
        tasks.create("mlm+nsp", {}, VOCABULARY, weights=weights)


def test_weights_are_1_unless_an_objective_or_a_person_says_otherwise():
    assert tasks.create("mlm+nsp", {}, VOCABULARY).weights == {"mlm": 1, "nsp": 1}
    assert make_task("classify").weights == {"classify": 1}
    joint = tasks.create("rtd+sop", {}, VOCABULARY, weights={"sop": 0, "mlm": 2})
    assert joint.weights == {"mlm": 2, "rtd": 50, "sop": 0}


def test_replaced_tokens_may_be_joined_with_pairs():
    """One pass of the generator, one of the discriminator, which also reads the pair."""
    joint = make_task("rtd+sop")
    model = make_model(joint)
    groups = make_groups()
    batch = joint.collate(groups, DRAW)
    together = joint.loss(model, batch, DRAW)
    assert set(together) == {"mlm", "rtd", "sop"} == set(joint.counts(batch))
    alone = make_task("rtd").loss(model, batch, DRAW)
    for name in alone:
        assert gap(alone[name], together[name]) < 1e-5
    read, _ = make_task("rtd").begin(model, batch)
    assert gap(make_task("sop").loss(model, read, DRAW)["sop"], together["sop"]) < 1e-5


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
    assert joint.from_shards and joint.counts(batch)["nsp"] == len(groups)
    names = {"mlm": "none", "rtd": "none", "nsp": "next", "mlm+nsp": "next", "mlm+sop": "order"}
    assert {name: make_task(name).pairs for name in names} == names


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
    macro = (1 + 0 + 2 / 3) / 3
    wanted = {"accuracy": pytest.approx(2 / 3), "macro_f1": pytest.approx(macro)}
    assert task.metrics(found, examples) == wanted
    assert task.metrics([], []) == {"accuracy": 0, "macro_f1": 0}


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


# === sop ===


def test_sentence_order_answers_and_targets():
    """1 is swapped, as Hugging Face's ALBERT numbers them; what is not known counts for nothing."""
    task = make_task("sop")
    pair = {"text": "my parcel", "text_pair": "is late"}
    targets = [
        task.target(SopExample(**pair, label=label)) for label in ("ordered", "swapped", None)
    ]
    assert targets == [0, 1, -1]
    groups = [Group(i, make_groups()[i].sequences, t) for i, t in enumerate(targets)]
    assert task.counts(task.collate(groups, DRAW)) == {"sop": 2}
    parts = task.decode({"logits": torch.tensor([[3.0, 0.0], [0.0, 3.0]])}, pack(groups[:2]))
    found = [task.join(SopExample(**pair), [part]) for part in parts]
    assert [p.label for p in found] == ["ordered", "swapped"]
    assert found[0].probability == pytest.approx(1 / (1 + math.exp(-3)))
    with pytest.raises(ValueError, match="label"):
        SopExample(**pair, label="next")


def test_a_pair_with_nothing_to_tell_changes_no_loss():
    task = make_task("sop")
    model, groups = make_model(task), make_groups()
    some = [Group(g.index, g.sequences, -1 if g.index == 3 else g.target) for g in groups]
    without = [g for g in some if g.target >= 0]
    losses = [task.loss(model, task.collate(g, DRAW), DRAW)["sop"] for g in (some, without)]
    assert gap(losses[0], losses[1]) < 1e-5
