"""The report of a model that chooses among options."""

from collections.abc import Sequence

from clozeworks.evaluation.choices import (
    ChoicesEvaluation,
    choices_sections,
    judge_choices,
)
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.choice import ChoiceExample, ChoicePrediction


class Choice(Report):
    """Which options are chosen rightly, by number of options, and which rows fail."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[ChoicePrediction],
        examples: Sequence[ChoiceExample],
        name: str,
    ) -> ChoicesEvaluation:
        """Against the answers of the examples, named as the task's settings say."""
        return judge_choices(task, predictions, examples, name)

    def summary(self, evaluation: ChoicesEvaluation) -> str:
        """Accuracy with its interval, beside chance and the most frequent place."""
        accuracy = evaluation.accuracy
        return (
            f"accuracy {accuracy.estimate:.2%} ({accuracy.low:.2%} to {accuracy.high:.2%}); chance "
            f"{evaluation.chance:.2%}, the place most often right {evaluation.majority:.2%}"
        )

    def sections(self, evaluations: Sequence[ChoicesEvaluation], language: str) -> list[Section]:
        """As `choices_sections`."""
        return choices_sections(evaluations, language)
