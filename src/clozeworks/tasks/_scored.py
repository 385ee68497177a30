"""What tasks have in common that score each alternative of an Example and compare the scores."""

from abc import abstractmethod
from collections.abc import Sequence as Items
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Sequence
from clozeworks.data.batches import Batch, Group, bounds
from clozeworks.model.heads import AnyEncoder, ClassHead, Model
from clozeworks.model.losses import log_sums
from clozeworks.tasks.base import Draw, Output, Part, Task
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import beside

Floats = npt.NDArray[np.float64]


class ScoredConfig(Settings):
    """How pairs of texts are read and scored."""

    kept: ClassVar[str] = ""
    """The setting that limits the text which every window holds."""

    max_length: int = Field(default=256, ge=32)
    """Longest sequence in tokens, special tokens included; longer texts are read in windows."""
    overlap: int = Field(default=64, ge=0)
    """Tokens that two windows of one text share."""
    join: Literal["max", "mean"] = "max"
    """What the score of a text in several windows is, in training too: their highest, or their
    mean."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pooled values dropped before the scores in training."""

    @model_validator(mode="after")
    def _room_for_windows(self) -> Self:
        kept = getattr(self, self.kept)
        if kept + self.overlap + 8 > self.max_length:
            raise ValueError(
                f"{self.kept} {kept} and overlap {self.overlap} leave no room in max_length "
                f"{self.max_length}"
            )
        return self


class Scored(Task):
    """A score for each alternative of an Example: one logit on the pooler, joined over windows.

    What is learned of an Example is what share of the right answer each alternative has.
    """

    pooled = True
    sequences_each = 16
    windows = True
    moving_first: ClassVar[bool] = False
    """Whether it is the first text of each pair that is read in windows."""
    config: ScoredConfig

    @abstractmethod
    def shares(self, target: Any, count: int) -> Floats:
        """What each of `count` alternatives is worth, [count], by what `target` says."""

    # === Data ===

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `owners` [N] int64, `alternatives` [G + 1] int64 and `shares` [A] fp32.

        Owners are the numbers of the sequences' alternatives, counted over the batch; alternatives
        are how many there are before each group.
        """
        counts = [1 + max(s.text for s in group.sequences) for group in groups]
        before = bounds(np.array(counts, dtype=np.int64))
        owners = [
            s.text + int(start)
            for group, start in zip(groups, before[:-1], strict=True)
            for s in group.sequences
        ]
        worth = [self.shares(g.target, count) for g, count in zip(groups, counts, strict=True)]
        return batch.with_targets(
            owners=torch.tensor(owners, dtype=torch.int64),
            alternatives=torch.from_numpy(before),
            shares=torch.from_numpy(np.concatenate(worth).astype(np.float32)),
        )

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ClassHead(encoder, 1, self.config.dropout)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return model.pooled_rows(batch)

    def scores(self, model: Model, rows: Tensor, batch: Batch) -> Tensor:
        """The score of each sequence, [N] fp32."""
        head = model.heads[self.head_name or self.name]
        scores: Tensor = head(model.pooled(rows, batch)).float()[:, 0]
        return scores

    def joined(self, model: Model, rows: Tensor, batch: Batch) -> Tensor:
        """The score of each alternative of a training batch, [A] fp32."""
        scores, owners = self.scores(model, rows, batch), batch.targets["owners"]
        empty = scores.new_zeros(len(batch.targets["shares"]))
        rule = "amax" if self.config.join == "max" else "mean"
        return empty.scatter_reduce(0, owners, scores, rule, include_self=False)

    def predict(self, model: Model, batch: Batch) -> Output:
        """`scores` [N] fp32."""
        encoder = model.encoder
        read = model.pooled_rows(batch)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"scores": self.scores(model, rows, batch)}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """The `score` of each sequence, and the number of the `alternative` it is of."""
        scores = output["scores"].tolist()
        return [
            {"alternative": s.text, "score": score}
            for s, score in zip(batch.sequences, scores, strict=True)
        ]

    def scored(self, parts: Items[Part]) -> Floats:
        """The scores of an Example's alternatives, joined over windows as in training."""
        count = 1 + max(part["alternative"] for part in parts)
        windows: list[list[float]] = [[] for _ in range(count)]
        for part in parts:
            windows[part["alternative"]].append(part["score"])
        join = max if self.config.join == "max" else np.mean
        return np.array([join(scores) for scores in windows], dtype=np.float64)

    def windows_of(
        self, kept: Ints, moving: Ints, tokenizer: Tokenizer, alternative: int, cut: int
    ) -> list[Sequence]:
        """The windows of one alternative, the first of which counts `cut` tokens as left out."""
        limits = self.config.max_length, self.config.overlap
        found = beside(kept, moving, tokenizer.form, limits, moving_first=self.moving_first)
        lost = (cut if i == 0 else 0 for i in range(len(found)))
        return [replace(s, text=alternative, truncated=n) for s, n in zip(found, lost, strict=True)]


def listwise(scores: Tensor, batch: Batch) -> Tensor:
    """Σ over groups of the cross-entropy of their alternatives' softmax with `shares`."""
    ends, shares = batch.targets["alternatives"], batch.targets["shares"]
    totals = log_sums(scores[:, None], ends)[:, 0]
    return -(shares * (scores - totals.repeat_interleave(ends.diff()))).sum()


def answerable(batch: Batch) -> Tensor:
    """Which groups have something right, [G] bool."""
    shares, ends = batch.targets["shares"], batch.targets["alternatives"]
    owner = torch.repeat_interleave(torch.arange(len(ends) - 1, device=ends.device), ends.diff())
    return shares.new_zeros(len(ends) - 1).index_add(0, owner, shares) > 0


Naming = Literal["text", "0", "1", "A"]
"""How an alternative is named: by its text, its number from 0 or from 1, or its letter."""


def place_of(
    name: str, among: Items[str], naming: Naming, setting: str, more: Items[str] = ()
) -> int:
    """The number of the alternative that `name` names, from 0.

    Raises UserError where it names none, or several; `setting` says how they are named, by `more`
    ways too than the usual ones.
    """
    name = name.strip()
    if naming == "text":
        return _place_of_text(name, among, setting, more)
    last = len(among) - 1
    if naming == "A":
        letter = name.upper()  # which may be two: ß is SS
        place = ord(letter) - ord("A") if len(letter) == 1 else -1
        ends = "A", chr(ord("A") + last)
    else:
        place = int(name) - int(naming) if name.isdecimal() else -1
        ends = naming, str(last + int(naming))
    if not 0 <= place <= last:
        raise UserError(
            f"{name!r} names none of {last + 1}, which are called {ends[0]} to {ends[1]}; correct "
            f"it, or choose another {setting} (choices: {', '.join((*get_args(Naming), *more))})"
        )
    return place


def _place_of_text(name: str, among: Items[str], setting: str, more: Items[str]) -> int:
    places = [i for i, text in enumerate(among) if text.strip() == name]
    if len(places) == 1:
        return places[0]
    if places:
        raise UserError(
            f"{name!r} is there {len(places)} times, so that it does not say which is meant; give "
            f"its number, with 0 or 1 as {setting} for where counting begins"
        )
    shown = ", ".join(map(repr, among[:5])) + (", …" if len(among) > 5 else "")
    hint = ""
    if name.isdecimal() or len(name) == 1:
        ways = ", ".join(("0", "1", *more))
        hint = f"; if it is a number or a letter, say so: {setting} can be {ways} or A"
    raise UserError(f"{name!r} is none of {len(among)} (choices: {shown}){hint}")
