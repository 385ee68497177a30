"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no segments."""

from collections.abc import Mapping
from typing import Any, ClassVar

from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import Size
from clozeworks.model.families.base import BASE, MINI, Names, Public, classes
from clozeworks.model.keys import activation_of, read_config, their_activation, written_config

_OWN: Size = {"num_segments": 0, "pooler_activation": "relu"}
_BASE: Size = {**BASE, **_OWN, "num_layers": 6}
_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "inner_size": "hidden_dim",
    "max_positions": "max_position_embeddings",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "init_std": "initializer_range",
    "pad_id": "pad_token_id",
}
_SYNONYMS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
}
"""What transformers takes for those keys as well."""
_LAYER = "distilbert.transformer.layer.{}."
_ATTENTION = _LAYER + "attention."
_MODULES: Names = {
    "encoder.embeddings.norm": "distilbert.embeddings.LayerNorm",
    "encoder.layers.{}.qkv": (_ATTENTION + "q_lin", _ATTENTION + "k_lin", _ATTENTION + "v_lin"),
    "encoder.layers.{}.out": _ATTENTION + "out_lin",
    "encoder.layers.{}.attention_norm": _LAYER + "sa_layer_norm",
    "encoder.layers.{}.up": _LAYER + "ffn.lin1",
    "encoder.layers.{}.down": _LAYER + "ffn.lin2",
    "encoder.layers.{}.output_norm": _LAYER + "output_layer_norm",
}
_TENSORS: Names = {
    "encoder.embeddings.tokens.weight": "distilbert.embeddings.word_embeddings.weight",
    "encoder.embeddings.positions.weight": "distilbert.embeddings.position_embeddings.weight",
}
_POOLER: Names = {"pooler.dense": "pre_classifier"}
_HEADS: dict[str, Names] = {
    "mlm": {
        "heads.mlm.dense": "vocab_transform",
        "heads.mlm.norm": "vocab_layer_norm",
        "heads.mlm.bias": "vocab_projector.bias",
    },
    "classify": {**_POOLER, "heads.classify.dense": "classifier"},
    "tag": {"heads.tag.dense": "classifier"},
    "qa": {"heads.qa.dense": "qa_outputs"},
    "choice": {**_POOLER, "heads.choice.dense": "classifier"},
}


class Distilbert(Public):
    """DistilBERT: as BERT, without segments; its pooler ends in ReLU."""

    model_type = "distilbert"
    prefix = "distilbert."
    tokenizer = "WordPiece"
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": {**MINI, **_OWN},
        "base": _BASE,
    }
    architectures = classes("DistilBert")
    tied: ClassVar[Mapping[str, str]] = {
        "vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"
    }
    modules = _MODULES
    tensors = _TENSORS
    by_head = _HEADS

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        """Read config.json; waves, where it asks for them, are stored as learned positions."""
        activation = activation_of(values, "activation")
        known = {key: values.get(other) for key, other in _SYNONYMS.items()}
        given = {**_BASE, "activation": activation}
        return read_config(self.model_type, {**known, **values}, _FIELDS, **given)

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        activation = their_activation(config.activation)
        kind = {"model_type": self.model_type, "activation": activation}
        return {**written_config(config, _FIELDS), **kind}
