"""The report of a model that finds entities."""

from collections.abc import Sequence

from clozeworks.evaluation.entities import (
    EntitiesEvaluation,
    entities_sections,
    judge_entities,
)
from clozeworks.evaluation.reports.base import Report
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task
from clozeworks.tasks.tag import TagExample, TagPrediction


class Tag(Report):
    """Which entities were found, missed and invented."""

    def judge(
        self,
        task: Task,
        predictions: Sequence[TagPrediction],
        examples: Sequence[TagExample],
        name: str,
    ) -> EntitiesEvaluation:
        """Against the entities of the examples: exact ends and type."""
        return judge_entities(predictions, examples, name)

    def summary(self, evaluation: EntitiesEvaluation) -> str:
        """F1 with its interval, precision, recall, and what was wrong."""
        micro, f1, faults = evaluation.metrics.micro, evaluation.f1, evaluation.faults
        return (
            f"entity F1 {f1.estimate:.2%} ({f1.low:.2%} to {f1.high:.2%}), precision "
            f"{micro.precision:.2%}, recall {micro.recall:.2%}, macro F1 "
            f"{evaluation.metrics.macro.f1:.4f}; {faults['missed']:,} missed, "
            f"{faults['invented']:,} invented, {faults['bounds']:,} with other ends, "
            f"{faults['type']:,} of another type"
        )

    def sections(self, evaluations: Sequence[EntitiesEvaluation], language: str) -> list[Section]:
        """As `entities_sections`."""
        return entities_sections(evaluations, language)
