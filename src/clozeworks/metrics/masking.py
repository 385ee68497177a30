"""What masking really did: rates, shares, special tokens touched, words split, by script."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clozeworks.core.config import Settings
from clozeworks.core.records import Bools, Ints


class Sample(NamedTuple):
    """One batch before and after its masks were drawn."""

    before: Ints
    """[T] ids."""
    after: Ints
    """[T] ids."""
    rows: Ints
    """[M] tokens to predict."""
    offsets: Ints
    """[N + 1] token bounds of the sequences."""
    begins: Bools | None
    """[T] whether each token begins a word, where that is known."""


class ScriptShare(Settings):
    """The tokens of one script."""

    tokens: int
    """Ordinary tokens."""
    rate: float
    """Share of them to predict."""


class MaskingReport(Settings):
    """What masking did to some batches."""

    asked: float
    """Share of ordinary tokens that the settings ask for."""
    rate: float
    """Share of them to predict."""
    masked: float
    """Of those, the share replaced by [MASK]."""
    random: float
    """Of those, the share replaced by another token."""
    kept: float
    """Of those, the share left as they are."""
    sequences: int
    tokens: int
    """Ordinary tokens: special ones are none."""
    specials_touched: int
    """Special tokens that were changed or are to be predicted, and special ones drawn; must be 0"""
    words_split: int | None
    """Words of which some tokens are to be predicted and some not; None where bounds are unknown"""
    fewest: int
    """Fewest tokens to predict in a sequence."""
    most: int
    """Most tokens to predict in a sequence."""
    scripts: dict[str, ScriptShare]
    """Rates by script."""
    end: "MaskingReport | None" = None
    """The same batches as the end of the run would hide them; None where nothing changes."""

    def lines(self) -> list[str]:
        """The report in two lines for people, and one more for the end of the run."""
        scripts = ", ".join(f"{name} {share.rate:.1%}" for name, share in self.scripts.items())
        split = "" if self.words_split is None else f", {self.words_split:,} words split"
        end = [] if self.end is None else [f"masks at the end: {self.end.shares_line}"]
        return [
            f"masks: {self.shares_line}",
            f"masks: {self.fewest} to {self.most} a sequence; {scripts}; "
            f"{self.specials_touched:,} special tokens touched{split}",
            *end,
        ]

    @property
    def shares_line(self) -> str:
        """The shares, realised and asked for."""
        shares = f"{self.masked:.1%} masked, {self.random:.1%} random, {self.kept:.1%} kept"
        return f"{self.rate:.2%} of tokens (asked {self.asked:.2%}): {shares}"


class Scripts(NamedTuple):
    """The script of every id of a vocabulary."""

    names: tuple[str, ...]
    of: npt.NDArray[np.uint8]
    """[vocabulary] places in `names`."""


def measure_masking(
    samples: Iterable[Sample], asked: float, mask: int, special: Ints, scripts: Scripts
) -> MaskingReport:
    """Measure batches, one after another; `mask` is [MASK]'s id, `special` every special id.

    A random token that happens to be the true one counts as kept.
    """
    tally = _Tally(mask, special, scripts)
    for sample in samples:
        tally.add(sample)
    return tally.report(asked)


class _Tally:
    """Counts over the batches seen so far."""

    def __init__(self, mask: int, special: Ints, scripts: Scripts) -> None:
        self.mask, self.scripts = mask, scripts
        self.special = np.zeros(len(scripts.of), dtype=np.bool_)
        self.special[special] = True
        self.shares = np.zeros(3, dtype=np.int64)
        self.every = np.zeros(len(scripts.names), dtype=np.int64)
        self.chosen = np.zeros(len(scripts.names), dtype=np.int64)
        self.per_sequence: list[int] = []
        self.touched = 0
        self.split: int | None = None

    def add(self, sample: Sample) -> None:
        """Count one batch."""
        before, after, rows = sample.before, sample.after, sample.rows
        ordinary = ~self.special[before]
        self.shares += _shares(before[rows], after[rows], self.mask)
        self.every += np.bincount(self.scripts.of[before[ordinary]], minlength=len(self.every))
        self.chosen += np.bincount(self.scripts.of[before[rows]], minlength=len(self.every))
        owners = np.searchsorted(sample.offsets, rows, side="right") - 1
        self.per_sequence += np.bincount(owners, minlength=len(sample.offsets) - 1).tolist()
        self.touched += _touched(sample, self.special, self.mask)
        if sample.begins is not None:
            self.split = (self.split or 0) + _split(sample, sample.begins, ordinary)

    def report(self, asked: float) -> MaskingReport:
        """The counts as shares."""
        predicted, tokens = int(self.shares.sum()), int(self.every.sum())
        masked, random, kept = (self.shares / max(1, predicted)).tolist()
        every, chosen = self.every.tolist(), self.chosen.tolist()
        return MaskingReport(
            asked=asked,
            rate=predicted / max(1, tokens),
            masked=masked,
            random=random,
            kept=kept,
            sequences=len(self.per_sequence),
            tokens=tokens,
            specials_touched=self.touched,
            words_split=self.split,
            fewest=min(self.per_sequence, default=0),
            most=max(self.per_sequence, default=0),
            scripts={
                name: ScriptShare(tokens=n, rate=c / n)
                for name, n, c in zip(self.scripts.names, every, chosen, strict=True)
                if n
            },
        )


def _shares(before: Ints, after: Ints, mask: int) -> Ints:
    """How many were masked, replaced, kept, [3]."""
    masked, kept = after == mask, (after == before) & (after != mask)
    return np.array([masked.sum(), (~masked & ~kept).sum(), kept.sum()], dtype=np.int64)


def _touched(sample: Sample, is_special: Bools, mask: int) -> int:
    """Special tokens changed or to be predicted, and special tokens that were drawn."""
    drawn = sample.after[sample.rows]
    wrong = is_special[sample.before] & (sample.after != sample.before)
    wrong[sample.rows] |= is_special[sample.before[sample.rows]]
    wrong[sample.rows] |= is_special[drawn] & (drawn != mask)
    return int(wrong.sum())


def _split(sample: Sample, begins: Bools, ordinary: Bools) -> int:
    """Words that are hidden in part; the first token of a sequence always begins one."""
    begins = begins.copy()
    begins[sample.offsets[:-1]] = True
    first = np.flatnonzero(begins)
    hidden = np.zeros(len(begins), dtype=np.int64)
    hidden[sample.rows] = 1
    of_word = np.add.reduceat(hidden, first)
    whole = np.add.reduceat(ordinary.astype(np.int64), first)
    return int(((of_word > 0) & (of_word < whole)).sum())
