"""Tensors of a folder, by our names, into a model: known ones only, and the encoder whole."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clozeworks.core.errors import UserError
from clozeworks.interop.tensors import check_numbers
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import initialise
from clozeworks.model.families import FAMILIES
from clozeworks.model.heads import AnyEncoder, Model, encoder_of
from clozeworks.model.names import State, sources_of, their_names, to_ours


class Opened(NamedTuple):
    """A model from a folder, and which of its parts the folder did not hold."""

    model: Model
    fresh: list[str]
    """Names of the modules that were initialised anew, such as `heads.classify`."""


def refuse_apart(apart: Mapping[str, str], allowed: Collection[str] = ()) -> None:
    """Raise UserError naming a tensor that should be a copy of another and is not."""
    for name, twin in apart.items():
        if name not in allowed:
            raise UserError(
                f"{name} is not the same as {twin}: an output embedding of its own is not "
                f"supported; leave it out: clozeworks convert … --allow-missing {name}"
            )


def under_our_names(theirs: State, config: EncoderConfig, heads: frozenset[str]) -> State:
    """Tensors by our names, `heads` among them; raises UserError if there are unknown ones.

    Heads of the family's other classes are passed over.
    """
    family = FAMILIES.get(config.family)()
    if unknown := sorted(theirs.keys() - known_names(config, heads)):
        raise UserError(
            f"the weights hold what {config.num_layers} layers of a {config.family} do not: "
            f"{_some(unknown)}; correct config.json, or leave them out: "
            "clozeworks convert … --allow-missing NAME"
        )
    check_numbers(theirs)
    return to_ours(theirs, family.names(heads), family.layers(config))


def known_names(config: EncoderConfig, heads: frozenset[str]) -> set[str]:
    """Their names of every tensor that a class of the family has, or one with these heads."""
    family = FAMILIES.get(config.family)()
    classes = [*family.architectures, frozenset[str](), heads]
    layers = family.layers(config)
    return {name for some in classes for name in their_names(family.names(some), layers)}


def filled(
    config: EncoderConfig,
    ours: State,
    build: Callable[[AnyEncoder], Model],
    seed: int = 0,
    theirs: Mapping[str, Tensor] = MappingProxyType({}),
) -> Opened:
    """The model `build` makes of the config's encoder, with the tensors in it.

    A pooler that `ours` lacks is taken from `theirs`, where what the model's own class calls so is
    there: ModernBERT's classes share one name for it and for the dense layer of masked tokens.
    Raises UserError if the encoder lacks a tensor, or has it in another shape.
    """
    with torch.device("meta"):  # a config.json gone wrong may ask for more memory than there is
        check_whole(encoder_of(config), "encoder", ours, config)
    model = build(encoder_of(config))
    initialise(model, config.init_std, seed)
    family = FAMILIES.get(config.family)()
    if not model.heads and model.pooler is None:
        model.kept = {name: tensor for name, tensor in ours.items() if name.startswith("pooler.")}
    table = family.names(frozenset(model.heads))
    pooler = {name: theirs_ for name, theirs_ in table.items() if name.startswith("pooler.")}
    return Opened(model, _fill(model, {**to_ours(theirs, pooler, ()), **ours}))


def _some(names: list[str]) -> str:
    """The first names of a list, and how many there are."""
    more = f", … ({len(names)} in all)" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def check_whole(
    module: nn.Module,
    prefix: str,
    ours: State,
    config: EncoderConfig,
    heads: frozenset[str] = frozenset(),
) -> None:
    """Raise UserError naming the tensors of the module that are not there, or not so."""
    family = FAMILIES.get(config.family)()
    sources = sources_of(family.names(heads), family.layers(config))
    wanted = dict(module.named_parameters(prefix=prefix))
    if missing := [source for name in wanted if name not in ours for source in sources[name]]:
        raise UserError(f"the weights lack {_some(missing)}; copy the model again")
    for name, parameter in wanted.items():
        if ours[name].shape != parameter.shape:
            raise UserError(
                f"the weights and config.json do not agree: {' + '.join(sources[name])} should be "
                f"{list(parameter.shape)}, {list(ours[name].shape)} there"
            )


def _fill(model: Model, ours: State) -> list[str]:
    """Copy the tensors in; return the modules that had none."""
    fresh = set()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = ours.get(name)
            if tensor is None or tensor.shape != parameter.shape:
                fresh.add(module_of(name))
                continue
            if not torch.isfinite(tensor).all():
                raise UserError(
                    f"{name} holds NaN or infinity; its training diverged, or the file is "
                    "damaged: use another model"
                )
            parameter.copy_(tensor)
    return sorted(fresh)


def module_of(name: str) -> str:
    """The part of a model one of our tensor names is of: `encoder`, `pooler`, `heads.classify`."""
    return ".".join(name.split(".")[: 2 if name.startswith("heads.") else 1])
