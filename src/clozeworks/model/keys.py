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
Neutral = Mapping[str, tuple[Any, ...]]
"""Keys that would change the mathematics, or what is run, and the values with which they do not."""
NEUTRAL: Neutral = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "position_embedding_type": ("absolute",),
    "directionality": ("bidi",),
    "use_bidirectional_attention": (True,),
    "is_causal": (False,),
    "alibi": (False,),
    "alibi_starting_size": (),
    "pruned_heads": ({},),
    "auto_map": (),
    "quantization": ({}, False),
    "quantization_config": (),
    "compression_config": (),
    "quant_mode": (False,),
    "rope_scaling": (),
    "partial_rotary_factor": (1,),
    "chunk_size_feed_forward": (0,),
    "tie_encoder_decoder": (False,),
    "num_experts": (),
    "is_encoder_decoder": (False,),
}
"""Those of any family. A key that no family knows is passed over, as transformers does."""
_QUANTIZED = "open the model it was quantized from"
_REASONS = {
    "auto_map": "code that comes with a model is never run",
    "is_decoder": "a decoder is not an encoder",
    "quantization": _QUANTIZED,
    "quantization_config": _QUANTIZED,
    "compression_config": _QUANTIZED,
    "tie_word_embeddings": "an output embedding of its own is not supported",
}


def read_config(
    model_type: str, values: Mapping[str, Any], fields: Mapping[str, str], **given: Any
) -> EncoderConfig:
    """An EncoderConfig from their values: `fields` maps our keys to theirs, `given` are ours.

    Absent and null keys take what is given, which must hold the family's defaults, or ours. Raises
    UserError naming a key whose value this encoder does not have.
    """
    refuse(values)
    taken = {
        ours: values[theirs] for ours, theirs in fields.items() if values.get(theirs) is not None
    }
    family = model_type.replace("-", "_")
    return validated(EncoderConfig, {"family": family, **given, **taken}, "config.json")


def refuse(values: Mapping[str, Any], neutral: Neutral = NEUTRAL) -> None:
    """Raise UserError naming a key whose value is not a neutral one; absent and null ones are."""
    for key, choices in neutral.items():
        value = values.get(key)
        if value is not None and value not in choices:
            reason = _REASONS.get(key)
            offered = f" (choices: {', '.join(map(repr, choices))})" if choices else ""
            raise UserError(
                f"config.json: {key} = {value!r} is not supported"
                + (f": {reason}" if reason else offered)
            )
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(values.get(key) or ""):
            raise UserError(
                f"config.json: {key} = {values[key]!r} names code elsewhere, which is never run; "
                "remove the key"
            )


def whole_number(values: Mapping[str, Any], key: str, default: int, least: int, most: int) -> int:
    """Their value of a key that must be a whole number; raises UserError with its bounds."""
    value = values.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            f"config.json: {key} = {value!r} should be a whole number from {least} to {most:,}"
        )
    return value


def written_config(config: EncoderConfig, fields: Mapping[str, str]) -> dict[str, Any]:
    """Their values of our config, for the keys `fields` maps."""
    return {theirs: getattr(config, ours) for ours, theirs in fields.items()}


def activation_of(values: Mapping[str, Any], key: str, default: str = "gelu") -> Activation:
    """The activation their `key` names; raises UserError with the choices."""
    return ACTIVATIONS[choose(str(values.get(key) or default), ACTIVATIONS, key)]


def their_activation(activation: Activation) -> str:
    """What they call an activation."""
    return _THEIRS[activation]
