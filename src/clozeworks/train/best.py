"""Which of a run's judgements is its best."""

from collections.abc import Collection, Mapping

from clozeworks.core.errors import UserError, choose

TOTAL = "total"


def merit(judged: Mapping[str, float], losses: Collection[str], by: str) -> tuple[float, bool]:
    """The number of a judgement that decides, and whether less of it is better.

    `losses` are the names of loss terms; "total" is the sum of those that were judged. Raises
    UserError if there is no such number.
    """
    if by != TOTAL:
        return judged[choose(by, [TOTAL, *judged], "keep_best")], by in losses
    terms = [judged[name] for name in losses if name in judged]
    if not terms:
        raise UserError(
            "keep_best 'total' is the sum of held-out losses, and there are none here "
            f"(choices: {', '.join(judged) or 'none'})"
        )
    return sum(terms), True


def improves(value: float, best: float | None, less: bool) -> bool:
    """Whether a number beats the best so far; equal ones do not."""
    return best is None or (value < best if less else value > best)
