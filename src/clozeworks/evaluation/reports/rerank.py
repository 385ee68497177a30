"""The report of a model that puts candidates in order."""

from collections.abc import Sequence

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.evaluation.rankings import (
    CUT,
    RankingsEvaluation,
    judge_rankings,
    rankings_sections,
)
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.rerank import RerankExample, RerankPrediction


class Rerank(Report):
    """How well candidates are ordered, beside simpler orders, and which queries fail."""

    def refuse(self, task: Task, examples: Sequence[RerankExample], places: Sequence[str]) -> None:
        """Something must be relevant to some query."""
        if examples and not any(np.any(task.target(example)) for example in examples):
            raise UserError(
                f"{places[0]} and all others have nothing relevant; name the column that says what "
                "is with --relevant"
            )

    def judge(
        self,
        task: Task,
        predictions: Sequence[RerankPrediction],
        examples: Sequence[RerankExample],
        name: str,
    ) -> RankingsEvaluation:
        """Against what is relevant to each query, named as the task's settings say."""
        return judge_rankings(task, predictions, examples, name)

    def summary(self, evaluation: RankingsEvaluation) -> str:
        """nDCG with its interval, MRR and MAP, beside BM25 and the order given."""
        ndcg, metrics = evaluation.ndcg, evaluation.model.metrics
        lexical, given = evaluation.lexical.metrics, evaluation.given.metrics
        return (
            f"nDCG@{CUT} {ndcg.estimate:.4f} ({ndcg.low:.4f} to {ndcg.high:.4f}), MRR@{CUT} "
            f"{metrics.mrr[CUT]:.4f}, MAP {metrics.map:.4f}; nDCG of BM25 {lexical.ndcg[CUT]:.4f}, "
            f"of the order given {given.ndcg[CUT]:.4f}"
        )

    def sections(self, evaluations: Sequence[RankingsEvaluation], language: str) -> list[Section]:
        """As `rankings_sections`."""
        return rankings_sections(evaluations, language)
