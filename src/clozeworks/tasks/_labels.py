"""Labels of rows as people write them."""

import numpy as np

from clozeworks.core.errors import UserError

Label = str | list[str] | None
"""What a row is given: a label, several, or none."""


def single_label(label: Label) -> str:
    """The one label of a row, without white space around it; raises UserError for several.

    A space that nobody sees would make another class.
    """
    if isinstance(label, list):
        if len(label) != 1:
            raise UserError(f"a row has several labels ({', '.join(label)}); use --kind multi")
        return label[0].strip()
    return str(label).strip()


def check_path(label: str, sign: str) -> None:
    """Raise UserError for a path of labels that has an empty level."""
    if sign and not all(step.strip() for step in label.split(sign)):
        raise UserError(
            f"label {label!r} has an empty level; write every level between {sign!r}, or none"
        )


def numbers_first(label: str) -> tuple[int, float, str]:
    """A key that sorts labels: numbers by their values, then words."""
    try:
        value = float(label)
    except ValueError:
        value = np.nan
    # "nan" and "inf" are words: neither has a place among numbers
    return (0, value, label) if np.isfinite(value) else (1, 0.0, label)
