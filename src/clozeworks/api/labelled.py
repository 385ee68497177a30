"""The labelled rows that training learns from, and judging is done by."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from clozeworks.data.read import read_examples
from clozeworks.tasks.base import Task


class Form(Protocol):
    """What is read of a recipe to read its files."""

    @property
    def columns(self) -> dict[str, str]: ...

    @property
    def encoding(self) -> str: ...

    @property
    def format(self) -> str | None: ...

    @property
    def skip_empty(self) -> bool: ...


def unread(columns: Mapping[str, str]) -> set[str]:
    """Fields that are read from no column: of these the name is empty."""
    return {field for field, column in columns.items() if not column}


def asked_with(task: Task, columns: Mapping[str, str]) -> frozenset[str]:
    """Fields that a file must have because training rows had them, whose columns these are."""
    return task.asked_with & columns.keys()


def labelled_examples(
    path: Path,
    task: Task,
    form: Form,
    check: Callable[[Any], object] = lambda example: None,
    columns: dict[str, str] | None = None,
    without: Collection[str] = (),
    seen: Callable[[int], object] = lambda number: None,
) -> list[Any]:
    """The Examples of a file; raises UserError naming the first row without an answer.

    `columns` are those of the training rows, which the form's go before; fields in `without`, which
    these had not, and those of empty names in the form are left out; `check` may refuse an
    Example, as the task's `target` does where a label was never seen; `seen` is told the number of
    each row.
    """
    columns = columns or {}

    def learnable(example: Any) -> None:
        task.check(example)
        check(example)

    return list(
        read_examples(
            path,
            task.Example,
            {field: column for field, column in form.columns.items() if column},
            remembered=columns,
            # where there is but one field to answer in, its column must be there
            needed=(task.answers if len(task.answers) == 1 else set()) | asked_with(task, columns),
            encoding=form.encoding,
            format=form.format,
            empty="skip" if form.skip_empty else "refuse",
            without=set(without).difference(form.columns) | unread(form.columns),
            one_of=() if task.unlabelled else task.answers,
            check=learnable,
            seen=seen,
        )
    )
