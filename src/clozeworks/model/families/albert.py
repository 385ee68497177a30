"""ALBERT (Lan et al. 2020): factorised embeddings, layers shared, sentence order."""

from collections.abc import Mapping
from typing import Any, ClassVar

from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import Size
from clozeworks.model.families.base import (
    BASE,
    FIELDS,
    LARGE,
    MINI,
    Names,
    Public,
    bert_embeddings,
    classes,
)
from clozeworks.model.keys import (
    Neutral,
    activation_of,
    read_config,
    refuse,
    their_activation,
    written_config,
)

_FIELDS = {
    **FIELDS,
    "embedding_size": "embedding_size",
    "groups": "num_hidden_groups",
    "group_layers": "inner_group_num",
}
_OWN: Size = {
    "embedding_size": 128,
    "groups": 1,
    "activation": "gelu_tanh",
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
_XXLARGE: Size = {
    **BASE,
    **_OWN,
    "hidden_size": 4096,
    "num_heads": 64,
    "inner_size": 16384,
}
"""What transformers takes where a config says nothing, too."""
_NEUTRAL: Neutral = {
    "net_structure_type": (0,),
    "gap_size": (0,),
    "num_memory_blocks": (0,),
    "down_scale_factor": (1,),
    "layers_to_keep": ([],),
}
"""What Google's configs speak of, and no published model has."""
_LAYER = "albert.encoder.albert_layer_groups.{}."
_ATTENTION = _LAYER + "attention."
_MODULES: Names = {
    "encoder.embeddings.norm": "albert.embeddings.LayerNorm",
    "encoder.embeddings.project": "albert.encoder.embedding_hidden_mapping_in",
    "encoder.layers.{}.qkv": (_ATTENTION + "query", _ATTENTION + "key", _ATTENTION + "value"),
    "encoder.layers.{}.out": _ATTENTION + "dense",
    "encoder.layers.{}.attention_norm": _ATTENTION + "LayerNorm",
    "encoder.layers.{}.up": _LAYER + "ffn",
    "encoder.layers.{}.down": _LAYER + "ffn_output",
    "encoder.layers.{}.output_norm": _LAYER + "full_layer_layer_norm",
    "pooler.dense": "albert.pooler",
}
_GROUP = r"albert/encoder/albert_layer_groups.\1.albert_layers.\2"
_HEADS: dict[str, Names] = {
    "mlm": {
        "heads.mlm.dense": "predictions.dense",
        "heads.mlm.norm": "predictions.LayerNorm",
        "heads.mlm.bias": "predictions.bias",
    },
    "sop": {"heads.sop.dense": "sop_classifier.classifier"},
    "classify": {"heads.classify.dense": "classifier"},
    "tag": {"heads.tag.dense": "classifier"},
    "qa": {"heads.qa.dense": "qa_outputs"},
    "choice": {"heads.choice.dense": "classifier"},
}


class Albert(Public):
    """ALBERT: small embeddings, one layer run many times, tanh-GELU."""

    model_type = "albert"
    prefix = "albert."
    tokenizer = "unigram"
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": {**MINI, **_OWN},
        "base": {**BASE, **_OWN},
        "large": {**LARGE, **_OWN},
        "xlarge": {**LARGE, **_OWN, "hidden_size": 2048, "inner_size": 8192},
        "xxlarge": _XXLARGE,
    }
    architectures = classes("Albert", mlm_sop="ForPreTraining")
    tensorflow = (
        (r"^bert/encoder/transformer/group_(\d+)/inner_group_(\d+)/", f"{_GROUP}/"),
        (r"attention_1/self/", "attention/"),
        (r"attention_1/output/dense", "attention/dense"),
        (r"(albert_layers\.\d+/)LayerNorm/", r"\1attention/LayerNorm/"),
        (r"LayerNorm_1/", "full_layer_layer_norm/"),
        (r"ffn_1/intermediate/output/dense", "ffn_output"),
        (r"ffn_1/intermediate/dense", "ffn"),
        (r"^bert/pooler/dense/", "albert/pooler/"),
        (r"^bert/", "albert/"),
        (r"^cls/predictions/transform/", "predictions/"),
        (r"^cls/predictions/", "predictions/"),
        (r"^cls/seq_relationship/", "sop_classifier/classifier/"),
        (r"^output_(weights|bias)$", r"classifier/output_\1"),
    )
    tied: ClassVar[Mapping[str, str]] = {
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    }
    modules = _MODULES
    tensors = bert_embeddings("albert.")
    by_head = _HEADS

    def layers(self, config: EncoderConfig) -> list[str]:
        """A layer is named by its group and its place in it."""
        groups, each = config.groups or config.num_layers, config.group_layers
        return [f"{g}.albert_layers.{i}" for g in range(groups) for i in range(each)]

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        refuse(values, _NEUTRAL)
        activation = activation_of(values, "hidden_act", "gelu_new")
        given = {**_XXLARGE, "activation": activation}
        return read_config(self.model_type, values, _FIELDS, **given)

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        return {
            **written_config(config, _FIELDS),
            "num_hidden_groups": config.groups or config.num_layers,
            "embedding_size": config.embedding_width,
            "model_type": self.model_type,
            "hidden_act": their_activation(config.activation),
        }
