"""The tasks: one file each; `create` makes one, or several joined by `+`, from plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose
from clozeworks.core.records import Vocabulary
from clozeworks.core.registry import Registry
from clozeworks.tasks.base import Joint, Task

TASKS: Registry[type[Task]] = Registry("task", "clozeworks.tasks")


def create(
    name: str, settings: Mapping[str, Any], vocabulary: Vocabulary, labels: Sequence[str] = ()
) -> Task:
    """Make the task called `name`; `mlm+nsp` makes both, on one batch and one encoder pass.

    `settings` are the task's own, or for a joint task those of each part under its name. Raises
    UserError for an unknown name or setting, or for tasks that cannot be joined.
    """
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
    parts = [create(part, settings.get(part, {}), vocabulary, labels) for part in names]
    stray = next((p.name for p in parts if not p.from_shards), None)
    if stray is not None or len(set(names)) < len(names):
        raise UserError(f"cannot join {name!r}: join different pretraining objectives (mlm+nsp)")
    return Joint(parts)
