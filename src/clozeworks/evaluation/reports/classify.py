"""The report of a classifier: of one class, of any number of labels, or of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.evaluation.classify import Evaluation, judge
from clozeworks.evaluation.classify_sections import classify_sections
from clozeworks.evaluation.compare import Judged
from clozeworks.evaluation.labels import (
    LabelsEvaluation,
    judge_labels,
    labels_sections,
    labels_summary,
)
from clozeworks.evaluation.numbers import (
    NumbersEvaluation,
    judge_numbers,
    numbers_sections,
    numbers_summary,
)
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.classify import ClassifyConfig, ClassifyExample


class Classify(Report):
    """How well classes, labels or numbers were guessed, and where not."""

    def refuse(
        self, task: Task, examples: Sequence[ClassifyExample], places: Sequence[str]
    ) -> None:
        """Of any number of labels: some row must have one."""
        assert isinstance(task.config, ClassifyConfig)
        if task.config.kind != "multi" or any(np.any(task.target(row)) for row in examples):
            return
        raise UserError(f"{places[0]} and all others have no label; name the column with --label")

    def judge(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[ClassifyExample], name: str
    ) -> Judged:
        """Against the labels of the examples."""
        assert isinstance(task.config, ClassifyConfig)
        match task.config.kind:
            case "multi":
                return judge_labels(task, predictions, examples, name)
            case "regression":
                return judge_numbers(task, predictions, examples, name)
        levels = task.config.levels
        labels, calibration = task.labels, task.calibration
        return judge(predictions, examples, labels, calibration, name=name, levels=levels)

    def summary(self, evaluation: Judged) -> str:
        """The quality with its interval, and what else is asked first."""
        match evaluation:
            case LabelsEvaluation():
                return labels_summary(evaluation)
            case NumbersEvaluation():
                return numbers_summary(evaluation)
        assert isinstance(evaluation, Evaluation)
        metrics, answers = evaluation.metrics, evaluation.answers
        sure = "–" if answers.accuracy is None else f"{answers.accuracy:.2%}"
        return (
            f"accuracy {metrics.accuracy:.2%} ({evaluation.accuracy.low:.2%} to "
            f"{evaluation.accuracy.high:.2%}), macro F1 {metrics.macro.f1:.4f}; "
            f"answered {answers.coverage:.1%} of rows, {sure} of them right; "
            f"calibration error {evaluation.calibration_error:.4f}"
        )

    def sections(self, evaluations: Sequence[Any], language: str) -> list[Section]:
        """Of the first in full, of others of its kind beside it."""
        match evaluations[0]:
            case LabelsEvaluation():
                return labels_sections(evaluations, language)
            case NumbersEvaluation():
                return numbers_sections(evaluations, language)
        return classify_sections(evaluations, language)
