"""The report of a classifier."""

from collections.abc import Sequence

from clozeworks.evaluation.classify import Evaluation, judge
from clozeworks.evaluation.classify_sections import classify_sections
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.classify import ClassifyExample, ClassifyPrediction


class Classify:
    """Accuracy, F1, calibration, what "I don't know" does, mix-ups and mistakes."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[ClassifyPrediction],
        examples: Sequence[ClassifyExample],
        name: str,
    ) -> Evaluation:
        """Against the labels of the examples."""
        return judge(predictions, examples, task.labels, task.calibration, name=name)

    def summary(self, evaluation: Evaluation) -> str:
        """Accuracy with its interval, F1, coverage, calibration error."""
        metrics, answers = evaluation.metrics, evaluation.answers
        sure = "–" if answers.accuracy is None else f"{answers.accuracy:.2%}"
        return (
            f"accuracy {metrics.accuracy:.2%} ({evaluation.accuracy.low:.2%} to "
            f"{evaluation.accuracy.high:.2%}), macro F1 {metrics.macro.f1:.4f}; "
            f"answered {answers.coverage:.1%} of rows, {sure} of them right; "
            f"calibration error {evaluation.calibration_error:.4f}"
        )

    def sections(self, evaluations: Sequence[Evaluation], language: str) -> list[Section]:
        """As `classify_sections`."""
        return classify_sections(evaluations, language)
