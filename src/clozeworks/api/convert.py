"""Bring a checkpoint from elsewhere into a model folder, and show that it says the same there."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from clozeworks.core.bundle import CARD, Bundle, Card, Provenance, open_bundle, read_json
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest, existing, write_folder
from clozeworks.core.log import say
from clozeworks.core.run import versions
from clozeworks.data.batches import Batch, Group, pack
from clozeworks.interop import tensorflow
from clozeworks.interop.foreign import (
    heads_there,
    take,
    take_bundle,
    tell_rest,
    with_heads,
    with_labels,
)
from clozeworks.interop.hub import local, origin
from clozeworks.interop.huggingface import (
    PRETRAINING,
    check_match,
    labels_of,
    open_with,
    write_bundle,
)
from clozeworks.interop.reference import class_of, their_answers
from clozeworks.interop.sentences import card_of
from clozeworks.interop.vectors import is_vectors, read_vectors, recurrent_model
from clozeworks.model.families import FAMILIES
from clozeworks.model.heads import Model
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer

SAMPLE = (
    "The parcel arrived two days late, and the box was open.",
    "Please cancel my order before it ships!",
    "我昨天下的单，什么时候发货？",
    "这家酒店的早餐很好，房间也干净。",
)
"""Text on which the written model must say what the model read said."""
MOST = 1e-5
"""Largest difference that is still rounding; where nothing is wrong it is 0."""
MOST_TO_THEIRS = 1e-3
"""As much for another program, as a share of the largest answer: it adds up in another order."""


class ConvertRecipe(Settings):
    """What the `convert` verb needs."""

    source: Path
    """A Hugging Face folder, a TensorFlow checkpoint (its folder, or its name without .index), or a
    file of word vectors (GloVe, Word2Vec)."""
    out: Path
    """Folder for the model."""
    to: Literal["huggingface"] = "huggingface"
    """The form of the folder."""
    norm_eps: float | None = None
    """Epsilon of every LayerNorm, where the config does not say what the model was trained with."""
    allow_missing: list[str] = []
    """Tensors, as the checkpoint calls them, that may be missing and then start fresh; or that may
    be there though such models have none, and are left out."""
    generator: bool = False
    """Of an ELECTRA checkpoint, take the generator instead of the discriminator."""
    size: str = "mini"
    """Of the BiLSTM that word vectors are put into: its size."""
    limit: int | None = Field(default=None, ge=1)
    """Most word vectors to read, the first of the file."""


class Converted(Settings):
    """What the `convert` verb made."""

    out: Path
    family: str
    heads: list[str]
    difference: float
    """Largest difference between the answers of the model read and of the folder written."""
    to_transformers: float | None
    """Largest difference from what the transformers library answers, as a share of its largest
    answer; None where it is not installed or has no such class."""


def convert(recipe: ConvertRecipe) -> Converted:
    """Write the checkpoint as a model folder, after showing that the folder says the same.

    Raises UserError naming a file or tensor that is missing, damaged, or of another kind of model.
    """
    if recipe.out.exists():
        raise UserError(f"{recipe.out} already exists; choose another folder, or remove it")
    model, tokenizer, card, more = _read(recipe)
    config, heads = model.config, frozenset(model.heads)
    if recipe.norm_eps not in (None, config.norm_eps):
        raise UserError(
            f"--norm-eps {recipe.norm_eps}: the epsilon of a {config.family} is always "
            f"{config.norm_eps}; leave it out"
        )
    model.eval()
    with write_folder(recipe.out) as aside:
        write_bundle(aside, model, tokenizer, card, more)
        difference = _difference(model, aside)
        _refuse_other(recipe.source, difference, MOST)
        beside = _beside_transformers(model, aside, recipe.source)
    family = FAMILIES.get(config.family)()
    if not family.architectures:
        say(f"no Hugging Face class holds a {family.model_type} model: the folder opens here alone")
    say(f"{family.model_type}, heads: {', '.join(sorted(heads)) or 'none'} → {recipe.out}")
    return Converted(
        out=recipe.out,
        family=config.family,
        heads=sorted(heads),
        difference=difference,
        to_transformers=beside,
    )


def _refuse_other(source: Path, difference: float, most: float) -> None:
    """Raise UserError if the difference is more than rounding; NaN is."""
    if not difference <= most:
        raise UserError(
            f"{source}: the folder written says something else than the checkpoint "
            f"(largest difference {difference:.1e}), so it was not kept; please report this"
        )


def _difference(model: Model, folder: Path) -> float:
    """How far a folder that was written is from the model it was written from, on the sample."""
    bundle, batch = open_bundle(folder), _sample(model, load_tokenizer(folder))
    again = open_with(
        bundle, lambda encoder: with_heads(encoder, model.answering, labels_of(bundle))
    )
    one, other = _answers(model, batch), _answers(again.model.eval(), batch)
    difference = max(float((one[name] - other[name]).abs().max()) for name in one)
    say(f"written and read again: largest difference {difference:.1e} on {len(SAMPLE)} sentences")
    return difference


def _beside_transformers(model: Model, folder: Path, source: Path) -> float | None:
    """How far the model is from what transformers makes of the folder; None where it cannot say.

    An error of ours that reading and writing have in common shows only here.
    """
    config, heads = model.config, frozenset(model.answering)
    kind = class_of(config, heads)
    if kind is None:
        say("compared with no other program: transformers is not installed, or has no such class")
        return None
    batch = _sample(model, load_tokenizer(folder))
    ours, theirs = _answers(model, batch), their_answers(kind, folder, config, heads, batch)
    difference = max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-9))
        for name in theirs
    )
    say(f"the folder in transformers' {kind.__name__}: largest difference {difference:.1e}")
    _refuse_other(source, difference, MOST_TO_THEIRS)
    return difference


Read = tuple[Model, Tokenizer, Card, Mapping[str, Any]]
"""A model, its tokenizer, what is known of it, and further keys of its config.json."""


def _read(recipe: ConvertRecipe) -> Read:
    """What the source holds."""
    source = local(recipe.source)
    prefix = tensorflow.find_checkpoint(source)  # its name, without .index, is that of no file
    if prefix is not None:
        return _of_tensorflow(prefix, recipe)
    if recipe.generator:
        raise UserError(
            f"--generator: {source} is no TensorFlow checkpoint of an ELECTRA, which holds two "
            "models; leave it out"
        )
    if is_vectors(existing(source, "checkpoint")):
        return _of_vectors(source, recipe)
    bundle = open_bundle(source)
    if bundle.generator is not None:
        say(f"the generator beside the model is left out; for it, convert {bundle.generator.path}")
    tokenizer = load_tokenizer(bundle.path)
    taken = take_bundle(_changed(bundle, recipe), recipe.allow_missing)
    tell_rest(taken)
    size = taken.model.config.vocab_size
    check_match(tokenizer, size, str(source), bundle.card.tokenizer)
    card = with_labels(card_of(bundle), taken.labels, str(bundle.path / "config.json"))
    if not (bundle.path / CARD).exists():  # a folder from elsewhere, of which nothing is known
        data = {path.name: digest(path) for path in bundle.files}
        known = Provenance(parent=origin(recipe.source), data=data, versions=versions())
        card = card.model_copy(update={"provenance": known})
    kind = bundle.config.get("problem_type")
    more = {"problem_type": kind} if kind and "classify" in taken.model.heads else {}
    return taken.model, tokenizer, card, more


def _changed(bundle: Bundle, recipe: ConvertRecipe) -> Bundle:
    """The Bundle with the epsilon that was asked for."""
    if recipe.norm_eps is None:
        return bundle
    config = {**bundle.config, **_epsilon(recipe)}
    return Bundle(bundle.path, config, bundle.card)


def _epsilon(recipe: ConvertRecipe) -> dict[str, Any]:
    eps = recipe.norm_eps
    return {} if eps is None else {"layer_norm_eps": eps, "norm_eps": eps}


def _of_tensorflow(prefix: Path, recipe: ConvertRecipe) -> Read:
    tensors = tensorflow.read_checkpoint(prefix)
    values = {**read_json(tensorflow.config_beside(prefix)), **_epsilon(recipe)}
    name = tensorflow.family_in(tensors, values)
    family = FAMILIES.get(name)()
    if name == "albert" and values.get("hidden_act") == "gelu":
        say("hidden_act: Google's ALBERT calls the tanh approximation of GELU 'gelu'")
        values["hidden_act"] = "gelu_new"
    if recipe.generator and name != "electra":
        raise UserError(f"--generator: {prefix} is of the family {name}, not electra; leave it out")
    theirs = tensorflow.to_huggingface(tensorflow.one_of_two(tensors, recipe.generator), family)
    config = family.config(values)
    google = [h for h in family.architectures if h <= PRETRAINING or h == {"classify"}]
    heads = heads_there(theirs, config, frozenset(), google)
    taken = take(theirs, config, heads, None, recipe.allow_missing)
    tell_rest(taken)
    tokenizer = load_tokenizer(prefix.parent)
    check_match(tokenizer, config.vocab_size, str(prefix.parent))
    card = _card(tokenizer, [Path(f"{prefix}.index")])
    return taken.model, tokenizer, with_labels(card, taken.labels, str(prefix)), {}


def _of_vectors(source: Path, recipe: ConvertRecipe) -> Read:
    words, matrix = read_vectors(source, recipe.limit)
    model, tokenizer = recurrent_model(words, matrix, recipe.size)
    return model, tokenizer, _card(tokenizer, [source]), {}


def _card(tokenizer: Tokenizer, files: Iterable[Path]) -> Card:
    data = {path.name: digest(path) for path in files}
    provenance = Provenance(data=data, versions=versions())
    return Card(fold=tokenizer.fold, tokenizer=tokenizer.hash, provenance=provenance)


def _sample(model: Model, tokenizer: Tokenizer) -> Batch:
    """The sentences to compare on, as the model takes them."""
    limit = min(64, model.config.max_positions)
    sequences = tokenizer.encode_batch(list(SAMPLE), max_length=limit)
    return pack([Group(i, [sequence]) for i, sequence in enumerate(sequences)])


def _answers(model: Model, batch: Batch) -> dict[str, Tensor]:
    """What a model says of a batch: its vectors of tokens (and its pooled ones), each head's answer
    by the head's name."""
    with torch.inference_mode():
        x = model.encoder.encode(model.encoder.embed(batch), batch).x
        found = {"x": x, **model.answers(x, batch)}
        if model.pooler is not None and not model.config.pooled_tokens:
            found["pooled"] = model.pooled(x[model.pooled_rows(batch)], batch)
        return found
