"""ModernBERT (Warner et al. 2024): rotary positions, local and global layers, gated, pre-norm."""

from collections.abc import Mapping
from typing import Any, ClassVar

from clozeworks.core.errors import UserError, choose
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import Size
from clozeworks.model.families.base import MINI, Names, Public, classes
from clozeworks.model.keys import activation_of, read_config, their_activation, written_config

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
    ignored = ("decoder.weight",)
    modules = _MODULES
    tensors = _TOKENS
    by_head = _HEADS

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        if not values.get("decoder_bias", True):
            raise UserError("config.json: decoder_bias = false is not supported (choices: true)")
        head = activation_of(values, "classifier_activation")
        pooling = choose(str(values.get("classifier_pooling") or "cls"), _POOLING, "pooling")
        given = {
            "activation": activation_of(values, "hidden_activation"),
            "head_activation": head,
            "pooler_activation": head,
            "pooling": _POOLING[pooling],
            "local_window": max(1, int(values.get("local_attention") or 128) // 2),
            "local_layers": _local_layers(values),
            **_thetas(values),
        }
        return read_config(self.model_type, values, _FIELDS, **{**_FIXED, **_DEFAULTS, **given})

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        kinds = {True: "sliding_attention", False: "full_attention"}
        local = set(config.local_layers)
        thetas = {kinds[True]: config.local_theta, kinds[False]: config.theta}
        return {
            **written_config(config, _FIELDS),
            "model_type": self.model_type,
            "hidden_activation": their_activation(config.activation),
            "classifier_activation": their_activation(config.pooler_activation),
            "classifier_pooling": next(k for k, v in _POOLING.items() if v == config.pooling),
            "embedding_dropout": config.dropout,
            "local_attention": 2 * config.local_window,
            "layer_types": [kinds[depth in local] for depth in range(config.num_layers)],
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": theta}
                for kind, theta in thetas.items()
            },
        }


def _local_layers(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Which layers are local: named one by one, or all but every n-th."""
    kinds = values.get("layer_types")
    if kinds is not None:
        return tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention")
    every = int(values.get("global_attn_every_n_layers") or 3)
    return tuple(i for i in range(int(values.get("num_hidden_layers") or 22)) if i % every)


def _thetas(values: Mapping[str, Any]) -> dict[str, float]:
    """Rotary bases, in the form of today or that of the first release."""
    given = values.get("rope_parameters") or {}
    found = {}
    for ours, kind, old, default in (
        ("theta", "full_attention", "global_rope_theta", 160_000.0),
        ("local_theta", "sliding_attention", "local_rope_theta", 10_000.0),
    ):
        one = given.get(kind) or {}
        if one.get("rope_type", "default") != "default":
            raise UserError(
                f"config.json: rope_type = {one['rope_type']!r} is not supported "
                "(choices: 'default')"
            )
        found[ours] = float(one.get("rope_theta") or values.get(old) or default)
    return found
