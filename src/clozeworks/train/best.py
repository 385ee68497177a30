"""Which of a run's judgements is its best."""

from collections.abc import Iterable, Mapping
from math import isnan

from clozeworks.core.errors import UserError, choose

TOTAL = "total"
"""The name of the sum of the held-out losses."""

NOW_AND_THEN = "probe_"
"""How numbers begin that not every judgement has."""


def check_wish(by: str | None, names: Iterable[str]) -> None:
    """Raise UserError if the best model is to be kept by a number that no judgement has."""
    if by is not None:
        choose(by, names, "keep_best")


def merit(
    judged: Mapping[str, float], weights: Mapping[str, float], by: str
) -> tuple[float, bool] | None:
    """The number of a judgement that decides, and whether less of it is better; None: not judged.

    `weights` are those of the loss terms; "total" is the sum of the terms that were judged, so
    weighed. Less of a loss is better, of another text's too (`general/mlm`). Raises UserError if
    there is no such number.
    """
    if by != TOTAL:
        if by.startswith(NOW_AND_THEN) and by not in judged:
            return None
        return judged[choose(by, [TOTAL, *judged], "keep_best")], by.rsplit("/", 1)[-1] in weights
    terms = [weight * judged[name] for name, weight in weights.items() if name in judged]
    if not terms:
        raise UserError(
            "keep_best 'total' is the sum of held-out losses, and there are none here "
            f"(choices: {', '.join(judged) or 'none'})"
        )
    return sum(terms), True


def improves(value: float, best: float | None, less: bool) -> bool:
    """Whether a number beats the best so far; equal ones do not, and NaN beats none."""
    if isnan(value):
        return False
    return best is None or (value < best if less else value > best)
