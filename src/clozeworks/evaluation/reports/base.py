"""What a task's report must do."""

from collections.abc import Sequence
from typing import Any, Protocol

from clozeworks.evaluation.compare import Judged
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task


class Report(Protocol):
    """Predictions beside gold answers in; numbers, a line for the screen, and a page out."""

    def judge(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Any], name: str
    ) -> Judged:
        """Judge one prediction a row; `name` is what the model is called.

        Raises UserError for no rows, or a row without an answer.
        """
        ...

    def summary(self, evaluation: Any) -> str:
        """The numbers a person asks for first, in one line."""
        ...

    def sections(self, evaluations: Sequence[Any], language: str) -> list[Section]:
        """The page: the first evaluation in full, others of the same rows beside it."""
        ...
