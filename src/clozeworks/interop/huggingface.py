"""Opens Hugging Face folders as models, and writes models as Hugging Face folders."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clozeworks.core.bundle import CARD, GENERATOR, OWN, Bundle, Card
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_folder
from clozeworks.core.records import as_json
from clozeworks.interop.sentences import bare_pooler, write_sentence_files
from clozeworks.interop.tensors import check_numbers, read_tensors, write_tensors
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import initialise
from clozeworks.model.families import FAMILIES, Family, check_class, family_named
from clozeworks.model.heads import AnyEncoder, Model, encoder_of
from clozeworks.model.names import (
    State,
    sources_of,
    their_names,
    to_ours,
    to_theirs,
    without_copies,
)
from clozeworks.tasks import TASKS
from clozeworks.tasks.base import Task
from clozeworks.text.tokenizer import Tokenizer


class Opened(NamedTuple):
    """A model from a folder, and which of its parts the folder did not hold."""

    model: Model
    fresh: list[str]
    """Names of the modules that were initialised anew, such as `heads.classify`."""


def family_of(bundle: Bundle) -> Family:
    """The family `config.json` names."""
    with named(bundle):
        return family_named(str(bundle.config.get("model_type") or "bert"))


def config_of(bundle: Bundle) -> EncoderConfig:
    """The encoder `config.json` describes."""
    with named(bundle):
        return family_of(bundle).config(bundle.config)


def heads_of(bundle: Bundle) -> frozenset[str]:
    """The heads of the Hugging Face class that `config.json` names; none for an unknown class.

    Of a family that no class holds, those of the task the card names.
    """
    names = bundle.config.get("architectures")
    classes = {name: heads for heads, name in family_of(bundle).architectures.items()}
    if not classes:
        tasks = filter(None, (bundle.card.task or "").split("+"))
        bare = {name for name in TASKS.names() if TASKS.get(name).headless}
        return frozenset(tasks) - bare
    first = names[0] if isinstance(names, list) and names else None
    return classes.get(str(first), frozenset())


def labels_of(bundle: Bundle) -> list[str]:
    """Label names in the order of the head's outputs, from the card or from config.json."""
    if bundle.card.labels is not None:
        return bundle.card.labels
    id2label = bundle.config.get("id2label")
    if id2label is None and heads_of(bundle) in ({"classify"}, {"tag"}):
        return ["LABEL_0", "LABEL_1"]  # Hugging Face writes nothing where this is so
    id2label = id2label or {}
    if not isinstance(id2label, dict) or not all(str(key).isdecimal() for key in id2label):
        raise UserError(
            f"{bundle.path / 'config.json'}: id2label should name a label for each number, "
            f"as in {{'0': 'no', '1': 'yes'}}; it is {id2label!r}"
        )
    return [str(id2label[key]) for key in sorted(id2label, key=int)]


def open_model(bundle: Bundle, task: Task, seed: int = 0, *, to_train: bool = False) -> Opened:
    """Build the task's model with the folder's weights, in fp32 on the CPU.

    Heads the folder does not hold, or holds for other labels, are initialised from `seed`; the
    encoder must be whole. With `to_train` the model has what only training needs, too. Raises
    UserError naming the first missing tensor or wrong shape.
    """

    def build(encoder: AnyEncoder) -> Model:
        model = task.build(encoder)
        if to_train:
            task.equip(model)
        return model

    other = bool(task.labels) and task.labels != labels_of(bundle)
    anew = frozenset({task.name} if other else ())
    return open_with(bundle, build, seed, anew, more=_generators(bundle) if to_train else {})


def open_with(
    bundle: Bundle,
    build: Callable[[AnyEncoder], Model],
    seed: int = 0,
    anew: frozenset[str] = frozenset(),
    more: Mapping[str, Tensor] = MappingProxyType({}),
) -> Opened:
    """As `open_model`, for a model that `build` makes; the heads named in `anew` start fresh.

    Tensors in `more`, by our names, come from elsewhere.
    """
    config, family = config_of(bundle), family_of(bundle)
    theirs, apart = tensors_of(bundle)
    with named(bundle):
        ours = under_our_names(theirs, config, _heads_there(bundle, family)) | own_tensors(bundle)
        own = tuple(f"heads.{name}." for name in anew)
        kept = {name: tensor for name, tensor in ours.items() if not name.startswith(own)}
        opened = filled(config, {**kept, **more}, build, seed, theirs)
        if "mlm" in opened.model.heads.keys() - anew:
            refuse_apart(apart)
        return opened


def tensors_of(bundle: Bundle) -> tuple[State, dict[str, str]]:
    """Every tensor of the folder by Hugging Face's name in a model with heads, but for copies.

    Also the names of those that should be copies of others and are none, with the others'.
    """
    family = family_of(bundle)
    return without_copies(_prefixed(_read(bundle), family), family.tied)


def own_tensors(bundle: Bundle) -> State:
    """The tensors of the folder that no class of Hugging Face's has, by our names."""
    path = bundle.path / OWN
    return dict(read_tensors(path)) if path.exists() else {}


def _generators(bundle: Bundle) -> State:
    """The tensors of the generator in the folder, where there is one, as a model names them."""
    inner = bundle.generator
    if inner is None:
        return {}
    theirs, apart = tensors_of(inner)
    with named(inner):
        refuse_apart(apart)
    ours = under_our_names(theirs, config_of(inner), heads_of(inner))
    return {f"{GENERATOR}.{name}": tensor for name, tensor in ours.items()}


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


PRETRAINING = frozenset({"mlm", "nsp", "sop", "rtd"})
"""Heads whose tensors are called the same in every class that has them."""


def _heads_there(bundle: Bundle, family: Family) -> frozenset[str]:
    """The heads whose names to look for: those of the class; for pretraining classes, all such.

    Published folders hold pretraining heads that the class they name does not have.
    """
    named = heads_of(bundle)
    if not named <= PRETRAINING or not family.architectures:
        return named
    return PRETRAINING & frozenset[str]().union(*family.architectures, named)


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


@contextmanager
def named(bundle: Bundle) -> Iterator[None]:
    """Say which folder an error is about."""
    try:
        yield
    except UserError as error:
        where = "" if str(error).startswith(str(bundle.path)) else f"{bundle.path}: "
        raise UserError(f"{where}{error}") from error


def _read(bundle: Bundle) -> State:
    """Every tensor of the folder under its own name; nothing in the file is executed."""
    state: State = {}
    for path in bundle.weights:
        state |= read_tensors(path)
    return state


def _prefixed(state: State, family: Family) -> State:
    """Bring names to one form: with the family's prefix, `weight` and `bias` for norms."""
    bare = not any(name.startswith(family.prefix) for name in state)
    out: State = {}
    for name, tensor in state.items():
        if name.endswith(family.ignored):
            continue
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        out[family.prefix + name if bare else name] = tensor
    return out


def write_bundle(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer,
    card: Card,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a model folder that `transformers` opens, heads included, with our card beside it.

    Weights are fp32 safetensors under the family's names; `more` are further keys of config.json.
    Written whole or not at all; an existing folder is replaced. A generator is written as a folder
    of its own inside. Raises UserError if the family has no class with the model's heads.
    """
    folder = Path(folder)
    described = FAMILIES.get(model.config.family)()
    check_class(described, frozenset(model.heads))
    with write_folder(folder, replace=True) as aside:
        config = {**_config(model, described, card), **more}
        (aside / "config.json").write_text(_json(config), "utf-8")
        (aside / CARD).write_text(_json(as_json(card)), "utf-8")
        tokenizer.save(aside)
        if described.architectures:
            write_sentence_files(aside, card, model.config.hidden_size)
        generator = f"{GENERATOR}."
        own = {n: p for n, p in model.named_parameters() if not n.startswith(generator)}
        state = {name: p.detach().float().cpu() for name, p in own.items()}
        state |= bare_pooler(model, described, card)
        names, layers = described.names(frozenset(model.heads)), described.layers(model.config)
        known = sources_of(names, layers)
        if ours := {name: tensor for name, tensor in state.items() if name not in known}:
            write_tensors(aside / OWN, ours)
        theirs = to_theirs({n: t for n, t in state.items() if n in known}, names, layers)
        write_tensors(aside / "model.safetensors", _as_class(theirs, config, described))
        if model.generator is not None:
            inner = card.model_copy(update={"task": "mlm", "settings": {}})
            write_bundle(aside / GENERATOR, model.generator, tokenizer, inner)
    return folder


def _config(model: Model, family: Family, card: Card) -> dict[str, Any]:
    heads = frozenset(model.heads)
    values = family.values(model.config)
    values["architectures"] = [family.architectures[heads]] if family.architectures else []
    if card.labels is not None:
        values["id2label"] = {str(i): label for i, label in enumerate(card.labels)}
        values["label2id"] = {label: i for i, label in enumerate(card.labels)}
        values["problem_type"] = _problem_type(card)
    if "classify" in model.heads and card.settings.get("dropout") is not None:
        values["classifier_dropout"] = card.settings["dropout"]
    return values


def _problem_type(card: Card) -> str:
    """What `transformers` calls a classifier's kind; of one output, what it takes it for."""
    kind = "regression" if len(card.labels or []) == 1 else "single"
    return PROBLEM_TYPES[card.settings.get("kind", kind)]


PROBLEM_TYPES = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def _as_class(theirs: State, config: Mapping[str, Any], family: Family) -> State:
    """A bare encoder's file has no prefix before its names."""
    if config["architectures"] != [family.architectures.get(frozenset())]:
        return theirs
    return {name.removeprefix(family.prefix): tensor for name, tensor in theirs.items()}


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def check_match(
    tokenizer: Tokenizer, model_size: int, where: str, expected: str | None = None
) -> None:
    """Raise UserError if the tokenizer is not the `expected` one, or has more pieces than rows."""
    if expected is not None and tokenizer.hash != expected:
        raise UserError(
            f"{where}: the tokenizer is not the one the model was trained with "
            f"({tokenizer.hash[:12]}, not {expected[:12]}); put that one back"
        )
    if tokenizer.vocabulary.size > model_size:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocabulary.size:,} pieces but the model "
            f"{model_size:,}; they do not belong together: use the tokenizer it was trained with"
        )
