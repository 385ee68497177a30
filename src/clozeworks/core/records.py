"""The words data is spoken of in: Example, Sequence, Prediction, Vocabulary."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Target = int | float | npt.NDArray[Any]
"""What is to be learned of one Example: a class, a number, or one of them for each of its parts."""

BERT_ROLES = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
"""What BERT calls the five tokens every tokenizer here must have."""


class Record(BaseModel):
    """One row a person reads or writes; unknown fields are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Example(Record):
    """What a person labels. A task's own Example adds its fields; None means "not given"."""

    either: ClassVar[frozenset[str]] = frozenset()
    """Fields of which each row must hold one, where none is required by itself."""


class Prediction(Record):
    """What a person reads back for one Example."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Token ids of one text, pair or window, special tokens included.

    ids [n] int64; segments [n] int64 (0 or 1); spans [n, 2] int64, the characters of the original
    text each token covers (0, 0 for special tokens), or None where nobody needs them.
    """

    ids: Ints
    segments: Ints
    spans: Ints | None = None
    truncated: int = 0
    """How many tokens of the text did not fit and were left out; reported, never silent."""
    words: Bools | None = None
    """[n] bool, whether each token begins a word; None where nobody asked."""
    rows: Ints | None = None
    """[k] int64, the tokens a task asks about, such as each word's first; None: not by token."""
    units: Ints | None = None
    """[k, 2] int64, the characters each of those stands for."""
    text: int = 0
    """Which of its Example's texts or alternatives it is of, where those are read apart."""
    allowed: Ints | None = None
    """[c] int64, the ids that may be put at a [MASK]; None: any."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Vocabulary:
    """What a task may know of a tokenizer: its size, its special ids, the ids a draw may give."""

    size: int
    pad: int
    unknown: int
    cls: int
    sep: int
    mask: int
    special: frozenset[int]
    """Ids never masked, predicted or drawn: the five above, other special tokens, `[unused…]`."""
    drawable: Ints = field(repr=False)
    """Ids a random replacement may give, ascending, int64: everything that is not special."""
    pieces: tuple[str, ...] = field(repr=False)
    """The pieces in id order."""

    @classmethod
    def of(
        cls,
        pieces: list[str],
        roles: Mapping[str, str] = BERT_ROLES,
        more: Collection[str] = (),
    ) -> "Vocabulary":
        """Build from the pieces in id order.

        `roles` says which piece is pad, unk, cls, sep and mask, `more` which others are special.
        Raises KeyError if the piece of a role is missing.
        """
        ids = {piece: i for i, piece in enumerate(pieces)}
        pad, unknown, start, sep, mask = (ids[roles[role]] for role in BERT_ROLES)
        names = {*roles.values(), *more}
        special = frozenset(
            i for p, i in ids.items() if p in names or (p.startswith("[unused") and p[-1] == "]")
        )
        drawable = np.array([i for i in range(len(pieces)) if i not in special], dtype=np.int64)
        return cls(len(pieces), pad, unknown, start, sep, mask, special, drawable, tuple(pieces))


def as_json(record: BaseModel) -> dict[str, Any]:
    """The record as JSON-ready values, fields that were not given left out."""
    return record.model_dump(mode="json", exclude_none=True)
