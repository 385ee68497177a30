"""Takes all that a checkpoint from elsewhere holds: its heads, its labels, and what is over."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from torch import nn

from clozeworks.core.bundle import Bundle, Card
from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.core.log import say
from clozeworks.interop.fill import check_whole, filled, known_names, refuse_apart, under_our_names
from clozeworks.interop.huggingface import (
    PRETRAINING,
    config_of,
    family_of,
    heads_of,
    labels_of,
    named,
    own_tensors,
    tensors_of,
)
from clozeworks.interop.pair import is_pair
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import initialise
from clozeworks.model.families import FAMILIES, Heads, public_heads
from clozeworks.model.heads import AnyEncoder, Model, Pooler, encoder_of, head_of, needs_pooler
from clozeworks.model.names import State, sources_of, to_theirs


class Taken(NamedTuple):
    """A model made of tensors from elsewhere."""

    model: Model
    labels: list[str] | None
    """What its head of classes tells apart; None where it has none."""
    left_out: list[str]
    """Their names of the tensors that no class with the model's heads has."""
    fresh: list[str]
    """Their names of the tensors that were not there and start fresh."""


def take_bundle(bundle: Bundle, allowed: Collection[str] = ()) -> Taken:
    """The whole model of a Hugging Face folder, as `take`."""
    if is_pair(bundle.config):
        raise UserError(
            f"{bundle.path} is an encoder with a decoder (seq2seq), which is used as it is, and "
            "neither converted nor extended"
        )
    (theirs, apart), config = tensors_of(bundle), config_of(bundle)
    told = bundle.card.labels is not None or bundle.config.get("id2label") is not None
    with named(bundle):
        heads = heads_there(theirs, config, heads_of(bundle))
        if "mlm" in heads:
            refuse_apart(apart, {*allowed, *(family_of(bundle).prefix + name for name in allowed)})
        taken = take(theirs, config, heads, labels_of(bundle) if told else None, allowed)
        _hold(taken.model, own_tensors(bundle))
        return taken._replace(left_out=sorted([*taken.left_out, *apart]))


def _hold(model: Model, tensors: State) -> None:
    """Give the model's heads tensors that no class has, such as a CRF's, to be written again."""
    for name, tensor in tensors.items():
        head, part, last = name.removeprefix("heads.").split(".")
        if head not in model.heads and not public_heads([head]):
            model.heads[head] = nn.Module()  # a head that is ours alone
        if head in model.heads:
            module = model.heads[head]
            if part not in dict(module.named_children()):
                module.add_module(part, nn.ParameterDict())
            module.get_submodule(part).register_parameter(last, nn.Parameter(tensor.clone()))


def take(
    theirs: State,
    config: EncoderConfig,
    heads: Heads,
    labels: list[str] | None = None,
    allowed: Collection[str] = (),
) -> Taken:
    """The model with these heads that tensors under Hugging Face's names make.

    Tensors named in `allowed` may be missing, and start fresh, or be such as no model of the family
    has. Raises UserError naming others that are missing or unknown.
    """
    family = FAMILIES.get(config.family)()
    table, layers = family.names(heads), family.layers(config)
    sources = sources_of(table, layers)
    labels = _labels(theirs, sources, heads, labels)
    allowed = {*allowed, *(family.prefix + name for name in allowed)}
    known = known_names(config, heads)
    kept = {name: tensor for name, tensor in theirs.items() if name in known or name not in allowed}

    def build(encoder: AnyEncoder) -> Model:
        return with_heads(encoder, heads, labels or [])

    with torch.device("meta"):
        wanted = build(encoder_of(config))
    needed = [source for name, _ in wanted.named_parameters() for source in sources[name]]
    fresh = [name for name in needed if name not in kept]
    _refuse_missing([name for name in fresh if name not in allowed])
    if fresh:
        spare = build(encoder_of(config))
        initialise(spare, config.init_std, 0)
        values = to_theirs(dict(spare.named_parameters()), table, layers)
        kept |= {name: values[name].detach() for name in fresh}
    ours = under_our_names(kept, config, heads)
    check_whole(wanted, "", ours, config, heads)
    model = filled(config, ours, build).model
    return Taken(model, labels, sorted(theirs.keys() - needed), fresh)


def heads_there(
    theirs: State, config: EncoderConfig, told: Heads, among: Collection[Heads] | None = None
) -> Heads:
    """The heads to take, where the config's class has those that were `told`.

    Published folders hold pretraining heads that the class they name does not have: of a class
    without other heads (or of none at all), the largest whose tensors are all there. `among`: the
    classes to choose from, unless all those of pretraining.
    """
    family = FAMILIES.get(config.family)()
    if not told <= PRETRAINING:
        return told
    if among is None:
        among = [heads for heads in family.architectures if heads <= PRETRAINING]
    with torch.device("meta"):
        encoder = encoder_of(config)

    def whole(heads: Heads) -> bool:
        sources = sources_of(family.names(heads), family.layers(config))
        with torch.device("meta"):
            names = [name for name, _ in with_heads(encoder, heads, []).named_parameters()]
        beyond = [name for name in names if not name.startswith("encoder.")]
        return all(source in theirs for name in beyond for source in sources[name])

    return max((heads for heads in among if told <= heads and whole(heads)), key=len, default=told)


def with_heads(encoder: AnyEncoder, heads: Iterable[str], labels: list[str]) -> Model:
    """An encoder with fresh heads of these names, and a pooler where its class holds one."""
    names, config = list(heads), encoder.config
    bare = not names and "pooler.dense" in FAMILIES.get(config.family)().modules
    pooler = Pooler(config) if bare or needs_pooler(config, names) else None
    modules = {name: head_of(name, encoder, len(labels) or 2) for name in names}
    return Model(encoder, pooler, modules)


def with_labels(card: Card, labels: list[str] | None, where: str) -> Card:
    """The card with the labels of a model's head; raises UserError if one is there twice."""
    if labels is None:
        return card
    return validated(Card, {**card.model_dump(), "labels": labels}, where)


def tell_rest(taken: Taken) -> None:
    """Say which tensors are not in the model, and which of the model's were not there."""
    if taken.left_out:
        say(f"left out, as no class with these heads has them: {', '.join(taken.left_out)}")
    if taken.fresh:
        say(f"missing, and filled with fresh values: {', '.join(taken.fresh)}")


def _refuse_missing(names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
        raise UserError(
            f"the weights lack {shown}; copy them again, or let them start fresh: "
            "clozeworks convert … --allow-missing NAME"
        )


def _labels(
    theirs: State, sources: dict[str, tuple[str, ...]], heads: Heads, told: list[str] | None
) -> list[str] | None:
    """As many labels as the head of classes tells apart, numbered where nothing names them."""
    head = next(iter(heads & {"classify", "tag"}), None)
    if head is None:
        return None
    weight = theirs.get(sources[f"heads.{head}.dense.weight"][0])
    if weight is None:
        return told or ["LABEL_0", "LABEL_1"]
    if told is not None and len(told) != len(weight):
        raise UserError(
            f"the weights tell {len(weight)} labels apart, but {len(told)} are named "
            f"({', '.join(told)}); correct id2label in config.json"
        )
    return told or [f"LABEL_{number}" for number in range(len(weight))]
