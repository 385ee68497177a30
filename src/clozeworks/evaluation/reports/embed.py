"""The report of sentence vectors: by scored pairs, or by what texts find."""

from collections.abc import Sequence
from typing import Any

from clozeworks.core.errors import UserError
from clozeworks.evaluation.compare import Judged
from clozeworks.evaluation.retrieval import (
    RetrievalEvaluation,
    judge_retrieval,
    retrieval_sections,
    retrieval_summary,
)
from clozeworks.evaluation.sections import Section
from clozeworks.evaluation.similarity import (
    SimilarityEvaluation,
    judge_similarity,
    similarity_sections,
    similarity_summary,
)
from clozeworks.tasks.base import Task
from clozeworks.tasks.embed import EmbedExample, EmbedPrediction, kind_of


class Embed:
    """Whether vectors lie close where people say that texts mean the same."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[EmbedPrediction],
        examples: Sequence[EmbedExample],
        name: str,
    ) -> Judged:
        """By scores or by positives, whichever the rows have."""
        kind = kind_of(examples[0]) if examples else "scored"
        if kind == "texts":
            raise UserError(
                "row 1 has neither a positive nor a score to judge by; name the column with "
                "--positive, or with --text-pair and --score"
            )
        judge = judge_retrieval if kind == "pairs" else judge_similarity
        return judge(predictions, examples, name)

    def summary(self, evaluation: Judged) -> str:
        """The numbers of its kind."""
        if isinstance(evaluation, RetrievalEvaluation):
            return retrieval_summary(evaluation)
        assert isinstance(evaluation, SimilarityEvaluation)
        return similarity_summary(evaluation)

    def sections(self, evaluations: Sequence[Any], language: str) -> list[Section]:
        """Of the first in full, of others of its kind beside it."""
        if isinstance(evaluations[0], RetrievalEvaluation):
            return retrieval_sections(evaluations, language)
        return similarity_sections(evaluations, language)
