"""The report of a model that tells relations."""

from collections.abc import Sequence

from clozeworks.evaluation.relations import (
    RelationsEvaluation,
    judge_relations,
    relations_sections,
)
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.relation import RelationExample, RelationPrediction


class Relation(Report):
    """Which relations are told rightly, by direction and distance, and which rows fail."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[RelationPrediction],
        examples: Sequence[RelationExample],
        name: str,
    ) -> RelationsEvaluation:
        """Against the labels of the examples."""
        return judge_relations(task, predictions, examples, name)

    def summary(self, evaluation: RelationsEvaluation) -> str:
        """Macro and micro F1 with their intervals, accuracy, and wrong directions."""
        macro, micro = evaluation.macro_f1, evaluation.micro_f1
        turned = sum(row.turned for row in evaluation.metrics.relations)
        return (
            f"macro F1 {macro.estimate:.2%} ({macro.low:.2%} to {macro.high:.2%}), micro F1 "
            f"{micro.estimate:.2%} ({micro.low:.2%} to {micro.high:.2%}), accuracy "
            f"{evaluation.accuracy.estimate:.2%}; {turned:,} in the wrong direction"
        )

    def sections(self, evaluations: Sequence[RelationsEvaluation], language: str) -> list[Section]:
        """As `relations_sections`."""
        return relations_sections(evaluations, language)
