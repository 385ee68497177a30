"""ModernBERT (Warner et al. 2024): rotary positions, local and global layers, gated, pre-norm."""

from collections.abc import Mapping
from typing import Any, ClassVar

from clozeworks.core.errors import UserError, choose
from clozeworks.model.config import MOST_LAYERS, MOST_POSITIONS, EncoderConfig
from clozeworks.model.families import Size
from clozeworks.model.families.base import MINI, Names, Public, classes
from clozeworks.model.keys import (
    Neutral,
    activation_of,
    read_config,
    refuse,
    their_activation,
    whole_number,
    written_config,
)

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "inner_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "norm_eps": "norm_eps",
    "norm_bias": "norm_bias",
    "attention_bias": "attention_bias",
    "inner_bias": "mlp_bias",
    "head_bias": "classifier_bias",
    "dropout": "mlp_dropout",
    "attention_dropout": "attention_dropout",
    "init_std": "initializer_range",
    "pad_id": "pad_token_id",
}
_FIXED: Size = {
    "positions": "rotary",
    "num_segments": 0,
    "norm": "pre",
    "first_norm": False,
    "gated": True,
    "pooler_norm": True,
    "pooled_tokens": True,
}
_DEFAULTS: Size = {
    "max_positions": 8192,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "inner_bias": False,
    "head_bias": False,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "head_activation": "gelu",
    "pooler_activation": "gelu",
}
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_ROTARY: Neutral = {"rope_type": ("default",), "partial_rotary_factor": (1,)}
_POOLING = {"cls": "first", "mean": "mean"}
_LAYER = "model.layers.{}."
_MODULES: Names = {
    "encoder.embeddings.norm": "model.embeddings.norm",
    "encoder.layers.{}.attention_norm": _LAYER + "attn_norm",
    "encoder.layers.{}.qkv": _LAYER + "attn.Wqkv",
    "encoder.layers.{}.out": _LAYER + "attn.Wo",
    "encoder.layers.{}.output_norm": _LAYER + "mlp_norm",
    "encoder.layers.{}.up": _LAYER + "mlp.Wi",
    "encoder.layers.{}.down": _LAYER + "mlp.Wo",
    "encoder.final_norm": "model.final_norm",
}
_POOLER: Names = {"pooler.dense": "head.dense", "pooler.norm": "head.norm"}
_HEADS: dict[str, Names] = {
    "mlm": {
        "heads.mlm.dense": "head.dense",
        "heads.mlm.norm": "head.norm",
        "heads.mlm.bias": "decoder.bias",
    },
    "classify": {**_POOLER, "heads.classify.dense": "classifier"},
    "tag": {**_POOLER, "heads.tag.dense": "classifier"},
    "qa": {**_POOLER, "heads.qa.dense": "classifier"},
    "choice": {**_POOLER, "heads.choice.dense": "classifier"},
}
_TOKENS: Names = {"encoder.embeddings.tokens.weight": "model.embeddings.tok_embeddings.weight"}


def _third_global(num_layers: int) -> tuple[int, ...]:
    """The local layers where every third one, from the first, is global."""
    return tuple(depth for depth in range(num_layers) if depth % 3)


def _size(num_layers: int, **values: int) -> Size:
    local = _third_global(num_layers)
    return {**_FIXED, **_DEFAULTS, "num_layers": num_layers, "local_layers": local, **values}


class Modernbert(Public):
    """ModernBERT: RoPE, two layers in three local, GeGLU, no biases, 8,192 tokens."""

    model_type = "modernbert"
    prefix = "model."
    tokenizer = "byte-level BPE"
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": _size(4, hidden_size=MINI["hidden_size"], num_heads=4, inner_size=384),
        "base": _size(22, hidden_size=768, num_heads=12, inner_size=1152),
        "large": _size(28, hidden_size=1024, num_heads=16, inner_size=2624),
    }
    architectures = classes("ModernBert")
    tied: ClassVar[Mapping[str, str]] = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}
    modules = _MODULES
    tensors = _TOKENS
    by_head = _HEADS

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        refuse(values, {"decoder_bias": (True,)})
        head = activation_of(values, "classifier_activation")
        pooling = choose(str(values.get("classifier_pooling") or "cls"), _POOLING, "pooling")
        given = {
            "activation": activation_of(values, "hidden_activation"),
            "head_activation": head,
            "pooler_activation": head,
            "pooling": _POOLING[pooling],
            "local_window": whole_number(values, "local_attention", 128, 2, MOST_POSITIONS) // 2,
            "local_layers": _local_layers(values),
            **_thetas(values),
        }
        return read_config(self.model_type, values, _FIELDS, **{**self.sizes["base"], **given})

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        local = set(config.local_layers)
        thetas = {_LOCAL: config.local_theta, _GLOBAL: config.theta}
        return {
            **written_config(config, _FIELDS),
            "model_type": self.model_type,
            "hidden_activation": their_activation(config.activation),
            "classifier_activation": their_activation(config.pooler_activation),
            "classifier_pooling": next(k for k, v in _POOLING.items() if v == config.pooling),
            "embedding_dropout": config.dropout,
            "local_attention": 2 * config.local_window,
            "layer_types": [
                _LOCAL if depth in local else _GLOBAL for depth in range(config.num_layers)
            ],
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": theta}
                for kind, theta in thetas.items()
            },
        }


def _local_layers(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Which layers are local: named one by one, or all but every n-th."""
    num_layers = whole_number(values, "num_hidden_layers", 22, 1, MOST_LAYERS)
    kinds = values.get("layer_types")
    if kinds is None:
        every = whole_number(values, "global_attn_every_n_layers", 3, 1, MOST_LAYERS)
        return tuple(depth for depth in range(num_layers) if depth % every)
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        raise UserError(
            f"config.json: layer_types should be a list of {num_layers} kinds, as "
            "num_hidden_layers says"
        )
    named = [choose(str(kind), (_GLOBAL, _LOCAL), "layer type") for kind in kinds]
    return tuple(depth for depth, kind in enumerate(named) if kind == _LOCAL)


def _thetas(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary bases, in the form of today or that of the first release."""
    given = _table(values.get("rope_parameters"), "rope_parameters")
    for kind in given:
        choose(kind, (_GLOBAL, _LOCAL), "rope_parameters for")
    found: dict[str, Any] = {}
    for ours, kind, old, default in (
        ("theta", _GLOBAL, "global_rope_theta", 160_000.0),
        ("local_theta", _LOCAL, "local_rope_theta", 10_000.0),
    ):
        one = _table(given.get(kind), f"rope_parameters for {kind}")
        refuse(one, _ROTARY)
        said = (one.get("rope_theta"), values.get(old))
        found[ours] = next((theta for theta in said if theta is not None), default)
    return found


def _table(value: Any, what: str) -> dict[str, Any]:
    """A JSON object, empty where there is none; raises UserError if it is something else."""
    if value is not None and not isinstance(value, dict):
        raise UserError(f"config.json: {what} should be a JSON object, not {value!r}")
    return value or {}
