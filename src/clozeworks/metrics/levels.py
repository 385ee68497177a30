"""Labels that are paths (a##b##c): what a level of a path is, and how probable."""

from collections.abc import Mapping, Sequence


def ancestors(label: str, sign: str) -> list[str]:
    """The label's path from the top down to itself: a##b##c → a, a##b, a##b##c."""
    steps = label.split(sign)
    return [sign.join(steps[: depth + 1]) for depth in range(len(steps))]


def summed(chances: Mapping[str, float], sign: str) -> dict[str, float]:
    """The probability of every level: the sum of those of all labels at or below it."""
    found: dict[str, float] = {}
    for label, chance in chances.items():
        for level in ancestors(label, sign):
            found[level] = found.get(level, 0.0) + chance
    return found


def raised(chances: Mapping[str, float], sign: str) -> dict[str, float]:
    """Probabilities in which no level is less probable than one below it, by raising the upper."""
    found = dict(chances)
    for label, chance in chances.items():
        for level in ancestors(label, sign)[:-1]:
            if level in found:
                found[level] = max(found[level], chance)
    return found


def closed(labels: Sequence[str], sign: str) -> list[str]:
    """The labels and everything above them, sorted."""
    return sorted({level for label in labels for level in ancestors(label, sign)})
