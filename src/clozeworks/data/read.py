"""From a data file's rows to Examples: columns chosen by name, values checked, nothing dropped."""

import json
from ast import literal_eval
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose, suggestion
from clozeworks.core.log import counted, say
from clozeworks.core.records import Example
from clozeworks.data.sources.base import open_source

E = TypeVar("E", bound=Example)

OnEmpty = Literal["refuse", "skip", "keep"]
"""What becomes of a row whose text is empty: an error, left out and counted, or read as it is."""


def read_examples(
    path: str | Path,
    kind: type[E],
    columns: dict[str, str],
    *,
    remembered: Mapping[str, str] = MappingProxyType({}),
    needed: Collection[str] = (),
    encoding: str = "utf-8",
    format: str | None = None,
    empty: OnEmpty = "refuse",
    one_of: Collection[str] = (),
    without: Collection[str] = (),
    check: Callable[[E], object] = lambda example: None,
    seen: Callable[[int], object] = lambda number: None,
) -> Iterator[E]:
    """Yield the rows of a file as `kind`, streaming; `columns` maps its fields to column names.

    A field that is not in `columns` is read from its column in `remembered`, or, where the first
    row has not that one but one of the field's own name, from there; other columns are passed over,
    and fields in `without` left out. `needed` fields must be in the first row, as those in
    `columns` must. Numbers become strings where the field is one (1 → "1", 4.0 → "4.0"). Raises
    UserError naming the row: a missing column (or all of `one_of`), an empty text, NUL, a lone
    surrogate, no rows, or what `check` raises of an example. `seen` is told the number of every row
    that becomes one, as an editor or a spreadsheet shows it.
    """
    for field in columns:
        choose(field, kind.model_fields, f"field of {kind.__name__}")
    skipped: list[int] = []
    read = 0
    wanted: dict[str, str] | None = None
    source = open_source(path, format=format, encoding=encoding)
    for number, row in source.rows():
        read += 1
        where = f"{path}, row {number}"
        if wanted is None:
            wanted = _wanted(kind, columns, remembered, row)
            for field, column in wanted.items():
                must = kind.model_fields[field].is_required() or field in (*columns, *needed)
                if must and column not in row:
                    raise UserError(_missing(field, column, row, str(path)))
            wanted = {f: column for f, column in wanted.items() if f not in without}
            for fields in filter(None, (kind.either, one_of)):
                _check_one_of(fields, wanted, row, str(path))
        values = {f: _value(kind, f, c, row, where, source.cells) for f, c in wanted.items()}
        if empty != "keep" and (blank := _blank(kind, values)):
            if empty == "refuse":
                what = "holds an empty text" if isinstance(values[blank], list) else "is empty"
                raise UserError(
                    f"{where}: {wanted[blank]!r} {what}; `clozeworks doctor` counts such rows, "
                    "--skip-empty (predict: --keep-empty) lets them pass"
                )
            skipped.append(number)
            continue
        example = validated(kind, {f: v for f, v in values.items() if v is not None}, where)
        try:
            check(example)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        seen(number)
        yield example
    _report(path, read, skipped)


def _report(path: str | Path, read: int, skipped: list[int]) -> None:
    if read == len(skipped):
        raise UserError(f"{path} holds no {'text' if read else 'rows'}; name another")
    if skipped:
        first = ", ".join(map(str, skipped[:5])) + (", …" if len(skipped) > 5 else "")
        say(f"{path}: {counted(len(skipped), 'row', 'rows')} with empty text left out ({first})")


def _wanted(
    kind: type[Example], columns: dict[str, str], remembered: Mapping[str, str], row: dict[str, Any]
) -> dict[str, str]:
    """The column of each field, in a file that has this first row."""
    wanted = {}
    for field in kind.model_fields:
        told = remembered.get(field, field)
        wanted[field] = columns.get(field, field if told not in row and field in row else told)
    return wanted


def _check_one_of(
    fields: Collection[str], wanted: dict[str, str], row: dict[str, Any], path: str
) -> None:
    """Raise UserError if a file has a column for none of the fields."""
    columns = [wanted[field] for field in sorted(fields)]
    if not any(column in row for column in columns):
        there = ", ".join(name for name in row if name)
        flags = " or ".join(f"--{field.replace('_', '-')}" for field in sorted(fields))
        raise UserError(
            f"{path} has no column {' or '.join(map(repr, columns))} (choices: {there}); name one "
            f"with {flags} COLUMN"
        )


def _missing(field: str, column: str, row: dict[str, Any], where: str) -> str:
    present = suggestion(column, [name for name in row if name])
    flag = field.replace("_", "-")
    return f"{where} has no column {column!r} for {field!r}{present}; name one with --{flag} COLUMN"


def _value(
    kind: type[Example], field: str, column: str, row: dict[str, Any], where: str, cells: bool
) -> Any:
    """One value as the field takes it; None where nothing is given."""
    info = kind.model_fields[field]
    if column not in row and info.is_required():
        raise UserError(_missing(field, column, row, where))
    value = row.get(column)
    if isinstance(value, float) and isnan(value):
        return "" if info.is_required() else None
    try:
        check_characters(value, column)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    kinds = (info.annotation, *get_args(info.annotation))
    if list[str] in kinds:
        value = "" if value is None and cells and str in kinds and column in row else value
        value = value if isinstance(value, str) and not cells else _list(value, str in kinds)
    if str not in kinds:
        return _json(value) if isinstance(value, str) else value
    value = _written(value)
    return None if value == "" and not info.is_required() else value


def _list(value: Any, cell: bool) -> Any:
    """A list's numbers as they would be written; a cell that holds one as JSON, or nothing.

    `cell`: whether a cell's text may also be taken as it is.
    """
    if isinstance(value, str):
        if cell and not value:
            return []
        found = _json(value) if value[:1] == "[" or not cell else value
        value = found if found is None or isinstance(found, list) else value
    if isinstance(value, list):  # what has no other writing, such as null, is refused as it is
        return [_written(item) or item for item in value]
    return value


def _json(text: str) -> Any:
    """What a table's cell holds where text is not wanted: JSON, or nothing.

    A list or an object may also stand there as Python shows it, which is how pandas writes them.
    """
    try:
        return json.loads(text) if text.strip() else None
    except ValueError:
        pass
    try:
        found = literal_eval(text.strip()) if text.strip()[0] in "[{" else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text  # refused as what it is
    return found if isinstance(found, list | dict) else text


def _written(value: Any) -> Any:
    """A number, truth value or date as a person would write it; anything else as it is."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case date():
            return value.isoformat()
    return value


def check_characters(value: Any, column: str) -> None:
    """Raise UserError for a NUL or half a character in a value, or in what it holds."""
    if isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            check_characters(inner, column)
    if not isinstance(value, str):
        return
    if "\x00" in value:
        raise UserError(f"{column!r} holds a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise UserError(
            f"{column!r} holds a lone surrogate (U+{code:04X}) at character {error.start}, which "
            "is no character; write the file again as UTF-8"
        ) from error


def _blank(kind: type[Example], values: dict[str, Any]) -> str | None:
    """The first field that must hold text and does not."""
    for field, value in values.items():
        texts = value if isinstance(value, list) else [value]
        required = kind.model_fields[field].is_required()
        if required and any(isinstance(text, str) and not text.strip() for text in texts):
            return field
    found = [values.get(field) for field in kind.either]
    if found and not any(value.strip() if isinstance(value, str) else value for value in found):
        return min(kind.either)
    return None
