"""What is wrong with labelled data before training on it, and what to do about each thing."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from clozeworks.core.records import Ints, Record
from clozeworks.text.tokenizer import Tokenizer

SHOWN = 3
"""Cases shown of each kind of trouble."""

BINS = 12
"""Bars of the length histogram below the window."""

_LONG_WORD = re.compile(r"[^\W_\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]{101,}")
"""WordPiece makes one unknown token of a word of more than 100 characters."""


class Row(NamedTuple):
    """What is looked at of an Example."""

    texts: list[str]
    label: str | list[str] | None
    apart: bool = False
    """Whether each text is read by itself, and not all of them as one."""


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


class Split(Record):
    """What was found in one split."""

    rows: int
    classes: dict[str, int]
    """Rows of each class, most first."""
    unlabelled: int
    empty: int
    duplicates: int
    """Rows whose text, white space and case aside, came before in the split."""
    lengths: Lengths | None
    """None where every row is empty, or no tokenizer was named."""
    unknown_rate: float
    """Share of tokens that are the unknown token; 0 where no tokenizer was named."""
    long_words: int
    """Rows that hold a word of over 100 characters."""


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
        lines += [f"{o.first} ∩ {o.second}: {o.rows:,} rows of {o.second}" for o in self.overlaps]
        lines += [f"  {c.text!r}: {', '.join(c.labels)}" for c in self.conflicting]
        lines += [f"! {warning}" for warning in self.warnings]
        return lines if self.warnings else [*lines, "nothing to see to"]


def examine(
    splits: Mapping[str, Sequence[Row]],
    tokenizer: Tokenizer | None,
    window: int,
    most: int | None = None,
    cuts: bool = True,
) -> Findings:
    """Look through labelled splits (by name, the one trained on first) before training.

    Without a tokenizer, lengths and unknown tokens are not counted. `window` is the most tokens a
    model reads at once, special tokens included; `most` the widest window that the model allows,
    where that is known; `cuts` whether longer texts lose their ends, instead of being read in
    several windows. Texts are compared with white space and case folded.
    """
    found = {name: _examined(rows, tokenizer, window) for name, rows in splits.items()}
    overlaps = list(_overlaps(splits))
    conflicts = _conflicts(row for rows in splits.values() for row in rows)
    return Findings(
        window=window,
        splits=found,
        overlaps=overlaps,
        conflicts=len(conflicts),
        conflicting=conflicts[:SHOWN],
        warnings=[
            *(
                w
                for name, split in found.items()
                for w in _split_warnings(name, split, window if cuts else None, most)
            ),
            *_class_warnings(found),
            *_joint_warnings(found, overlaps, len(conflicts)),
        ],
    )


def _folded(row: Row) -> str:
    return "\x1f".join(" ".join(t.casefold().split()) for t in row.texts)


def _labels(row: Row) -> list[str]:
    """All of the row's labels."""
    if row.label is None:
        return []
    return row.label if isinstance(row.label, list) else [row.label]


def _is_empty(row: Row) -> bool:
    return not all(text.strip() for text in row.texts)


def _examined(rows: Sequence[Row], tokenizer: Tokenizer | None, window: int) -> Split:
    full = [row for row in rows if not _is_empty(row)]
    classes = Counter(label for row in rows for label in _labels(row))
    lengths, unknown = _measured(full, tokenizer) if tokenizer else (np.zeros(0, np.int64), 0.0)
    return Split(
        rows=len(rows),
        classes=dict(sorted(classes.items(), key=lambda item: (-item[1], item[0]))),
        unlabelled=sum(row.label is None for row in rows),
        empty=len(rows) - len(full),
        duplicates=len(full) - len({_folded(row) for row in full}),
        lengths=_summary(lengths, window) if len(lengths) else None,
        unknown_rate=unknown,
        long_words=sum(any(map(_LONG_WORD.search, row.texts)) for row in full),
    )


def _measured(rows: Sequence[Row], tokenizer: Tokenizer) -> tuple[Ints, float]:
    """The length of each row, [n] int64, and the share of unknown tokens."""
    lengths = np.zeros(len(rows), dtype=np.int64)
    tokens = unknown = 0
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024]
        sizes = [len(row.texts) for row in part]
        ids = iter(tokenizer.tokenize([text for row in part for text in row.texts]))
        for place, (row, size) in enumerate(zip(part, sizes, strict=True)):
            each = [next(ids) for _ in range(size)]
            own = np.concatenate(each)
            lengths[start + place] = len(own) + 1 + size  # [CLS], and [SEP] after each text
            if row.apart:
                lengths[start + place] = max(map(len, each)) + 2
            tokens += len(own)
            unknown += int(np.count_nonzero(own == tokenizer.vocabulary.unknown))
    return lengths, unknown / max(tokens, 1)


def _wider(wanted: int, most: int | None) -> str:
    """What to do about texts that are too long for the window."""
    if most is not None and wanted > most:
        return f"99 % need {wanted} tokens, the model has {most} positions (--max-length {most})"
    return f"a window of {wanted} holds 99 % (--max-length)"


def _summary(lengths: Ints, window: int) -> Lengths:
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99], method="inverted_cdf")
    edges = sorted({round(window * (i + 1) / BINS) for i in range(BINS)} - {0})
    counts = np.histogram(lengths, bins=[0, *(edge + 1 for edge in edges)])[0]
    over = int(np.count_nonzero(lengths > window))
    longest = int(lengths.max())
    bars = [(edge, int(count)) for edge, count in zip(edges, counts, strict=True)]
    return Lengths(
        p50=int(p50),
        p90=int(p90),
        p99=int(p99),
        longest=longest,
        over=over,
        histogram=[*bars, (longest, over)] if over else bars,
    )


def _overlaps(splits: Mapping[str, Sequence[Row]]) -> Iterator[Overlap]:
    texts = {n: [_folded(r) for r in rows if not _is_empty(r)] for n, rows in splits.items()}
    for first, second in combinations(texts, 2):
        known = set(texts[first])
        shared = sum(text in known for text in texts[second])
        yield Overlap(first=first, second=second, rows=shared)


def _conflicts(rows: Iterable[Row]) -> list[Conflict]:
    labels: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, str] = {}
    for row in rows:
        if row.label is not None and not _is_empty(row):
            folded = _folded(row)
            labels[folded].add(", ".join(sorted(_labels(row))))
            texts.setdefault(folded, " | ".join(row.texts))
    return [
        Conflict(text=_short(texts[folded]), labels=sorted(found))
        for folded, found in labels.items()
        if len(found) > 1
    ]


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _split_warnings(name: str, split: Split, window: int | None, most: int | None) -> Iterator[str]:
    """On one split; `window` is what cuts texts, None where nothing does."""
    if split.empty:
        yield f"{name}: {split.empty:,} rows are empty; remove them or pass --skip-empty"
    if split.duplicates:
        yield (
            f"{name}: {split.duplicates:,} rows repeat the text of another; "
            "remove them, or they count more than once"
        )
    if window is not None and split.lengths and split.lengths.over:
        share = split.lengths.over / (split.rows - split.empty)
        yield (
            f"{name}: {share:.1%} of the texts are longer than the window of {window} tokens and "
            f"lose their ends; {_wider(split.lengths.p99, most)}"
        )
    if split.unknown_rate > 0.01:
        yield (
            f"{name}: {split.unknown_rate:.1%} of the tokens are unknown to the tokenizer; "
            "use a model of this language, or train a tokenizer on such text"
        )
    if split.long_words:
        yield (
            f"{name}: {split.long_words:,} rows hold a word of over 100 characters, which becomes "
            "one unknown token; remove encoded data and addresses, or put spaces in"
        )


def _class_warnings(splits: Mapping[str, Split]) -> Iterator[str]:
    """On the classes of the first split, which is the one trained on."""
    (name, train), *others = splits.items()
    counts = train.classes
    if 0 < train.unlabelled < train.rows:
        yield f"{name}: {train.unlabelled:,} rows have no label; label them or remove them"
    if len(counts) == 1:
        yield f"{name}: every row has the label {next(iter(counts))!r}; add rows of another class"
    few = [label for label, count in counts.items() if count < 10]
    if few:
        yield (
            f"{name}: {len(few)} classes have fewer than 10 rows ({_listed(few)}); "
            "add rows, or join them with others"
        )
    if len(counts) > 1 and max(counts.values()) > 20 * min(counts.values()):
        yield (
            f"{name}: the largest class has over 20 times the rows of the smallest; "
            "judge by macro F1, and add rows of the small ones"
        )
    for other, split in others:
        if counts and (unseen := [label for label in split.classes if label not in counts]):
            yield (
                f"{other}: {len(unseen)} labels are never seen in {name} ({_listed(unseen)}); "
                f"correct them, or add such rows to {name}"
            )


def _joint_warnings(
    splits: Mapping[str, Split], overlaps: Iterable[Overlap], conflicts: int
) -> Iterator[str]:
    for o in overlaps:
        if o.rows:
            yield (
                f"{o.rows:,} of the {splits[o.second].rows:,} rows of {o.second} are also in "
                f"{o.first}: scores on {o.second} will flatter; remove them from {o.first}"
            )
    if conflicts:
        yield (
            f"{conflicts:,} texts carry different labels; choose one label for each, "
            "or no model can be right on both"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")


def _described(name: str, split: Split) -> Iterator[str]:
    yield f"{name}: {split.rows:,} rows, {split.empty:,} empty, {split.duplicates:,} repeated"
    if split.classes:
        shown = [f"{label} {count:,}" for label, count in list(split.classes.items())[:10]]
        rest = len(split.classes) - len(shown)
        more = f", … {rest} more" if rest > 0 else ""
        yield f"  {len(split.classes)} classes: {', '.join(shown)}{more}"
    if split.lengths is None:
        return
    lengths = split.lengths
    full = split.rows - split.empty
    yield (
        f"  tokens a row: half up to {lengths.p50}, 90 % up to {lengths.p90}, 99 % up to "
        f"{lengths.p99}, longest {lengths.longest}; {lengths.over / full:.1%} over the window"
    )
    yield f"  unknown tokens: {split.unknown_rate:.2%}"
    most = max(count for _, count in lengths.histogram)
    for upto, count in lengths.histogram:
        yield f"  {upto:>6} {'█' * round(30 * count / most)} {count:,}"
