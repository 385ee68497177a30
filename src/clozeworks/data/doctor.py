"""What is wrong with labelled data before training on it, and what to do about each thing."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from clozeworks.core.records import Ints
from clozeworks.data import advice
from clozeworks.data.findings import Conflict, Findings, Lengths, Overlap, Split, Targets
from clozeworks.text.tokenizer import Tokenizer

SHOWN = 3
"""Conflicts shown."""
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
    targets: Sequence[str] = ()
    """Texts that are to be written for it, the one that is learned first."""


class Window(NamedTuple):
    """How much text a model takes, in tokens, special tokens included."""

    tokens: int
    """The most that are read at once."""
    most: int | None = None
    """The widest window that the model allows, where that is known."""
    cuts: bool = True
    """Whether longer texts lose their ends, instead of being read in several windows."""
    written: int | None = None
    """The longest target; None where nothing is written."""


def examine(
    splits: Mapping[str, Sequence[Row]], tokenizer: Tokenizer | None, window: Window
) -> Findings:
    """Look through labelled splits (by name, the one trained on first) before training.

    Without a tokenizer, lengths and unknown tokens are not counted. Texts are compared with white
    space and case folded.
    """
    found = {name: _examined(rows, tokenizer, window) for name, rows in splits.items()}
    overlaps = list(_overlaps(splits))
    conflicts = _conflicts(row for rows in splits.values() for row in rows)
    read = window.tokens if window.cuts else None
    return Findings(
        window=window.tokens,
        splits=found,
        overlaps=overlaps,
        conflicts=len(conflicts),
        conflicting=conflicts[:SHOWN],
        warnings=[
            *(w for name, s in found.items() for w in advice.of_split(name, s, read, window.most)),
            *(w for name, s in found.items() for w in advice.of_targets(name, s, window.written)),
            *advice.of_classes(found),
            *advice.of_all(found, overlaps, len(conflicts)),
        ],
    )


def _folded(row: Row) -> str:
    return "\x1f".join(map(_folded_text, row.texts))


def _folded_text(text: str) -> str:
    return " ".join(text.casefold().split())


def _labels(row: Row) -> list[str]:
    """All of the row's labels."""
    if row.label is None:
        return []
    return row.label if isinstance(row.label, list) else [row.label]


def _short_of_texts(rows: Sequence[Row]) -> int:
    """Rows with fewer texts than others, where all of a row's are read as one."""
    most = max((len(row.texts) for row in rows), default=0)
    return sum(len(row.texts) < most and not row.apart for row in rows)


def _is_empty(row: Row) -> bool:
    return not all(text.strip() for text in row.texts)


def _examined(rows: Sequence[Row], tokenizer: Tokenizer | None, window: Window) -> Split:
    full = [row for row in rows if not _is_empty(row)]
    classes = Counter(label for row in rows for label in _labels(row))
    lengths, unknown = _measured(full, tokenizer)
    return Split(
        rows=len(rows),
        classes=dict(sorted(classes.items(), key=lambda item: (-item[1], item[0]))),
        unlabelled=sum(row.label is None for row in rows),
        empty=len(rows) - len(full),
        short=_short_of_texts(full),
        duplicates=len(full) - len({_folded(row) for row in full}),
        lengths=_summary(lengths, window.tokens),
        unknown_rate=unknown,
        long_words=sum(any(map(_LONG_WORD.search, row.texts)) for row in full),
        targets=_of_targets(rows, tokenizer, window.written) if window.written else None,
    )


def _of_targets(rows: Sequence[Row], tokenizer: Tokenizer | None, longest: int) -> Targets:
    first = [Row([row.targets[0]], None) for row in rows if any(map(str.strip, row.targets))]
    lengths, unknown = _measured(first, tokenizer)
    return Targets(
        missing=len(rows) - len(first),
        copies=sum(_folded(row) in map(_folded_text, row.targets) for row in rows),
        lengths=_summary(lengths, longest),
        unknown_rate=unknown,
    )


def _measured(rows: Sequence[Row], tokenizer: Tokenizer | None) -> tuple[Ints, float]:
    """The length of each row, [n] int64, and the share of unknown tokens."""
    if tokenizer is None:
        return np.zeros(0, dtype=np.int64), 0.0
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


def _summary(lengths: Ints, window: int) -> Lengths | None:
    if not len(lengths):
        return None
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
