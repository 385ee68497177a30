"""Folders of transformers' EncoderDecoderModel: an encoder and a decoder, each with its config."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from clozeworks.core.bundle import Bundle, Card
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_file
from clozeworks.core.records import Vocabulary
from clozeworks.model.config import EncoderConfig
from clozeworks.model.decoder import Decoder
from clozeworks.model.families import Family
from clozeworks.model.names import State, without_copies
from clozeworks.tasks.seq2seq import Seq2SeqConfig, barred_ids

KIND = "encoder-decoder"
"""Its `model_type`."""
ROLE = {"is_decoder": False, "add_cross_attention": False}
"""What an encoder's config says, and a decoder's denies."""
POOLER = "pooler.dense"
V = TypeVar("V")


def is_pair(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is of such a folder."""
    return values.get("model_type") == KIND


def encoder_values(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config.json says of the encoder: all of it, but in such a folder."""
    return _part(values, "encoder") if is_pair(values) else values


def _part(values: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    found = values.get(side)
    if not isinstance(found, dict):
        raise UserError(f"config.json: {side!r} should hold the {side}'s config; copy it again")
    return found


def encoder_config(values: Mapping[str, Any], family: Family) -> EncoderConfig:
    """The encoder a config.json describes; raises UserError for a decoder that does not fit it."""
    config = family.config(encoder_values(values))
    if is_pair(values):
        decoder_layers(values, family, config)
    return config


def decoder_layers(values: Mapping[str, Any], family: Family, encoder: EncoderConfig) -> int:
    """How deep the decoder is; raises UserError if it differs from its encoder in anything else."""
    theirs = _part(values, "decoder")
    kind = str(theirs.get("model_type") or family.model_type)
    if kind != family.model_type:
        raise UserError(f"config.json: a {kind} decoder on a {family.model_type} is not supported")
    if theirs.get("is_decoder") is False or theirs.get("add_cross_attention") is False:
        raise UserError(
            "config.json: the decoder has no cross-attention (add_cross_attention), so that it "
            "does not see its source; this is not supported"
        )
    config = family.config({**theirs, **ROLE})
    for field in EncoderConfig.model_fields:
        ours, other = getattr(encoder, field), getattr(config, field)
        if ours != other and field != "num_layers" and "dropout" not in field:
            raise UserError(
                f"config.json: the decoder has {field} = {other!r}, its encoder {ours!r}; only "
                "decoders like their encoders, but for their depth, are supported"
            )
    if config.num_layers > encoder.num_layers:
        raise UserError(
            f"config.json: the decoder has {config.num_layers} layers, its encoder "
            f"{encoder.num_layers}; deeper decoders are not supported"
        )
    return config.num_layers


def settings_of(bundle: Bundle, family: Family) -> dict[str, Any]:
    """Settings of the task that such a folder from elsewhere implies."""
    config = family.config(encoder_values(bundle.config))
    layers = decoder_layers(bundle.config, family, config)
    return {"decoder_layers": layers, "share_vocabulary": False}


def joined(theirs: Mapping[str, V], family: Family) -> dict[str, V]:
    """Their tensors, or what is known of each, under the names of one model with a decoder."""
    return {
        family.prefix + name.removeprefix("encoder.") if name.startswith("encoder.") else name: v
        for name, v in theirs.items()
    }


def shown(theirs: Mapping[str, V], bundle: Bundle, family: Family) -> Mapping[str, V]:
    """What is known of a folder's tensors, of each parameter once."""
    if not is_pair(bundle.config):
        return theirs
    idle = {f"{family.prefix}{POOLER}.weight", f"{family.prefix}{POOLER}.bias"}
    if _shares(bundle):
        idle |= {f"decoder.{twin}" for twin in family.tied.values() if twin.endswith("weight")}
    return {name: v for name, v in joined(theirs, family).items() if name not in idle}


def _shares(bundle: Bundle) -> bool:
    """Whether its decoder has the encoder's token vectors, as its card says."""
    card = bundle.card
    return card.task == "seq2seq" and bool(card.settings.get("share_vocabulary", True))


def as_one(theirs: State, bundle: Bundle, family: Family) -> State:
    """The tensors of such a folder as `joined`, without the copies that tying makes; others as
    they are.

    Raises UserError where one that should be a copy is none.
    """
    if not is_pair(bundle.config):
        return theirs
    state = joined(theirs, family)
    own = {f"decoder.{end}": f"decoder.{twin}" for end, twin in family.tied.items()}
    state, apart = without_copies(state, own)
    tokens = next((twin for twin in own.values() if "embeddings" in twin), "")
    if _shares(bundle) and tokens in state:
        state, other = without_copies(state, {tokens: tokens.removeprefix("decoder.")})
        apart |= other
    for name, twin in apart.items():
        remedy = (
            "if the model was trained elsewhere since, remove clozeworks.json from its folder"
            if name == tokens
            else "an output embedding of its own is not supported"
        )
        raise UserError(f"{name} is not the same as {twin}: {remedy}")
    pooler = state.get(f"{family.prefix}{POOLER}.weight")
    if pooler is not None and not pooler.any():  # as `as_pair` makes it: none to begin from
        del state[f"{family.prefix}{POOLER}.weight"], state[f"{family.prefix}{POOLER}.bias"]
    return state


def as_pair(theirs: State, family: Family) -> State:
    """Tensors of one model as the class has them: with copies, and a pooler nobody asks."""
    found = {
        "encoder." + name.removeprefix(family.prefix) if name.startswith(family.prefix) else name: t
        for name, t in theirs.items()
    }
    for twin in (t for t in family.tied.values() if t.startswith(family.prefix)):
        tokens = found[f"encoder.{twin.removeprefix(family.prefix)}"]
        found.setdefault(f"decoder.{twin}", tokens.clone())
        width = tokens.shape[1]
        found[f"encoder.{POOLER}.weight"] = torch.zeros(width, width)
        found[f"encoder.{POOLER}.bias"] = torch.zeros(width)
    return found


def written(
    folder: Path, heads: nn.ModuleDict, values: dict[str, Any], known: tuple[Vocabulary, Card]
) -> dict[str, Any]:
    """The config.json of a model with these heads: as it is, or of a pair where there is a decoder.

    Beside that, a pair has its habits of writing in the folder.
    """
    decoder = next((head for head in heads.values() if isinstance(head, Decoder)), None)
    if decoder is None:
        return values
    vocabulary, card = known
    _write_habits(folder, len(decoder.weight), vocabulary, card)
    own = {key: value for key, value in values.items() if key != "architectures"}
    role = {"is_decoder": True, "add_cross_attention": True}
    return {
        "model_type": KIND,
        "architectures": values["architectures"],
        "is_encoder_decoder": True,
        "encoder": own,
        "decoder": {**own, "num_hidden_layers": len(decoder.layers), **role},
        **_ids(vocabulary),
    }


def _ids(vocabulary: Vocabulary) -> dict[str, int]:
    return {
        "decoder_start_token_id": vocabulary.cls,
        "bos_token_id": vocabulary.cls,
        "eos_token_id": vocabulary.sep,
        "pad_token_id": vocabulary.pad,
    }


def _write_habits(folder: Path, rows: int, vocabulary: Vocabulary, card: Card) -> None:
    """Write generation_config.json, by which transformers writes as the task's settings say.

    Of its beam search, which divides by a power of the length alone, scores and texts may differ.
    """
    config = Seq2SeqConfig.model_validate(card.settings)
    values = {
        **_ids(vocabulary),
        "max_length": config.target_length,
        "min_length": config.min_length + 1,  # the first token counts there
        "num_beams": config.beams,
        "early_stopping": config.early_stop,
        "no_repeat_ngram_size": config.no_repeat,
        "suppress_tokens": barred_ids(vocabulary, rows, config.write_unknown),
    }
    with write_file(folder / "generation_config.json") as stream:
        json.dump(values, stream, indent=2)
