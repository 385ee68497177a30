"""Laws of judging a classifier."""

import json

import numpy as np
import pytest

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.evaluation.classify import (
    QUOTED_CHARACTERS,
    QUOTED_ROWS,
    Comparison,
    compare,
    judge,
)
from clozeworks.evaluation.report import write_json
from clozeworks.metrics.calibrate import softmax
from clozeworks.tasks.classify import ClassifyExample, ClassifyPrediction

LABELS = ["退款", "delivery", "other"]
THRESHOLD = 0.6


def judged_rows(count=200, seed=0):
    random = np.random.default_rng(seed)
    gold = random.integers(0, 3, count)
    logits = random.normal(size=(count, 3)) + 2 * np.eye(3)[gold]
    examples = [
        ClassifyExample(text=f"text {i} " + "字" * (i % 400), label=LABELS[g])
        for i, g in enumerate(gold)
    ]
    predictions = []
    for chances in softmax(logits):
        best = int(chances.argmax())
        predictions.append(
            ClassifyPrediction(
                label=LABELS[best] if chances[best] >= THRESHOLD else None,
                best=LABELS[best],
                confidence=float(chances[best]),
                scores=dict(zip(LABELS, chances.tolist(), strict=True)),
            )
        )
    return predictions, examples


@pytest.fixture(scope="module")
def evaluation():
    predictions, examples = judged_rows()
    return judge(predictions, examples, LABELS, Calibration(threshold=THRESHOLD), name="模型")


def test_the_parts_agree_with_each_other(evaluation):
    right = evaluation.marks.count("1")
    answers = evaluation.answers
    assert len(evaluation.marks) == evaluation.metrics.rows == 200
    assert evaluation.accuracy.estimate == evaluation.metrics.accuracy == right / 200
    assert answers.answered + answers.unanswered == 200
    assert answers.answered_right + answers.unanswered_right == right
    assert sum(b.rows for b in evaluation.reliability) == 200
    at_threshold = next(
        accuracy
        for t, accuracy in reversed(
            list(zip(evaluation.coverage.threshold, evaluation.coverage.accuracy, strict=True))
        )
        if t >= THRESHOLD
    )
    assert at_threshold == pytest.approx(answers.accuracy)


def test_quoted_rows_are_the_surest_of_their_kind(evaluation):
    predictions, examples = judged_rows()
    wrong = [
        p.confidence
        for p, e in zip(predictions, examples, strict=True)
        if p.label is not None and p.label != e.label
    ]
    assert [m.confidence for m in evaluation.mistakes] == sorted(wrong)[::-1][:QUOTED_ROWS]
    for quoted in (*evaluation.mistakes, *evaluation.unanswered):
        example, prediction = examples[quoted.row - 1], predictions[quoted.row - 1]
        assert quoted.gold == example.label and quoted.best == prediction.best
        assert len(quoted.text) <= QUOTED_CHARACTERS
        assert example.text.startswith(quoted.text.removesuffix("…"))
    assert all(row.confidence < THRESHOLD for row in evaluation.unanswered)


def test_json_holds_the_evaluation_whole(evaluation, tmp_path):
    path = tmp_path / "judged.json"
    write_json(path, compare([evaluation, evaluation]))
    text = path.read_text("utf-8")
    assert "退款" in text
    read = Comparison.model_validate(json.loads(text))
    assert read.evaluations == [evaluation, evaluation]
    assert not read.differences[0].clear


def test_nothing_answered_is_judged():
    predictions, examples = judged_rows(20)
    silent = [p.model_copy(update={"label": None}) for p in predictions]
    answers = judge(silent, examples, LABELS).answers
    assert (answers.coverage, answers.accuracy) == (0, None)


def test_bad_rows_are_named():
    predictions, examples = judged_rows(5)
    unlabelled = [*examples[:2], ClassifyExample(text="x"), *examples[3:]]
    with pytest.raises(UserError, match="row 3 has no label"):
        judge(predictions, unlabelled, LABELS)
    with pytest.raises(UserError, match="5 predictions cannot judge 4 rows"):
        judge(predictions, examples[:4], LABELS)
    with pytest.raises(UserError, match="no rows"):
        judge([], [], LABELS)
    with pytest.raises(UserError, match="disagree on 'refund'"):
        judge(predictions, examples, [*LABELS, "refund"])
    stranger = [*examples[:4], ClassifyExample(text="x", label="delivry")]
    with pytest.raises(UserError, match=r"row 5: label 'delivry'.*did you mean 'delivery'"):
        judge(predictions, stranger, LABELS)
