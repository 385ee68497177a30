"""The report of a model that fills in [MASK]s: how likely it finds whole texts."""

from collections.abc import Sequence

from clozeworks.evaluation.likelihood import (
    LikelihoodEvaluation,
    judge_likelihood,
    likelihood_sections,
)
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.mlm import MlmExample, MlmPrediction


class Mlm(Report):
    """The pseudo-perplexity of texts, and which texts and tokens surprise the model."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[MlmPrediction],
        examples: Sequence[MlmExample],
        name: str,
    ) -> LikelihoodEvaluation:
        """By the texts' own tokens, each hidden in turn."""
        return judge_likelihood(predictions, examples, name)

    def summary(self, evaluation: LikelihoodEvaluation) -> str:
        """Pseudo-perplexity with its interval, and of how many tokens."""
        found, unknown = evaluation.perplexity, evaluation.unknown
        said = (
            f"pseudo-perplexity {found.estimate:.3f} ({found.low:.3f} to {found.high:.3f}) over "
            f"{evaluation.tokens:,} tokens of {evaluation.rows:,} texts"
        )
        return f"{said}; {unknown:,} more have no piece in the vocabulary" if unknown else said

    def sections(self, evaluations: Sequence[LikelihoodEvaluation], language: str) -> list[Section]:
        """As `likelihood_sections`."""
        return likelihood_sections(evaluations, language)
