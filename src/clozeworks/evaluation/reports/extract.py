"""The report of a model that keeps sentences of documents."""

from collections.abc import Sequence

from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.evaluation.summaries import (
    SummariesEvaluation,
    judge_summaries,
    summaries_sections,
)
from clozeworks.tasks.base import Task
from clozeworks.tasks.extract import ExtractExample, ExtractPrediction


class Extract(Report):
    """How near the sentences kept come to the reference, beside the first ones and the best."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[ExtractPrediction],
        examples: Sequence[ExtractExample],
        name: str,
    ) -> SummariesEvaluation:
        """Against the summaries of the examples, or the sentences they keep."""
        return judge_summaries(task, predictions, examples, name)

    def summary(self, evaluation: SummariesEvaluation) -> str:
        """ROUGE with its interval, and that of the first sentences and of the oracle."""
        r1, r2, rl = (evaluation.intervals[n] for n in ("rouge1", "rouge2", "rouge_l"))
        lead, best = evaluation.lead, evaluation.oracle
        return (
            f"ROUGE-1 {r1.estimate:.2%} ({r1.low:.2%} to {r1.high:.2%}), ROUGE-2 "
            f"{r2.estimate:.2%}, ROUGE-L {rl.estimate:.2%}; lead "
            f"{lead.rouge1.f1:.2%} / {lead.rouge2.f1:.2%} / {lead.rouge_l.f1:.2%}, oracle "
            f"{best.rouge1.f1:.2%} / {best.rouge2.f1:.2%} / {best.rouge_l.f1:.2%}"
        )

    def sections(self, evaluations: Sequence[SummariesEvaluation], language: str) -> list[Section]:
        """As `summaries_sections`."""
        return summaries_sections(evaluations, language)
