"""The report of sentence vectors: by scored pairs, or by what texts find."""

from collections.abc import Sequence
from typing import Any

from clozeworks.core.errors import UserError
from clozeworks.evaluation.compare import Judged
from clozeworks.evaluation.reports.base import Report
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
from clozeworks.tasks.embed import EmbedExample, EmbedPrediction, Kind, kind_of

WHAT: dict[Kind, str] = {"pairs": "a positive", "scored": "a score", "texts": "neither"}
"""What rows of a kind have."""


class Embed(Report):
    """Whether vectors lie close where people say that texts mean the same."""

    def refuse(self, task: Task, examples: Sequence[EmbedExample], places: Sequence[str]) -> None:
        """Rows must be of one kind."""
        kinds = [kind_of(example) for example in examples]
        for kind, place in zip(kinds, places, strict=True):
            if kind == "texts":
                raise UserError(
                    f"{place} has neither a positive nor a score to judge by; name the column with "
                    "--positive, or with --text-pair and --score"
                )
            if kind != kinds[0]:
                own, other = (WHAT[k] for k in (kind, kinds[0]))
                raise UserError(
                    f"{place} has {own} where the first row has {other}; judge rows of one kind at "
                    "a time"
                )

    def judge(
        self,
        task: Task,
        predictions: Sequence[EmbedPrediction],
        examples: Sequence[EmbedExample],
        name: str,
    ) -> Judged:
        """By scores or by positives, whichever the rows have."""
        kind = kind_of(examples[0]) if examples else "scored"
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
