"""Tensor names there and here, as data: state in, state out, nothing else.

A table maps our name to theirs. `{}` stands for a layer's number; a tuple of their names means that
our tensor is those, joined along the first dimension.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from clozeworks.core.errors import UserError

Table = Mapping[str, str | tuple[str, ...]]
State = dict[str, Tensor]


def to_ours(theirs: Mapping[str, Tensor], table: Table, num_layers: int) -> State:
    """Tensors under our names, for every row of the table whose tensors are all there."""
    ours: State = {}
    for name, sources in _rows(table, num_layers):
        found = [theirs[source] for source in sources if source in theirs]
        if len(found) == len(sources):
            ours[name] = found[0] if len(found) == 1 else torch.cat(found)
        elif found:
            there = next(source for source in sources if source in theirs)
            missing = next(source for source in sources if source not in theirs)
            raise UserError(f"the weights hold {there!r} but not {missing!r}; copy them again")
    return ours


def to_theirs(ours: Mapping[str, Tensor], table: Table, num_layers: int) -> State:
    """Tensors under their names; every one of `ours` must stand in the table."""
    rows = dict(_rows(table, num_layers))
    theirs: State = {}
    for name, tensor in ours.items():
        targets = rows[name]
        parts = tensor.chunk(len(targets))
        theirs |= {t: part.contiguous() for t, part in zip(targets, parts, strict=True)}
    return theirs


def _rows(table: Table, num_layers: int) -> list[tuple[str, tuple[str, ...]]]:
    rows = []
    for ours, theirs in table.items():
        sources = (theirs,) if isinstance(theirs, str) else theirs
        numbers: list[int | str] = list(range(num_layers)) if "{}" in ours else [""]
        rows += [(ours.format(n), tuple(s.format(n) for s in sources)) for n in numbers]
    return rows
