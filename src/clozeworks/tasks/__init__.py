"""The tasks: one file each; `create` makes one, or several joined by `+`, from plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose
from clozeworks.core.records import Vocabulary
from clozeworks.core.registry import Registry
from clozeworks.tasks._joint import Joint
from clozeworks.tasks.base import Task

TASKS: Registry[type[Task]] = Registry("task", "clozeworks.tasks")


def create(
    name: str,
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    labels: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
) -> Task:
    """Make the task called `name`; `mlm+nsp` makes both, on one batch and one encoder pass.

    `settings` are the task's own, or for a joint task those of each part under its name; `weights`
    those of its loss terms that differ from the usual. Raises UserError for an unknown name or
    setting, or for tasks that cannot be joined.
    """
    task = _made(name, settings, vocabulary, labels)
    task.weigh(weights or {})
    return task


def _made(
    name: str, settings: Mapping[str, Any], vocabulary: Vocabulary, labels: Sequence[str]
) -> Task:
    names = name.split("+")
    if len(names) == 1:
        kind = TASKS.get(name)
        return kind(validated(kind.Config, settings, f"settings of {name}"), vocabulary, labels)
    for key, values in settings.items():
        choose(key, names, f"settings of {name}:")
        if not isinstance(values, Mapping):
            raise UserError(
                f"settings of {name}: {key} = {values!r}; a joint task takes a table of settings "
                f"for each part, as [settings.{key}] in a recipe"
            )
    parts = [_made(part, settings.get(part, {}), vocabulary, labels) for part in names]
    stray = next((p.name for p in parts if not p.from_shards), None)
    if stray is not None or len(set(names)) < len(names):
        raise UserError(f"cannot join {name!r}: join different pretraining objectives (mlm+nsp)")
    _refuse_unlike(name, parts)
    return Joint(parts)


def _refuse_unlike(name: str, parts: Sequence[Task]) -> None:
    """Raise UserError for objectives that would each need a batch of their own."""
    wanted = {part.pairs: part.name for part in parts if part.pairs != "none"}
    if len(wanted) > 1:
        one, other = wanted.values()
        raise UserError(
            f"cannot join {name!r}: {one} and {other} need different pairs of segments; choose one"
        )
    terms = [term for part in parts for term in part.weights]
    if twice := next((term for term in terms if terms.count(term) > 1), None):
        owner = next(part.name for part in parts if twice in part.weights and part.name != twice)
        raise UserError(
            f"cannot join {name!r}: {owner} brings {twice} of its own; leave {twice} out"
        )
