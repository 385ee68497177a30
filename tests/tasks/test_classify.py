"""Laws of the kinds of classification: one class, paths, any number of labels, numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from clozeworks import tasks
from clozeworks.core.bundle import Calibration, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group
from clozeworks.evaluation.classify import judge
from clozeworks.evaluation.reports.classify import Classify
from clozeworks.inference.engine import Engine
from clozeworks.metrics.labels import (
    FEWEST,
    fit_label_temperature,
    fit_label_thresholds,
    label_metrics,
    sigmoid,
)
from clozeworks.metrics.levels import ancestors, closed, raised, summed
from clozeworks.model.families.bert import Bert
from clozeworks.model.losses import balanced_classes, balanced_labels, class_loss, label_loss
from clozeworks.tasks.classify import ClassifyExample, ClassifyPrediction
from tiny import (
    CONFIG,
    LABELS,
    PATHS,
    TOKENIZER,
    VOCABULARY,
    gap,
    make_examples,
    make_model,
    make_task,
)

CPU = torch.device("cpu")


def classifier(labels=(), **settings):
    return tasks.create("classify", settings, VOCABULARY, labels)


# === Losses ===

LOGITS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 3
GOLD = torch.arange(40) % 5
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.1])


def test_the_class_loss_is_the_mean_of_torch_times_what_is_counted():
    for smoothing in (0.0, 0.2):
        ours = class_loss(LOGITS, GOLD, WEIGHTS, smoothing=smoothing) / WEIGHTS[GOLD].sum()
        theirs = F.cross_entropy(LOGITS, GOLD, WEIGHTS, label_smoothing=smoothing)
        assert gap(ours, theirs) < 1e-6


def test_focus_counts_a_row_less_the_surer_it_is_right():
    p = torch.softmax(LOGITS, -1)[range(40), GOLD]
    wanted = (-p.log() * (1 - p) ** 2).sum()
    assert gap(class_loss(LOGITS, GOLD, focus=2.0), wanted) < 1e-5
    gold = (LOGITS.flip(0) > 0).float()
    q = torch.where(gold > 0, torch.sigmoid(LOGITS), torch.sigmoid(-LOGITS))
    assert gap(label_loss(LOGITS, gold, focus=1.5), (-q.log() * (1 - q) ** 1.5).sum()) < 1e-5
    assert gap(class_loss(LOGITS, GOLD, focus=1e-9), class_loss(LOGITS, GOLD)) < 1e-6


@pytest.mark.parametrize("focus", [0.5, 1.0, 2.0])
def test_what_is_sure_has_a_gradient_of_nothing_and_not_of_no_number(focus):
    sure = torch.tensor([[40.0, 0.0]], requires_grad=True)
    for loss, gold in ((class_loss, torch.tensor([0])), (label_loss, torch.tensor([[1.0, 0.0]]))):
        (slope,) = torch.autograd.grad(loss(sure, gold, focus=focus), sure)
        assert slope.isfinite().all() and slope[0, 0].abs() < 1e-6


def test_smoothed_labels_are_learned_towards_one_half():
    logit = torch.zeros(1, 1, requires_grad=True)
    for _ in range(500):
        loss = label_loss(logit, torch.ones(1, 1), smoothing=0.2)
        (slope,) = torch.autograd.grad(loss, logit)
        logit = (logit - slope).detach().requires_grad_()
    assert torch.sigmoid(logit).item() == pytest.approx(0.9, abs=1e-3)


def test_balanced_classes_count_alike_and_absent_ones_are_left_alone():
    gold = torch.tensor([0] * 90 + [1] * 9 + [3])
    weights = balanced_classes(gold, 4)
    totals = torch.bincount(gold, minlength=4) * weights
    assert torch.allclose(totals[[0, 1, 3]], torch.tensor(25.0))
    assert weights[2] == 1
    there = torch.tensor([[1.0, 0, 0]] * 3 + [[0, 0, 1]] * 1)
    assert balanced_labels(there).tolist() == pytest.approx([1 / 3, 1, 3])


def test_balanced_training_divides_by_what_its_rows_weigh():
    task = make_task("classify:paths")
    groups = [Group(i, [], i % 7 % 3) for i in range(21)]
    task.look_over(groups)
    weights = balanced_classes(torch.tensor([g.target for g in groups]), 3)
    gold = torch.tensor([0, 2, 2])
    assert task.answer.count(gold) == pytest.approx(float(weights[gold].sum()))
    assert task.answer.count(gold) != 3


# === Paths ===

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("##".join)


@given(st.dictionaries(NAMES, st.floats(0.01, 1), min_size=1))
def test_the_probability_of_a_level_is_that_of_all_below_it(scores):
    whole = sum(scores.values())
    chances = {name: value / whole for name, value in scores.items()}
    levels = summed(chances, "##")
    tops = [value for name, value in levels.items() if "##" not in name]
    assert sum(tops) == pytest.approx(1)
    for name, value in levels.items():
        under = sum(c for label, c in chances.items() if (label + "##").startswith(name + "##"))
        assert value == pytest.approx(under)
    lifted = raised(chances, "##")
    assert all(
        lifted[level] >= lifted[n]
        for n in lifted
        for level in ancestors(n, "##")
        if level in lifted
    )
    assert all(lifted[name] >= chances[name] for name in chances)


def test_the_answer_is_the_deepest_level_that_is_sure_enough():
    task = make_task("classify:paths")
    example = task.Example(text="lamp")
    part = {"probs": [0.45, 0.4, 0.15]}
    answers = []
    for threshold in (0.4, 0.6, 0.9):
        task.calibration = Calibration(threshold=threshold)
        answers.append(task.join(example, [part]))
    assert [a.label for a in answers] == ["a##b", "a", None]
    assert {a.best for a in answers} == {"a##b"}
    assert [(x.label, pytest.approx(x.confidence)) for x in answers[0].path] == [
        ("a", 0.85),
        ("a##b", 0.45),
    ]
    wanted = {"accuracy": 0.0, "macro_f1": 0.0, "top_accuracy": 1.0}
    assert task.metrics(answers[:1], [task.Example(text="x", label="a##c")]) == wanted


def test_labels_that_are_paths_bring_every_level_along():
    task = classifier(kind="multi", levels="##")
    rows = [task.Example(text="x", label="a##b|d"), task.Example(text="y", label=["a##c"])]
    assert task.labels_in(rows) == ["a", "a##b", "a##c", "d"]
    full = classifier(task.labels_in(rows), kind="multi", levels="##")
    assert full.target(rows[0]).tolist() == [1, 1, 0, 1]
    answer = full.join(rows[0], [{"probs": [0.1, 0.8, 0.2, 0.3]}])
    assert answer.labels == ["a", "a##b"] and answer.scores["a"] == 0.8
    assert closed(["a##b##c"], "##") == ["a", "a##b", "a##b##c"]


# === Any number of labels ===


def test_a_cell_and_a_list_teach_the_same_and_an_empty_one_that_none_is_there():
    task = classifier(["a", "b", "c"], kind="multi", separator=";")
    rows = [task.Example(text="x", label=x) for x in ("a; c", ["c ", "a"], [], None)]
    assert task.target(rows[0]).tolist() == task.target(rows[1]).tolist() == [1, 0, 1]
    assert task.target(rows[2]).tolist() == [0, 0, 0]
    assert list(map(task.is_labelled, rows)) == [True, True, True, False]
    single = classifier(["a", "b"])
    assert list(map(single.is_labelled, rows)) == [True, True, False, False]
    assert single.target(task.Example(text="x", label=["b"])) == 1
    listed = [task.Example(text=c, label=[c]) for c in "ab"]
    given = [single.join(row, [{"probs": [row.text == c for c in "ab"]}]) for row in listed]
    assert single.metrics(given, listed) == {"accuracy": 1.0, "macro_f1": 1.0}
    assert judge(given, listed, ["a", "b"], single.calibration).metrics.accuracy == 1
    parts = [[{"logits": [9.0, 0.0]}], [{"logits": [0.0, 9.0]}]]
    assert "100.0% of that right" in single.remarks(listed, parts)[0]


@given(st.integers(0, 2**20), st.integers(8, 40))
def test_a_threshold_has_the_best_f1_there_is(seed, rows):
    chance = np.random.default_rng(seed)
    chances = np.round(chance.random((rows, 1)), 1)
    gold = (chance.random((rows, 1)) < chances).astype(int)
    (threshold,) = fit_label_thresholds(chances, gold)
    if gold.sum() < FEWEST:
        assert threshold == 0.5
        return

    def f1(at):
        return label_metrics(gold > 0, chances >= at, ["x"]).micro.f1

    assert f1(threshold) == pytest.approx(max(f1(at) for at in np.unique(chances)))


def test_the_temperature_is_where_the_likelihood_is_largest():
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(400, 3)) * 4
    gold = (chance.random((400, 3)) < sigmoid(logits, 2.5)).astype(int)
    found = fit_label_temperature(logits, gold)
    assert found == pytest.approx(2.5, rel=0.25)

    def loss(temperature):
        p = np.clip(sigmoid(logits, temperature), 1e-12, 1 - 1e-12)
        soft = np.where(gold > 0, 401 / 402, 1 / 402)
        return -np.mean(soft * np.log(p) + (1 - soft) * np.log(1 - p))

    assert loss(found) <= min(loss(found * 1.05), loss(found / 1.05))


def test_label_metrics_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    chance = np.random.default_rng(1)
    gold, given = chance.random((60, 4)) < 0.4, chance.random((60, 4)) < 0.5
    found = label_metrics(gold, given, list("abcd"))
    assert found.exact == accuracy_score(gold, given)
    for name in ("micro", "macro"):
        theirs = precision_recall_fscore_support(gold, given, average=name)[:3]
        ours = getattr(found, name)
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx(theirs)


def test_labels_are_given_from_their_own_thresholds_on():
    task = classifier(["a", "b"], kind="multi")
    task.calibration = Calibration(thresholds=[0.9, 0.2])
    answer = task.join(task.Example(text="x"), [{"probs": [0.8, 0.3]}])
    assert answer.labels == ["b"] and answer.scores == {"a": 0.8, "b": 0.3}


# === Beside transformers ===


@pytest.mark.parametrize(
    ("kind", "labels"), [("multi", LABELS), ("regression", ["value"]), ("single", LABELS)]
)
def test_a_folder_of_theirs_is_the_kind_it_says_and_its_loss_is_theirs(kind, labels, tmp_path):
    names = {"multi": "multi_label", "single": "single_label"}
    problem = f"{names[kind]}_classification" if kind in names else kind
    values = {**Bert().values(CONFIG), "id2label": dict(enumerate(labels))}
    theirs = BertForSequenceClassification(BertConfig(**values, problem_type=problem)).eval()
    theirs.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    engine = Engine.open(tmp_path, CPU, torch.float32)
    assert engine.task.config.kind == kind
    engine.model.eval()
    task = tasks.create("classify", {"kind": kind, "dropout": 0.0}, VOCABULARY, labels)
    examples = make_examples(task, 6)
    features = task.features(examples, TOKENIZER)
    targets = [task.target(example) for example in examples]
    for group, target, example in zip(features, targets, examples, strict=True):
        batch = task.collate([Group(0, group, target)], None)
        ids, gold = batch.input_ids[None], batch.targets["label"]
        out = theirs(ids, token_type_ids=batch.segments[None], labels=gold)
        ours = task.loss(engine.model, batch, None)["classify"] / task.counts(batch)["classify"]
        assert float(ours.detach()) == pytest.approx(float(out.loss.detach()), rel=1e-5, abs=1e-6)
        answer = next(engine.predict([example]))
        if kind == "regression":
            assert answer.value == pytest.approx(float(out.logits.detach()), abs=1e-5)
        if kind == "multi":
            chances = torch.sigmoid(out.logits[0]).tolist()
            assert list(answer.scores.values()) == pytest.approx(chances, abs=1e-5)
            assert set(answer.labels) == {
                n for n, c in zip(LABELS, chances, strict=True) if c >= 0.5
            }


def test_an_unknown_kind_is_refused(tmp_path):
    values = {**Bert().values(CONFIG), "problem_type": "poetry"}
    BertForSequenceClassification(BertConfig(**values)).save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    assert open_bundle(tmp_path)
    with pytest.raises(UserError, match=r"problem_type 'poetry' is not known .*regression"):
        Engine.open(tmp_path, CPU, torch.float32)


# === What is said and kept ===


@given(st.permutations(["1", "nan", "-3", "2.5", "inf", "b", "a"]))
def test_labels_have_one_order_whatever_order_they_come_in(labels):
    task = classifier()
    rows = [task.Example(text="x", label=label) for label in labels]
    assert task.labels_in(rows) == ["-3", "1", "2.5", "a", "b", "inf", "nan"]


@pytest.mark.parametrize("name", ["classify", "classify:multi", "classify:paths"])
def test_what_is_said_of_the_calibration_is_what_comes_of_it(name):
    task = make_task(name)
    rows = make_examples(task, 60)
    model = make_model(task)
    for parameter in model.heads["classify"].parameters():
        parameter.data *= 9
    engine = Engine(model, task, TOKENIZER)
    examples, parts = zip(*engine.parts(rows), strict=True)
    task.calibration = task.calibrate(examples, parts)
    said = task.remarks(examples, parts)[0]
    given_now = list(engine.predict(rows))
    if name == "classify:multi":
        assert f"micro F1 {task.metrics(given_now, rows)['micro_f1']:.4f}" in said
        return
    answered = sum(answer.label is not None for answer in given_now) / len(rows)
    assert f"{answered:.1%} of dev answered" in said
    judged = Classify().judge(task, given_now, rows, "m")
    right = judged.answers.answered_right / max(1, judged.answers.answered)
    assert f"{right:.1%} of that right" in said


def test_thresholds_of_paths_are_fitted_on_what_they_are_compared_with():
    labels = ["a", "a##b", "c"]
    task = classifier(labels, kind="multi", levels="##")
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(200, 3)) * 2
    rows = [
        task.Example(text="x", label=[n for n, z in zip(labels, row, strict=True) if z > noise])
        for row, noise in zip(logits, chance.normal(size=200), strict=True)
    ]
    parts = [[{"logits": row.tolist()}] for row in logits]
    task.calibration = task.calibrate(rows, parts)
    probs = task.answer.probs(torch.tensor(logits), task.calibration).tolist()
    best = task.metrics([task.answer.prediction(p, task.calibration) for p in probs], rows)
    temperature = task.calibration.temperature
    gold = np.array([task.target(row) for row in rows])
    bare = fit_label_thresholds(sigmoid(logits, temperature), gold)
    other = Calibration(temperature=temperature, thresholds=bare)
    worse = task.metrics([task.answer.prediction(p, other) for p in probs], rows)
    assert best["macro_f1"] > worse["macro_f1"]


def test_a_level_above_the_class_is_a_right_answer():
    gold = ["a##b", "a##b", "d"]
    answers = [("a", "a##c"), ("a##c", "a##c"), (None, "a##b")]
    examples = [ClassifyExample(text="x", label=label) for label in gold]
    scores = dict.fromkeys(["a##b", "a##c", "d"], 1 / 3)
    predictions = [
        ClassifyPrediction(label=label, best=best, confidence=0.5, scores=scores)
        for label, best in answers
    ]
    found = judge(predictions, examples, list(scores), levels="##")
    assert (found.answers.answered, found.answers.answered_right) == (2, 1)
    assert [row.row for row in found.mistakes] == [2]
    assert found.metrics.accuracy == 0
    assert [(x.level, x.rows, x.right) for x in found.levels] == [(1, 3, 2), (2, 2, 0)]


# === What is refused ===


def test_an_empty_level_and_equal_signs_are_refused():
    for label in ("##c", "a##", "##"):
        task = classifier(levels="##")
        with pytest.raises(UserError, match="has an empty level"):
            task.check(task.Example(text="x", label=label))
    for label in ("a > b", "a> b", "a >b"):
        with pytest.raises(UserError, match=r"has white space beside '>'.*--levels ' > '"):
            classifier(levels=">").check(task.Example(text="x", label=label))
    classifier(levels=" > ").check(task.Example(text="x", label="a > b"))
    with pytest.raises(UserError, match="levels and separator are both"):
        classifier(levels="|")
    with pytest.raises(UserError, match="separator is between several labels; give --kind multi"):
        classifier(separator=";")


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        ({}, [["a", "b"]], r"several labels \(a, b\); use --kind multi"),
        ({}, ["a", "a"], "a single label 'a'; two or more"),
        ({"kind": "multi"}, ["", None], "no row has a label"),
        ({"kind": "regression"}, ["1", "many"], "label 'many' is no number"),
        ({"kind": "regression"}, ["inf"], "label 'inf' is no number"),
        ({"kind": "regression"}, ["1e9"], "label '1e9' is too large to be learned"),
        ({"kind": "regression"}, ["2", "2.0"], "the same number"),
    ],
)
def test_labels_that_teach_nothing_are_refused(settings, labels, message):
    task = classifier(**settings)
    with pytest.raises(UserError, match=message):
        task.labels_in([task.Example(text="x", label=label) for label in labels])


@pytest.mark.parametrize("name", ["levels", "class_weights", "smoothing", "focus"])
def test_regression_has_no_classes_to_treat_so(name):
    value = {"levels": "##", "class_weights": "balanced", "smoothing": 0.1, "focus": 1}[name]
    with pytest.raises(UserError, match=f"{name} is about classes"):
        classifier(kind="regression", **{name: value})


def test_white_space_around_a_label_makes_no_other_class():
    task = make_task("classify", ["late", "lost"])
    rows = [task.Example(text="a", label=label) for label in ("late ", " late", ["late "], "lost")]
    assert task.labels_in(rows) == ["late", "lost"]
    assert [task.target(row) for row in rows] == [0, 0, 0, 1]
    assert not task.is_labelled(task.Example(text="a", label="  "))
    with pytest.raises(UserError, match="no label"):
        task.check(task.Example(text="a", label="  "))


def test_a_label_never_seen_is_named():
    task = classifier(PATHS, kind="multi")
    with pytest.raises(UserError, match="label 'a##x' was never seen in training"):
        task.target(task.Example(text="x", label="d|a##x"))
