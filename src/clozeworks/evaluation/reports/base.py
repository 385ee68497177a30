"""What a task's report must do."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from clozeworks.evaluation.compare import Judged
from clozeworks.evaluation.sections import Section
from clozeworks.tasks.base import Task


class Report(ABC):
    """Predictions beside gold answers in; numbers, a line for the screen, and a page out."""

    def refuse(  # noqa: B027
        self, task: Task, examples: Sequence[Any], places: Sequence[str]
    ) -> None:
        """Raise UserError for rows that cannot be judged together, before they are predicted.

        `places` say where each row stands. Most rows can be.
        """

    @abstractmethod
    def judge(
        self, task: Task, predictions: Sequence[Any], examples: Sequence[Any], name: str
    ) -> Judged:
        """Judge one prediction a row; `name` is what the model is called.

        Raises UserError for no rows, or a row without an answer.
        """

    @abstractmethod
    def summary(self, evaluation: Any) -> str:
        """The numbers a person asks for first, in one line."""

    @abstractmethod
    def sections(self, evaluations: Sequence[Any], language: str) -> list[Section]:
        """The page: the first evaluation in full, others of the same rows beside it."""
