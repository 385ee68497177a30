"""A number that may change over a run: `0.15` stays, "0.3 -> 0.15" goes there in a line."""

import re
from typing import NamedTuple

from clozeworks.core.errors import UserError

_NUMBER = r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*"
_LINE = re.compile(f"{_NUMBER}->{_NUMBER}")


class Course(NamedTuple):
    """What a number is at the beginning and at the end of a run."""

    first: float
    last: float

    @classmethod
    def of(cls, value: float | str) -> "Course":
        """Read a number, or "0.3 -> 0.15"; raises UserError where it is neither."""
        if isinstance(value, str) and (line := _LINE.fullmatch(value)):
            numbers = [line[1], line[2]]
        else:
            numbers = [str(value)] * 2
        try:
            return cls(*map(float, numbers))
        except ValueError as error:
            raise UserError(
                f"{value!r} is neither a number nor a course over the run, as in '0.3 -> 0.15'"
            ) from error

    def at(self, progress: float) -> float:
        """The number when the share `progress` of the run is done."""
        return self.first + (self.last - self.first) * progress
