"""Holding out a dev set by a hash of the text, so that it depends on nothing else."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeVar

from clozeworks.core.errors import UserError

E = TypeVar("E")


def hold_out(
    examples: Sequence[E],
    fraction: float,
    key: Callable[[E], str],
    label: Callable[[E], str | None],
) -> tuple[list[E], list[E]]:
    """Divide examples into (train, dev), dev about `fraction` of each class's distinct texts.

    `key` gives the text, `label` the class. The order of rows does not matter; rows of one text
    fall on the same side; a class with two texts or more keeps one in train. Raises UserError if
    the fraction is not between 0 and 1 or no class has two texts.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the share held out for dev is {fraction}; it must lie between 0 and 1")
    classes: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        classes[label(example) or ""].add(key(example))
    held = _held_texts(classes, fraction)
    if not held:
        raise UserError(
            "no dev set can be held out: no class has two different texts; give a dev file"
        )
    train = [e for e in examples if key(e) not in held]
    dev = [e for e in examples if key(e) in held]
    return train, dev


def _held_texts(classes: dict[str, set[str]], fraction: float) -> set[str]:
    held: set[str] = set()
    for name in sorted(classes):
        own = sorted(classes[name], key=text_hash)
        # Systematic sampling: each class starts at its own place, so that many small classes
        # together still give the fraction asked.
        start = text_hash(name) / 2**64
        taken = [text for i, text in enumerate(own) if (i + start) / len(own) < fraction]
        held |= set(taken)
    for name in sorted(classes):
        if classes[name] <= held:
            held.discard(max(classes[name], key=text_hash))
    alone = {text for texts in classes.values() if len(texts) == 1 for text in texts}
    free = set().union(*classes.values()) - alone
    return held or ({min(free, key=text_hash)} if free else set())


def text_hash(text: str) -> int:
    """A number that depends on the text alone, from 0 to 2⁶⁴ - 1."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
