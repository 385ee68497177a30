"""JSON: one object a line, or a small file that holds one list of objects."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from clozeworks.core.errors import UserError
from clozeworks.core.files import read_lines
from clozeworks.data.sources.base import Row

LIST_LIMIT = 64_000_000
"""Characters of a JSON list, which can only be read whole, that are still accepted."""


@dataclass(frozen=True)
class Jsonl:
    """One JSON object a line (.jsonl), or a list of them in a small .json file."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json")
    unpacks: ClassVar[bool] = True
    cells: ClassVar[bool] = False
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every object, blank lines passed over; the row number is the line, or place in a list."""
        lines = enumerate(read_lines(self.path, self.encoding), 1)
        for number, line in lines:
            if not line.strip():
                continue
            if line.lstrip().startswith("["):
                yield from self._listed(chain([line], (rest for _, rest in lines)))
                return
            yield number, self._object(line, number)

    def _object(self, line: str, number: int) -> dict[str, Any]:
        try:
            values = json.loads(line, parse_constant=_nothing)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.path}, row {number} is not JSON ({error}); "
                "every line should hold one whole object"
            ) from error
        return self._checked(values, number)

    def _listed(self, lines: Iterator[str]) -> Iterator[Row]:
        held, size = [], 0
        for line in lines:
            held.append(line)
            size += len(line)
            if size > LIST_LIMIT:
                raise UserError(
                    f"{self.path} holds one JSON list of over {LIST_LIMIT // 1_000_000} MB; "
                    "convert it to one object a line (jq -c '.[]' FILE.json > FILE.jsonl)"
                )
        try:
            values = json.loads("\n".join(held), parse_constant=_nothing)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path} is not JSON: {error}") from error
        for number, value in enumerate(values, 1):
            yield number, self._checked(value, number)

    def _checked(self, values: Any, number: int) -> dict[str, Any]:
        if isinstance(values, dict):
            return values
        raise UserError(
            f"{self.path}, row {number} holds a {type(values).__name__}; "
            'it should hold an object such as {"text": "…", "label": "…"}'
        )


def _nothing(constant: str) -> None:
    """What NaN and Infinity, which some programs write though JSON has neither, are read as."""
