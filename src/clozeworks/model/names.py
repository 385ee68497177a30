"""Tensor names there and here, as data: state in, state out, nothing else.

A table maps our name to theirs. `{}` stands for a layer; a tuple of their names means that our
tensor is those, joined along the first dimension.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items

import torch
from torch import Tensor

from clozeworks.core.errors import UserError

Table = Mapping[str, str | tuple[str, ...]]
State = dict[str, Tensor]


def rows(modules: Table, tensors: Table, bare: Iterable[str] = ()) -> Table:
    """A table from modules that have a weight and a bias, and single tensors.

    A module named in `bare` has no bias.
    """
    table: dict[str, str | tuple[str, ...]] = dict(tensors)
    without = set(bare)
    for ours, theirs in modules.items():
        for part in (".weight",) if ours in without else (".weight", ".bias"):
            if isinstance(theirs, str):
                table[ours + part] = theirs + part
            else:
                table[ours + part] = tuple(name + part for name in theirs)
    return table


def to_ours(theirs: Mapping[str, Tensor], table: Table, layers: Items[str]) -> State:
    """Tensors under our names, for every row of the table whose tensors are all there.

    `layers` are their names of the layers, in our order.
    """
    ours: State = {}
    for name, sources in sources_of(table, layers).items():
        found = [theirs[source] for source in sources if source in theirs]
        if len(found) == len(sources):
            ours[name] = found[0] if len(found) == 1 else torch.cat(found)
        elif found:
            there = next(source for source in sources if source in theirs)
            missing = next(source for source in sources if source not in theirs)
            raise UserError(f"the weights hold {there!r} but not {missing!r}; copy them again")
    return ours


def to_theirs(ours: Mapping[str, Tensor], table: Table, layers: Items[str]) -> State:
    """Tensors under their names; every one of `ours` must stand in the table."""
    known = sources_of(table, layers)
    theirs: State = {}
    for name, tensor in ours.items():
        targets = known[name]
        parts = tensor.chunk(len(targets))
        theirs |= {t: part.contiguous() for t, part in zip(targets, parts, strict=True)}
    return theirs


def without_copies(
    theirs: Mapping[str, Tensor], tied: Mapping[str, str]
) -> tuple[State, dict[str, str]]:
    """Tensors without copies of tied ones, and the names of copies that are none with their twins.

    `tied` gives the ends of copies' names with their twins'. A copy whose twin is not there is it.
    """
    kept, apart = dict(theirs), {}
    for name, tensor in theirs.items():
        twin = next((twin for end, twin in tied.items() if name.endswith(end)), None)
        if twin is None:
            continue
        del kept[name]
        if not torch.equal(kept.setdefault(twin, tensor), tensor):
            apart[name] = twin
    return kept, apart


def their_names(table: Table, layers: Items[str]) -> dict[str, str]:
    """Each of their names with ours, layers spelt out."""
    pairs = sources_of(table, layers).items()
    return {source: name for name, sources in pairs for source in sources}


def sources_of(table: Table, layers: Items[str]) -> dict[str, tuple[str, ...]]:
    """Each of our names with theirs, which joined are its tensor; layers spelt out."""
    found: dict[str, tuple[str, ...]] = {}
    for ours, theirs in table.items():
        sources = (theirs,) if isinstance(theirs, str) else theirs
        if "{}" not in ours:
            found[ours] = tuple(sources)
            continue
        for number, layer in enumerate(layers):
            found[ours.format(number)] = tuple(source.format(layer) for source in sources)
    return found
