"""Settings: frozen typed classes whose field docstrings are the help; one TOML file is a recipe."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.files import existing, explained
from clozeworks.core.forms import form_of, forms, is_model


class Settings(BaseModel):
    """Base of every settings class: unknown keys are errors, values never change, `~` is home."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
    free: ClassVar[frozenset[str]] = frozenset()
    """Settings that may change while a run goes on: how and where it is computed, not what; of a
    table inside a table as `outer.inner`."""

    @field_validator("*", mode="after")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """Paths of recipes are given the home folder that a shell would have given them."""
        if isinstance(value, list):
            return [cls._at_home(item) for item in value]
        if isinstance(value, dict):
            return {key: cls._at_home(item) for key, item in value.items()}
        if isinstance(value, Path) and value.parts[:1] == ("~",):
            return value.expanduser()
        return value


S = TypeVar("S", bound=BaseModel)
SHOWN = 100
"""Characters of a wrong value that are shown."""


def validated(kind: type[S], values: Mapping[str, Any], source: str) -> S:
    """Build `kind` from plain values; raises UserError naming the key and the nearest known one."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{source}: {_explanation(kind, error)}") from error


def _explanation(kind: type[BaseModel], error: ValidationError) -> str:
    """One line for the first thing wrong; a name that is unknown tells more than what it lacks."""
    wrong = error.errors()
    first = next((one for one in wrong if one["type"] == "extra_forbidden"), wrong[0])
    path = [str(part) for part in first["loc"]]
    name = ".".join(path) or "the whole"
    if first["type"] == "extra_forbidden":
        holder = next(filter(is_model, forms(_followed(kind, first["loc"][:-1])[1])), None)
        known = [] if holder is None else list(holder.model_fields)
        return f"unknown key {name!r}{suggestion(path[-1], known)}"
    if first["type"] == "missing":
        return f"{name!r} is missing"
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}" if path else str(first["ctx"]["error"])
    steps, wanted = _followed(kind, first["loc"])
    given = repr(first["input"])
    given = given if len(given) <= SHOWN else given[:SHOWN] + "…"
    if first["type"].endswith(("_type", "_parsing", "_from_float")) and wanted:
        return f"{'.'.join(steps)} = {given}: should be {form_of(wanted)}"
    return f"{name} = {given}: {first['msg'].lower()}"


def _followed(kind: type[BaseModel], path: Sequence[str | int]) -> tuple[list[str], Any]:
    """How far a path leads, and what is to stand there; the name of one of several forms, which
    pydantic's paths hold too, is no step."""
    at: Any = kind
    steps: list[str] = []
    for part in path:
        inner = next((found for one in forms(at) if (found := _inside(one, part))), None)
        at = inner or at
        steps += [str(part)] if inner else []
    return steps, at


def _inside(form: Any, part: str | int) -> Any:
    """What stands in a form under a name or a number; None where nothing does."""
    if is_model(form):
        field = form.model_fields.get(str(part))
        return None if field is None else field.annotation
    if (get_origin(form), type(part)) in ((list, int), (dict, str)):
        return get_args(form)[-1]
    return None


def read_toml(path: str | Path) -> dict[str, Any]:
    """The values of a TOML file; raises UserError with the line where it is not TOML."""
    path = existing(path, "recipe")
    with explained(path, "read"), path.open("rb") as stream:
        try:
            return tomllib.load(stream)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a TOML recipe: {error}") from error


def to_toml(settings: BaseModel) -> str:
    """The settings as TOML text that `read_toml` takes back; absent values are left out."""
    return tomli_w.dumps(_present(settings.model_dump(mode="json")))


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are there, in tables within tables too."""
    there = {name: value for name, value in values.items() if value is not None}
    return {name: _present(v) if isinstance(v, Mapping) else v for name, v in there.items()}
