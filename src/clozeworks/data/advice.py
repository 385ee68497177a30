"""What to see to in labelled data, and how: a sentence for each thing that the doctor found."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from clozeworks.core.log import counted
from clozeworks.data.findings import Overlap, Split

SHOWN = 3
"""Names shown of each kind of trouble."""
UNWRITTEN = 0.001
"""Share of unknown tokens in targets above which it is said."""


def of_split(name: str, split: Split, window: int | None, most: int | None) -> Iterator[str]:
    """On one split; `window` is what cuts texts, None where nothing does."""
    if split.empty:
        yield (
            f"{name}: {counted(split.empty, 'row is', 'rows are')} empty; remove them or pass "
            "--skip-empty"
        )
    if split.short:
        yield (
            f"{name}: {counted(split.short, 'row lacks', 'rows lack')} a text that others have; "
            "fill it in, or the row is read without"
        )
    if split.duplicates:
        yield (
            f"{name}: {counted(split.duplicates, 'row repeats', 'rows repeat')} the text of "
            "another; remove such rows, or they count more than once"
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
            f"{name}: {counted(split.long_words, 'row holds', 'rows hold')} a word of over 100 "
            "characters, which becomes one unknown token; remove encoded data and addresses, or "
            "put spaces in"
        )


def of_classes(splits: Mapping[str, Split]) -> Iterator[str]:
    """On the classes of the first split, which is the one trained on."""
    (name, train), *others = splits.items()
    counts = train.classes
    if 0 < train.unlabelled < train.rows:
        yield (
            f"{name}: {counted(train.unlabelled, 'row has', 'rows have')} no label; label or "
            "remove such rows"
        )
    for alike in _alike(counts):
        yield (
            f"{name}: labels {_listed(alike)} are classes of their own, and may be meant as one; "
            "write them alike"
        )
    if len(counts) == 1:
        yield f"{name}: every row has the label {next(iter(counts))!r}; add rows of another class"
    few = [label for label, count in counts.items() if count < 10]
    if few:
        yield (
            f"{name}: {counted(len(few), 'class has', 'classes have')} fewer than 10 rows "
            f"({_listed(few)}); add rows, or join them with others"
        )
    if len(counts) > 1 and max(counts.values()) > 20 * min(counts.values()):
        yield (
            f"{name}: the largest class has over 20 times the rows of the smallest; "
            "judge by macro F1, and add rows of the small ones"
        )
    for other, split in others:
        if counts and (unseen := [label for label in split.classes if label not in counts]):
            yield (
                f"{other}: {counted(len(unseen), 'label is', 'labels are')} never seen in {name} "
                f"({_listed(unseen)}); correct them, or add such rows to {name}"
            )


def of_all(
    splits: Mapping[str, Split], overlaps: Iterable[Overlap], conflicts: int
) -> Iterator[str]:
    for o in overlaps:
        if o.rows:
            yield (
                f"{counted(o.rows, 'row', 'rows')} of the {splits[o.second].rows:,} of {o.second} "
                f"are also in {o.first}: scores on {o.second} will flatter; remove them from "
                f"{o.first}"
            )
    if conflicts:
        yield (
            f"{counted(conflicts, 'text carries', 'texts carry')} different labels; choose one for "
            "each, or no model can be right on both"
        )


def of_targets(name: str, split: Split, longest: int | None) -> Iterator[str]:
    """On the texts that are to be written in one split, of at most so many tokens."""
    if (targets := split.targets) is None:
        return
    if targets.missing:
        yield (
            f"{name}: {counted(targets.missing, 'row has', 'rows have')} no target; write it, or "
            "remove the row"
        )
    if targets.copies:
        yield (
            f"{name}: {counted(targets.copies, 'target is its', 'targets are their')} source word "
            "for word, which teaches to copy; remove such rows unless that is wanted"
        )
    if targets.lengths and targets.lengths.over:
        share = targets.lengths.over / sum(count for _, count in targets.lengths.histogram)
        yield (
            f"{name}: {share:.1%} of the targets are longer than {longest} tokens and lose their "
            f"ends; {targets.lengths.p99} hold 99 % (--target-length)"
        )
    if targets.unknown_rate > UNWRITTEN:
        yield (
            f"{name}: {targets.unknown_rate:.2%} of the targets' tokens are unknown to the "
            "tokenizer and will never be written; use a model of this language, or give it the "
            "pieces (`clozeworks extend`)"
        )


def _alike(labels: Iterable[str]) -> Iterator[list[str]]:
    """Labels that differ by case, width or the writing of a number alone."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        folded = unicodedata.normalize("NFKC", label).casefold()
        with suppress(ValueError):
            folded = str(float(folded))
        groups.setdefault(folded, []).append(label)
    yield from (group for group in groups.values() if len(group) > 1)


def _wider(wanted: int, most: int | None) -> str:
    """What to do about texts that are too long for the window."""
    if most is not None and wanted > most:
        return f"99 % need {wanted} tokens, the model has {most} positions (--max-length {most})"
    return f"a window of {wanted} holds 99 % (--max-length)"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")
