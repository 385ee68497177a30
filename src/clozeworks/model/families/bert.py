"""BERT (Devlin et al. 2018) as Hugging Face writes it."""

from typing import Any, cast

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose
from clozeworks.model.config import Activation, EncoderConfig
from clozeworks.model.names import Table

_LAYER = "bert.encoder.layer.{}."
_SELF = _LAYER + "attention.self."
_MODULES: dict[str, str | tuple[str, ...]] = {
    "encoder.embeddings.norm": "bert.embeddings.LayerNorm",
    "encoder.layers.{}.qkv": (_SELF + "query", _SELF + "key", _SELF + "value"),
    "encoder.layers.{}.out": _LAYER + "attention.output.dense",
    "encoder.layers.{}.attention_norm": _LAYER + "attention.output.LayerNorm",
    "encoder.layers.{}.up": _LAYER + "intermediate.dense",
    "encoder.layers.{}.down": _LAYER + "output.dense",
    "encoder.layers.{}.output_norm": _LAYER + "output.LayerNorm",
    "pooler.dense": "bert.pooler.dense",
    "heads.mlm.dense": "cls.predictions.transform.dense",
    "heads.mlm.norm": "cls.predictions.transform.LayerNorm",
    "heads.nsp.dense": "cls.seq_relationship",
    "heads.classify.dense": "classifier",
}
"""Modules with a weight and a bias."""
_TENSORS: dict[str, str] = {
    "encoder.embeddings.tokens.weight": "bert.embeddings.word_embeddings.weight",
    "encoder.embeddings.positions.weight": "bert.embeddings.position_embeddings.weight",
    "encoder.embeddings.segments.weight": "bert.embeddings.token_type_embeddings.weight",
    "heads.mlm.bias": "cls.predictions.bias",
}
_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "inner_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "init_std": "initializer_range",
    "pad_id": "pad_token_id",
}
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def _table() -> Table:
    rows: dict[str, str | tuple[str, ...]] = dict(_TENSORS)
    for ours, theirs in _MODULES.items():
        for part in (".weight", ".bias"):
            parts = theirs if isinstance(theirs, str) else tuple(t + part for t in theirs)
            rows[ours + part] = parts + part if isinstance(parts, str) else parts
    return rows


class Bert:
    """BERT: post-norm, learned positions, two segments."""

    model_type = "bert"
    prefix = "bert."
    names = _table()
    ignored = ("position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    architectures = {
        frozenset[str](): "BertModel",
        frozenset({"mlm"}): "BertForMaskedLM",
        frozenset({"nsp"}): "BertForNextSentencePrediction",
        frozenset({"mlm", "nsp"}): "BertForPreTraining",
        frozenset({"classify"}): "BertForSequenceClassification",
    }

    def config(self, values: dict[str, Any]) -> EncoderConfig:
        """Read config.json; raises UserError for values this encoder does not have."""
        activation = choose(str(values.get("hidden_act") or "gelu"), _ACTIVATIONS, "hidden_act")
        if (values.get("position_embedding_type") or "absolute") != "absolute":
            raise UserError(
                f"position_embedding_type {values['position_embedding_type']!r} is not supported "
                "(choices: 'absolute')"
            )
        if values.get("is_decoder"):
            raise UserError("is_decoder = true: a decoder is not a BERT encoder; open an encoder")
        given = {
            ours: values[theirs]
            for ours, theirs in _FIELDS.items()
            if values.get(theirs) is not None
        }
        given["activation"] = _ACTIVATIONS[activation]
        return validated(EncoderConfig, given, "config.json")

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        """Write config.json, heads aside."""
        theirs = {name: getattr(config, ours) for ours, name in _FIELDS.items()}
        activation = "gelu_new" if config.activation == "gelu_tanh" else config.activation
        return {**theirs, "model_type": "bert", "hidden_act": cast(str, activation)}
