"""Reading and writing `config.json`: their keys as ours, and what cannot be had refused."""

from collections.abc import Mapping
from typing import Any

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose
from clozeworks.model.config import Activation, EncoderConfig

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}
_THEIRS: dict[Activation, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "relu": "relu",
    "tanh": "tanh",
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({},),
    "auto_map": (),
    "quantization_config": (),
    "rope_scaling": (),
    "chunk_size_feed_forward": (0,),
    "tie_encoder_decoder": (False,),
    "num_experts": (),
    "is_encoder_decoder": (False,),
}
"""Keys that would change the mathematics, or what is run, and the values with which they do not."""
_REASONS = {
    "auto_map": "code that comes with a model is never run",
    "is_decoder": "a decoder is not an encoder",
    "quantization_config": "open the model it was quantized from",
    "tie_word_embeddings": "an output embedding of its own is not supported",
}


def read_config(
    model_type: str, values: Mapping[str, Any], fields: Mapping[str, str], **given: Any
) -> EncoderConfig:
    """An EncoderConfig from their values: `fields` maps our keys to theirs, `given` are ours.

    Absent and null keys take our defaults. Raises UserError naming a key whose value this encoder
    does not have.
    """
    _refuse(values)
    taken = {
        ours: values[theirs] for ours, theirs in fields.items() if values.get(theirs) is not None
    }
    family = model_type.replace("-", "_")
    return validated(EncoderConfig, {"family": family, **given, **taken}, "config.json")


def _refuse(values: Mapping[str, Any]) -> None:
    for key, neutral in NEUTRAL.items():
        value = values.get(key)
        if value is not None and value not in neutral:
            reason = _REASONS.get(key)
            choices = f" (choices: {', '.join(map(repr, neutral))})" if neutral else ""
            raise UserError(
                f"config.json: {key} = {value!r} is not supported"
                + (f": {reason}" if reason else choices)
            )
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(values.get(key) or ""):
            raise UserError(
                f"config.json: {key} = {values[key]!r} names code elsewhere, which is never run; "
                "remove the key"
            )


def written_config(config: EncoderConfig, fields: Mapping[str, str]) -> dict[str, Any]:
    """Their values of our config, for the keys `fields` maps."""
    return {theirs: getattr(config, ours) for ours, theirs in fields.items()}


def activation_of(values: Mapping[str, Any], key: str, default: str = "gelu") -> Activation:
    """The activation their `key` names; raises UserError with the choices."""
    return ACTIVATIONS[choose(str(values.get(key) or default), ACTIVATIONS, key)]


def their_activation(activation: Activation) -> str:
    """What they call an activation."""
    return _THEIRS[activation]
