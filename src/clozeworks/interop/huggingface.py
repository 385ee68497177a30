"""Opens Hugging Face folders as models, and writes models as Hugging Face folders."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from clozeworks.core.bundle import CARD, GENERATOR, OWN, Bundle, Card
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_folder
from clozeworks.core.records import as_json
from clozeworks.interop import pair
from clozeworks.interop.fill import Opened, filled, refuse_apart, under_our_names
from clozeworks.interop.sentences import bare_pooler, write_sentence_files
from clozeworks.interop.tensors import read_tensors, write_tensors
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import (
    FAMILIES,
    Family,
    check_class,
    family_named,
    public_heads,
)
from clozeworks.model.heads import AnyEncoder, Model, NumberHead
from clozeworks.model.names import (
    State,
    sources_of,
    to_theirs,
    without_copies,
)
from clozeworks.tasks import TASKS
from clozeworks.tasks.base import Task
from clozeworks.text.tokenizer import Tokenizer


def family_of(bundle: Bundle) -> Family:
    """The family `config.json` names."""
    with named(bundle):
        return family_named(str(pair.encoder_values(bundle.config).get("model_type") or "bert"))


def config_of(bundle: Bundle) -> EncoderConfig:
    """The encoder `config.json` describes."""
    with named(bundle):
        return pair.encoder_config(bundle.config, family_of(bundle))


def heads_of(bundle: Bundle) -> frozenset[str]:
    """The heads of the Hugging Face class that `config.json` names; none for an unknown class.

    Of a family that no class holds, those of the task the card names.
    """
    names = bundle.config.get("architectures")
    classes = {name: heads for heads, name in family_of(bundle).architectures.items()}
    if not classes:
        tasks = filter(None, (bundle.card.task or "").split("+"))
        kinds = [TASKS.get(task) for task in tasks]
        return frozenset(kind.head_name or kind.name for kind in kinds if not kind.headless)
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
    numbers = {str(i) for i in range(len(id2label))}
    if not isinstance(id2label, dict) or set(map(str, id2label)) != numbers:
        raise UserError(
            f"{bundle.path / 'config.json'}: id2label should name a label for each number from 0 "
            f"on, as in {{'0': 'no', '1': 'yes'}}; it is {id2label!r}"
        )
    labels = [str(id2label[key]) for key in sorted(id2label, key=int)]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(
            f"{bundle.path / 'config.json'}: id2label has {twice!r} twice; give each its own name"
        )
    return labels


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
    anew = frozenset({task.head_name or task.name} if other else ())
    return open_with(
        bundle, build, seed, anew, *((_generators(bundle), task.inherit) if to_train else ())
    )


def open_with(
    bundle: Bundle,
    build: Callable[[AnyEncoder], Model],
    seed: int = 0,
    anew: frozenset[str] = frozenset(),
    more: Mapping[str, Tensor] = MappingProxyType({}),
    inherit: Callable[[State], Mapping[str, Tensor]] = lambda tensors: {},
) -> Opened:
    """As `open_model`, for a model that `build` makes; the heads named in `anew` start fresh.

    Tensors in `more`, by our names, come from elsewhere; what `inherit` makes of the folder's
    stands where it has none.
    """
    config, family = config_of(bundle), family_of(bundle)
    theirs, apart = tensors_of(bundle)
    with named(bundle):
        ours = under_our_names(theirs, config, _heads_there(bundle, family)) | own_tensors(bundle)
        own = tuple(f"heads.{name}." for name in anew)
        kept = {name: tensor for name, tensor in ours.items() if not name.startswith(own)}
        opened = filled(config, {**inherit(kept), **kept, **more}, build, seed, theirs)
        if "mlm" in opened.model.heads.keys() - anew:
            refuse_apart(apart)
        for name, head in opened.model.heads.items():
            if isinstance(head, NumberHead) and f"heads.{name}" not in opened.fresh:
                head.take()
        return opened


def tensors_of(bundle: Bundle) -> tuple[State, dict[str, str]]:
    """Every tensor of the folder by Hugging Face's name in a model with heads, but for copies.

    Also the names of those that should be copies of others and are none, with the others'.
    """
    family = family_of(bundle)
    with named(bundle):
        state = pair.as_one(_read(bundle), bundle, family)
    return without_copies(_prefixed(state, family), family.tied)


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
    check_class(described, public_heads(list(model.heads)))
    with write_folder(folder, replace=True) as aside:
        values = {**_config(model, described, card), **more}
        config = pair.written(aside, model.heads, values, (tokenizer.vocabulary, card))
        (aside / "config.json").write_text(_json(config), "utf-8")
        (aside / CARD).write_text(_json(as_json(card)), "utf-8")
        tokenizer.save(aside)
        if described.architectures:
            write_sentence_files(aside, card, model.config.hidden_size)
        state = {name: tensor.float().cpu() for name, tensor in model.written().items()}
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
    heads = public_heads(list(model.heads))
    values = family.values(model.config)
    values["architectures"] = [family.architectures[heads]] if family.architectures else []
    labels = card.labels
    if labels is None and "classify" in model.heads:  # without names, as of a cross-encoder
        count = len(list(model.heads["classify"].parameters())[-1])
        labels = [f"LABEL_{i}" for i in range(count)]
    if labels is not None:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
        values["problem_type"] = _problem_type(card, len(labels))
    if "classify" in model.heads and card.settings.get("dropout") is not None:
        values["classifier_dropout"] = card.settings["dropout"]
    return values


def _problem_type(card: Card, count: int) -> str:
    """What `transformers` calls a classifier's kind; of one output, what it takes it for."""
    return PROBLEM_TYPES[card.settings.get("kind", "regression" if count == 1 else "single")]


PROBLEM_TYPES = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def _as_class(theirs: State, config: Mapping[str, Any], family: Family) -> State:
    """A bare encoder's file has no prefix before its names, a pair's has others."""
    if config["architectures"] != [family.architectures.get(frozenset())]:
        return pair.as_pair(theirs, family) if pair.is_pair(config) else theirs
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
