"""Errors a person can act on: the value, the choices and the remedy, in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the person gave cannot be used; the message says what, and what to do instead.

    The command line prints the message alone and leaves with exit code 2.
    """


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """The choice most like `value`, capitals aside, or None when none is near enough to suggest."""
    folded = {choice.casefold(): choice for choice in choices}
    found = get_close_matches(value.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def choose(value: str, choices: Iterable[str], what: str) -> str:
    """Return `value` if it is one of `choices`; raise UserError naming them and the nearest."""
    known = list(choices)
    if value in known:
        return value
    raise UserError(f"{what} {value!r} is not known{suggestion(value, known)}")


def suggestion(value: str, choices: Iterable[str]) -> str:
    """The tail of an error: the nearest choice, if any, then the first twenty choices."""
    known = list(choices)
    near = nearest(value, known)
    hint = f"; did you mean {near!r}?" if near else ""
    shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    return f"{hint} (choices: {shown or 'none'})"
