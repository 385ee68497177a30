"""Bring a checkpoint from elsewhere into a model folder, and show that it says the same there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from clozeworks.core.bundle import Bundle, Card, Provenance, open_bundle, read_json
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest, existing, write_folder
from clozeworks.core.log import say
from clozeworks.core.run import versions
from clozeworks.data.batches import Group, pack
from clozeworks.interop import tensorflow
from clozeworks.interop.hub import local
from clozeworks.interop.huggingface import (
    check_match,
    filled,
    heads_of,
    labels_of,
    module_of,
    open_with,
    under_our_names,
    write_bundle,
)
from clozeworks.interop.vectors import is_vectors, read_vectors, recurrent_model
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import FAMILIES, Family
from clozeworks.model.heads import AnyEncoder, Model, Pooler, head_of, needs_pooler
from clozeworks.model.names import State, their_names
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


class ConvertRecipe(Settings):
    """What the `convert` verb needs."""

    source: Path
    """A Hugging Face folder, a TensorFlow checkpoint (its folder, or its name without .index), or a
    file of word vectors (GloVe, Word2Vec)."""
    out: Path
    """Folder for the model."""
    norm_eps: float | None = None
    """Epsilon of every LayerNorm, where the config does not say what the model was trained with."""
    leave_out: list[str] = []
    """Tensors that may be missing, or there though such models have none."""
    generator: bool = False
    """Of an ELECTRA checkpoint, take the generator instead of the discriminator."""
    size: str = "mini"
    """Of the BiLSTM that word vectors are put into: its size."""
    limit: int | None = None
    """Most word vectors to read, the first of the file."""


class Converted(Settings):
    """What the `convert` verb made."""

    out: Path
    family: str
    heads: list[str]
    difference: float
    """Largest difference between the answers of the model read and of the folder written."""


def convert(recipe: ConvertRecipe) -> Converted:
    """Write the checkpoint as a model folder, after showing that the folder says the same.

    Raises UserError naming a file or tensor that is missing, damaged, or of another kind of model.
    """
    if recipe.out.exists():
        raise UserError(f"{recipe.out} already exists; choose another --out, or remove it")
    model, tokenizer, card = _read(recipe)
    model.eval()
    with write_folder(recipe.out) as aside:
        difference = _difference(model, write_bundle(aside, model, tokenizer, card))
        if difference > MOST:
            raise UserError(
                f"{recipe.source}: the folder written says something else than the checkpoint "
                f"(largest difference {difference:.1e}), so it was not kept; please report this"
            )
    family = FAMILIES.get(model.config.family)()
    say(f"parity on {len(SAMPLE)} sentences: largest difference {difference:.1e}")
    if not family.architectures:
        say(f"no Hugging Face class holds a {family.model_type} model: the folder opens here alone")
    heads = sorted(model.heads)
    say(f"{family.model_type}, heads: {', '.join(heads) or 'none'} → {recipe.out}")
    return Converted(out=recipe.out, family=model.config.family, heads=heads, difference=difference)


def _difference(model: Model, folder: Path) -> float:
    """How far a folder that was written is from the model it was written from, on the sample."""
    bundle, tokenizer = open_bundle(folder), load_tokenizer(folder)
    again = open_with(bundle, lambda encoder: with_heads(encoder, model.heads, labels_of(bundle)))
    return _gap(_answers(model, tokenizer), _answers(again.model.eval(), tokenizer))


def _read(recipe: ConvertRecipe) -> tuple[Model, Tokenizer, Card]:
    """The model the source holds, its tokenizer, and what is known of it."""
    source = existing(local(recipe.source), "checkpoint")
    if is_vectors(source):
        return _of_vectors(source, recipe)
    prefix = tensorflow.find_checkpoint(source)
    if prefix is not None:
        return _of_tensorflow(prefix, recipe)
    bundle = open_bundle(source)
    if bundle.generator is not None:
        say(f"the generator beside the model is left out; for it, convert {bundle.generator.path}")
    tokenizer = load_tokenizer(bundle.path)
    heads, labels = heads_of(bundle), labels_of(bundle)
    without = frozenset(recipe.leave_out)
    opened = open_with(
        _changed(bundle, recipe), lambda e: with_heads(e, heads, labels), 0, frozenset(), without
    )
    _refuse_lacking(opened.fresh, without, source)
    check_match(tokenizer, opened.model.config.vocab_size, str(source), bundle.card.tokenizer)
    return opened.model, tokenizer, bundle.card


def _refuse_lacking(fresh: list[str], without: frozenset[str], source: Path) -> None:
    """Raise UserError if a module had no weights though none of its tensors may be missing."""
    allowed = set(map(module_of, without))
    if lacking := [module for module in fresh if module not in allowed]:
        raise UserError(f"{source}: the weights lack {', '.join(lacking)}; copy it again")


def _changed(bundle: Bundle, recipe: ConvertRecipe) -> Bundle:
    """The Bundle with the epsilon that was asked for."""
    if recipe.norm_eps is None:
        return bundle
    config = {**bundle.config, **_epsilon(recipe)}
    return Bundle(bundle.path, config, bundle.card)


def _epsilon(recipe: ConvertRecipe) -> dict[str, Any]:
    eps = recipe.norm_eps
    return {} if eps is None else {"layer_norm_eps": eps, "norm_eps": eps}


def _of_tensorflow(prefix: Path, recipe: ConvertRecipe) -> tuple[Model, Tokenizer, Card]:
    tensors = tensorflow.read_checkpoint(prefix)
    values = {**read_json(tensorflow.config_beside(prefix)), **_epsilon(recipe)}
    name = tensorflow.family_in(tensors, values)
    family = FAMILIES.get(name)()
    if name == "albert" and values.get("hidden_act") == "gelu":
        say("hidden_act: Google's ALBERT calls the tanh approximation of GELU 'gelu'")
        values["hidden_act"] = "gelu_new"
    theirs = tensorflow.to_huggingface(tensorflow.one_of_two(tensors, recipe.generator), family)
    config = family.config(values)
    heads = _heads_in(theirs, family, config)
    without = frozenset(recipe.leave_out)
    ours = under_our_names(theirs, config, heads, without)
    opened = filled(config, ours, lambda e: with_heads(e, heads, []), 0, without)
    _refuse_lacking(opened.fresh, without, prefix)
    tokenizer = load_tokenizer(prefix.parent)
    check_match(tokenizer, config.vocab_size, str(prefix.parent))
    return opened.model, tokenizer, _card(tokenizer, [Path(f"{prefix}.index")])


def _of_vectors(source: Path, recipe: ConvertRecipe) -> tuple[Model, Tokenizer, Card]:
    words, matrix = read_vectors(source, recipe.limit)
    model, tokenizer = recurrent_model(words, matrix, recipe.size)
    return model, tokenizer, _card(tokenizer, [source])


def _card(tokenizer: Tokenizer, files: Iterable[Path]) -> Card:
    data = {path.name: digest(path) for path in files}
    provenance = Provenance(data=data, versions=versions())
    return Card(fold=tokenizer.fold, tokenizer=tokenizer.hash, provenance=provenance)


def _heads_in(theirs: State, family: Family, config: EncoderConfig) -> frozenset[str]:
    """The largest class of the family all of whose heads' tensors are there."""
    layers = family.layers(config)

    def whole(heads: frozenset[str]) -> bool:
        names = their_names(family.names(heads), layers)
        return all(
            theirs_ in theirs for theirs_, ours in names.items() if ours.startswith("heads.")
        )

    pretrained = [h for h in family.architectures if not h & {"classify", "tag", "choice", "qa"}]
    return max((heads for heads in pretrained if whole(heads)), key=len)


def with_heads(encoder: AnyEncoder, heads: Iterable[str], labels: list[str]) -> Model:
    """An encoder with fresh heads of these names, and a pooler where its class holds one."""
    names, config = list(heads), encoder.config
    bare = not names and "pooler.dense" in FAMILIES.get(config.family)().modules
    pooler = Pooler(config) if bare or needs_pooler(config, names) else None
    modules = {name: head_of(name, encoder, len(labels) or 2) for name in names}
    return Model(encoder, pooler, modules)


def _answers(model: Model, tokenizer: Tokenizer) -> list[torch.Tensor]:
    """What a model says of the sample: token vectors, then each head's answer."""
    limit = min(64, model.config.max_positions)
    sequences = tokenizer.encode_batch(list(SAMPLE), max_length=limit)
    batch = pack([Group(i, [sequence]) for i, sequence in enumerate(sequences)])
    with torch.inference_mode():
        x = model.encoder.encode(model.encoder.embed(batch), batch).x
        return [x, *model.answers(x, batch).values()]


def _gap(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
