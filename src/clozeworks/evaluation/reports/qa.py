"""The report of a model that answers questions from a text."""

from collections.abc import Sequence

from clozeworks.evaluation.answers import AnswersEvaluation, answers_sections, judge_answers
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.qa import QaExample, QaPrediction


class Qa(Report):
    """Which answers are right, whole or in part, and which questions fail."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[QaPrediction],
        examples: Sequence[QaExample],
        name: str,
    ) -> AnswersEvaluation:
        """Against the answers of the examples, by the rules of the task's settings."""
        return judge_answers(task, predictions, examples, name)

    def summary(self, evaluation: AnswersEvaluation) -> str:
        """Exact answers and F1 with their intervals, by which rules, and questions without an
        answer."""
        exact, f1, none = evaluation.exact, evaluation.f1, evaluation.metrics.unanswerable_right
        said = (
            f"exact {exact.estimate:.2%} ({exact.low:.2%} to {exact.high:.2%}), F1 "
            f"{f1.estimate:.2%} ({f1.low:.2%} to {f1.high:.2%}) by the rules "
            f"of {evaluation.rules}"
        )
        return said if none is None else f"{said}; of those without an answer, {none:.2%} right"

    def sections(self, evaluations: Sequence[AnswersEvaluation], language: str) -> list[Section]:
        """As `answers_sections`."""
        return answers_sections(evaluations, language)
