"""How a run takes up a model folder at its start, and leaves one at its end."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from clozeworks.api.labelled import unread
from clozeworks.core.bundle import CARD, Bundle, Card, Provenance, open_bundle
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.log import counted, say
from clozeworks.core.run import Run, versions
from clozeworks.inference.engine import Engine
from clozeworks.interop.hub import local, origin
from clozeworks.interop.huggingface import check_match, config_of, open_model, write_bundle
from clozeworks.model.encoder import initialise
from clozeworks.model.heads import Model, grow
from clozeworks.tasks.base import Task
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.train.loop import TrainSettings
from clozeworks.train.precision import Precision, pick_device, pick_dtype


class Trained(Protocol):
    """What is read of a recipe that trains a model."""

    @property
    def train(self) -> TrainSettings: ...

    @property
    def device(self) -> str: ...

    @property
    def scratch(self) -> bool: ...


def adopt(
    parent: Bundle,
    task: Task,
    tokenizer: Tokenizer,
    recipe: Trained,
    wider: Tokenizer | None = None,
) -> Model:
    """The parent's model with the task's heads, on its device, ready to be trained.

    `wider` is its tokenizer with pieces that the task needs, where it has been given some.
    """
    opened = open_model(parent, task, recipe.train.seed, to_train=True)
    model, config = opened.model, opened.model.encoder.config
    check_match(tokenizer, config.vocab_size, str(parent.path), parent.card.tokenizer)
    if wider is not None and len(wider.pieces) > config.vocab_size:
        grow(model, len(wider.pieces), recipe.train.seed)
    if recipe.scratch:
        initialise(model, config.init_std, recipe.train.seed)
        say(f"weights of {parent.path} left out: every part starts from chance")
    elif opened.fresh:
        say(f"new in the model, to be learned: {', '.join(opened.fresh)}")
    return model.to(pick_device(recipe.device))


def check_prepared(shards: Path, parent: Bundle, model: Path, tokenizer: Tokenizer) -> None:
    """Raise UserError if shards, which `tokenizer` made, were not prepared with the parent's;
    `model` is what the parent was called."""
    size = config_of(parent).vocab_size
    try:
        check_match(tokenizer, size, str(parent.path), parent.card.tokenizer)
    except UserError as error:
        if load_tokenizer(parent.path).hash == tokenizer.hash:  # it is the model's that was changed
            raise
        raise UserError(
            f"{shards} was prepared with another tokenizer than that of {model}; prepare the text "
            f"again with that one: clozeworks prepare … --tokenizer {model}"
        ) from error


def begin_anew(model: Model, layers: int, seed: int) -> None:
    """Let the pooler and the last `layers` of the encoder start from chance, as `scratch` would.

    What pretraining shaped most for its own ends is what small data cannot undo (Zhang et al. 2021,
    "Revisiting few-sample BERT fine-tuning"). Raises UserError where there are not so many layers,
    or nothing to begin anew.
    """
    layers_of = list(getattr(model.encoder, "layers", []))
    own = layers_of if len(layers_of) == model.config.num_layers else []  # ALBERT's are shared
    least, most = int(model.pooler is None), len(own)
    if not least <= layers <= most:
        pooler = "no pooler" if least else "a pooler"
        counts = str(least) if least == most else f"{least} to {most}"
        raise UserError(
            f"reinit {layers}: this model has {pooler}, and {counted(most, 'layer', 'layers')} "
            "that no other depth shares; "
            + (f"use --reinit {counts}" if least <= most else "leave it out, or use --scratch")
        )
    parts = own[len(own) - layers :] + ([] if model.pooler is None else [model.pooler])
    for number, part in enumerate(parts):
        initialise(part, model.config.init_std, seed + number)


def check_window(parent: Bundle, window: int, name: str = "max_length") -> None:
    """Raise UserError if a model has fewer positions than a window has tokens; `name` says which
    setting that is."""
    positions = config_of(parent).max_positions
    if window > positions:
        raise UserError(
            f"{name} {window} is more than the {positions} positions of {parent.path}; "
            f"use --{name.replace('_', '-')} {positions} or less"
        )


def keep(
    run: Run,
    model: Model,
    task: Task,
    tokenizer: Tokenizer,
    recipe: Settings,
    folder: Path | None = None,
) -> Path:
    """Write a model of the run as a Bundle: in `folder`, or as what it was for."""
    card = _card(run, task, tokenizer, recipe)
    if task.marks:
        tokenizer = tokenizer.with_special(task.marks)
    return write_bundle(folder or run.bundle, model, tokenizer, card)


def _card(run: Run, task: Task, tokenizer: Tokenizer, recipe: Settings) -> Card:
    values: dict[str, Any] = recipe.model_dump(mode="json", exclude_none=True)
    return Card(
        task=task.name,
        settings=task.settings,
        labels=task.labels or None,
        calibration=task.calibration,
        fold=tokenizer.fold,
        tokenizer=tokenizer.hash,
        max_length=max(task.limits.values(), default=None),
        provenance=Provenance(
            parent=None if values.get("model") is None else origin(Path(values["model"])),
            data=run.inputs,
            recipe=values,
            versions=versions(),
            seed=values["train"]["seed"],
        ),
    )


def load(
    model: str | Path,
    device: str = "auto",
    precision: Precision = "auto",
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Engine:
    """A trained Bundle, ready to predict; `settings` of its task go before those of training.

    Raises UserError for a folder that is not one, a device that is not there, or other settings
    than the task has.
    """
    place = pick_device(device)
    return Engine.open(local(Path(model)), place, pick_dtype(precision, place), settings)


def trained_columns(model: Path) -> dict[str, str]:
    """The column names a Bundle's training data had, so that they need not be given again."""
    return {field: column for field, column in _columns(model).items() if column}


def learned_without(model: Path) -> frozenset[str]:
    """Fields that a Bundle's training rows might have been asked with, and were not.

    A column that happens to have such a name is not read. Of a folder from elsewhere it is not
    known what it was asked with.
    """
    return frozenset(unread(_columns(model)))


def _columns(model: Path) -> dict[str, str]:
    columns = open_bundle(local(model)).card.provenance.recipe.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns.values()):
        raise UserError(
            f"{model / CARD}: provenance.recipe.columns should name a column for each field, "
            f"not {columns!r}"
        )
    return columns


def say_cut(engine: Engine, of: str = "") -> None:
    """Say of how many rows something was left out, if of any; `of` says whose."""
    if engine.cut_examples:
        rows = counted(engine.cut_examples, "row is", "rows are")
        tokens = counted(engine.truncated, "token was", "tokens were")
        say(f"{of}{rows} longer than {limits_of(engine.task)} allows: {tokens} not read")


def limits_of(task: Task, prefix: str = "") -> str:
    """The settings by which texts are cut, or, with the prefix --, their flags."""
    names = task.cut_by or task.limits
    return " or ".join(prefix + (name.replace("_", "-") if prefix else name) for name in names)
