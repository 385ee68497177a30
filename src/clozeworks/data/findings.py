"""What the doctor finds in labelled data, and how it is said to a person."""

from collections.abc import Iterator

from clozeworks.core.log import counted
from clozeworks.core.records import Record


class Lengths(Record):
    """Lengths in tokens, special tokens included."""

    p50: int
    p90: int
    p99: int
    longest: int
    over: int
    """Rows longer than the window."""
    histogram: list[tuple[int, int]]
    """(up to this many tokens, rows); the last bar holds every row over the window."""


class Conflict(Record):
    """One text that carries different labels."""

    text: str
    labels: list[str]


class Targets(Record):
    """The texts that are to be written; of several for one row the first, which is learned."""

    missing: int
    """Rows without one."""
    copies: int
    """Those that say what is read, word for word."""
    lengths: Lengths | None
    """As a split's, against the longest target that is learned."""
    unknown_rate: float
    """Share of their tokens that are the unknown token, and so can never be written."""


class Split(Record):
    """What was found in one split."""

    rows: int
    classes: dict[str, int]
    """Rows of each class, most first."""
    unlabelled: int
    empty: int
    short: int
    """Rows that lack a text which others have, such as the second of a pair."""
    duplicates: int
    """Rows whose text, white space and case aside, came before in the split."""
    lengths: Lengths | None
    """None where every row is empty, or no tokenizer was named."""
    unknown_rate: float
    """Share of tokens that are the unknown token; 0 where no tokenizer was named."""
    long_words: int
    """Rows that hold a word of over 100 characters."""
    targets: Targets | None
    """None where nothing is to be written."""


class Overlap(Record):
    """Texts of `second` that are also in `first`."""

    first: str
    second: str
    rows: int
    """Rows of `second`."""


class Findings(Record):
    """Everything the doctor found; `lines` says it to a person."""

    window: int
    splits: dict[str, Split]
    overlaps: list[Overlap]
    conflicts: int
    """Texts with different labels, over all splits."""
    conflicting: list[Conflict]
    """A few of them."""
    warnings: list[str]
    """Each thing to see to, with its remedy."""

    def lines(self) -> list[str]:
        """The findings as lines of text."""
        lines = [line for name, split in self.splits.items() for line in _described(name, split)]
        lines += [
            f"{o.first} ∩ {o.second}: {counted(o.rows, 'row', 'rows')} of {o.second}"
            for o in self.overlaps
        ]
        lines += [f"  {c.text!r}: {', '.join(c.labels)}" for c in self.conflicting]
        lines += [f"! {warning}" for warning in self.warnings]
        return lines if self.warnings else [*lines, "nothing to see to"]


def _described(name: str, split: Split) -> Iterator[str]:
    """A split, line by line."""
    rows = counted(split.rows, "row", "rows")
    yield f"{name}: {rows}, {split.empty:,} empty, {split.duplicates:,} repeated"
    if split.classes:
        shown = [f"{label} {count:,}" for label, count in list(split.classes.items())[:10]]
        rest = len(split.classes) - len(shown)
        more = f", … {rest} more" if rest > 0 else ""
        yield f"  {counted(len(split.classes), 'class', 'classes')}: {', '.join(shown)}{more}"
    if split.lengths is None:
        return
    yield from _measured(split.lengths, split.unknown_rate, "tokens a row")
    if (targets := split.targets) is not None and targets.lengths is not None:
        yield f"  targets: {targets.missing:,} missing, {targets.copies:,} as in the source"
        yield from _measured(targets.lengths, targets.unknown_rate, "tokens a target")


def _measured(lengths: Lengths, unknown_rate: float, what: str) -> Iterator[str]:
    full = sum(count for _, count in lengths.histogram)
    yield (
        f"  {what}: half up to {lengths.p50}, 90 % up to {lengths.p90}, 99 % up to "
        f"{lengths.p99}, longest {lengths.longest}; {lengths.over / full:.1%} over the window"
    )
    yield f"  unknown tokens: {unknown_rate:.2%}"
    most = max(count for _, count in lengths.histogram)
    for upto, count in lengths.histogram:
        yield f"  {upto:>6} {'█' * round(30 * count / most)} {count:,}"
