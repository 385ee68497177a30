"""The report of a model that writes texts."""

from collections.abc import Sequence

from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.evaluation.texts import TextsEvaluation, judge_texts
from clozeworks.evaluation.texts_sections import texts_sections, texts_summary
from clozeworks.tasks.base import Task
from clozeworks.tasks.seq2seq import Seq2SeqExample, Seq2SeqPrediction


class Seq2Seq(Report):
    """How near what was written comes to references, beside copying the source."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[Seq2SeqPrediction],
        examples: Sequence[Seq2SeqExample],
        name: str,
    ) -> TextsEvaluation:
        """Against the targets of the examples."""
        return judge_texts(task, predictions, examples, name)

    def summary(self, evaluation: TextsEvaluation) -> str:
        """As `texts_summary`."""
        return texts_summary(evaluation)

    def sections(self, evaluations: Sequence[TextsEvaluation], language: str) -> list[Section]:
        """As `texts_sections`."""
        return texts_sections(evaluations, language)
