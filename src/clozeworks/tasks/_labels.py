"""Labels of rows as people write them."""

import re

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


def names_alone(label: Label) -> Label:
    """The label of a row as it is; raises ValueError where it cannot be names of labels.

    Such are a list that was written as text, which would be a label for each combination, and a 0
    or 1 for every label there is, which would be two labels called 0 and 1.
    """
    names = label if isinstance(label, list) else [label or ""]
    if written := next((name for name in names if _AS_TEXT.fullmatch(name.strip())), None):
        raise ValueError(f"{written!r} is a list written as text; give the list itself")
    if len(names) > len(set(names)) and all(name.strip().lower() in _FLAGS for name in names):
        raise ValueError(
            f"[{', '.join(names)}] has a 0 or 1 for each label; give the names of those that apply"
        )
    return label


_AS_TEXT = re.compile(r"""\[\s*(['"].*['"]\s*)?\]""", re.DOTALL)
_FLAGS = {"0", "1", "0.0", "1.0", "true", "false"}


def check_path(label: str, sign: str) -> None:
    """Raise UserError for a path of labels that has an empty level, or a space beside the sign."""
    steps = label.split(sign) if sign else [label]
    if not all(step.strip() for step in steps):
        raise UserError(
            f"label {label!r} has an empty level; write every level between {sign!r}, or none"
        )
    if any(step != step.strip() for step in steps):
        raise UserError(
            f"label {label!r} has white space beside {sign!r}, which would be a part of its "
            f"levels; remove it, or make it a part of the sign: --levels {f' {sign.strip()} '!r}"
        )


def numbers_first(label: str) -> tuple[int, float, str]:
    """A key that sorts labels: numbers by their values, then words."""
    try:
        value = float(label)
    except ValueError:
        value = np.nan
    # "nan" and "inf" are words: neither has a place among numbers
    return (0, value, label) if np.isfinite(value) else (1, 0.0, label)
