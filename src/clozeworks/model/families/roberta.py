"""RoBERTa (Liu et al. 2019): BERT without next sentences, positions counted from after the pad."""

from collections.abc import Mapping
from typing import Any, ClassVar

from clozeworks.core.errors import UserError
from clozeworks.model.config import MOST_POSITIONS, EncoderConfig
from clozeworks.model.families import Size
from clozeworks.model.families.base import (
    BASE,
    FIELDS,
    LARGE,
    MINI,
    Names,
    Public,
    bert_embeddings,
    bert_modules,
    classes,
)
from clozeworks.model.keys import (
    activation_of,
    read_config,
    their_activation,
    whole_number,
    written_config,
)

_OWN: Size = {
    "after_pad": True,
    "pad_id": 1,
    "num_segments": 1,
    "norm_eps": 1e-5,
    "head_activation": "gelu",
}
_DEFAULTS: Size = {**BASE, **_OWN, "num_segments": 2, "norm_eps": 1e-12}
"""What transformers takes where a config says nothing, though no published model has it."""
_HEADS: dict[str, Names] = {
    "mlm": {
        "heads.mlm.dense": "lm_head.dense",
        "heads.mlm.norm": "lm_head.layer_norm",
        "heads.mlm.bias": "lm_head.bias",
    },
    "classify": {
        "pooler.dense": "classifier.dense",
        "heads.classify.dense": "classifier.out_proj",
    },
    "tag": {"heads.tag.dense": "classifier"},
    "qa": {"heads.qa.dense": "qa_outputs"},
    "choice": {"heads.choice.dense": "classifier"},
}


class Roberta(Public):
    """RoBERTa: as BERT, one segment, byte-level BPE."""

    model_type = "roberta"
    prefix = "roberta."
    tokenizer = "byte-level BPE"
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": {**MINI, **_OWN},
        "base": {**BASE, **_OWN},
        "large": {**LARGE, **_OWN},
    }
    architectures = classes("Roberta")
    tied: ClassVar[Mapping[str, str]] = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    modules = {**bert_modules("roberta."), "pooler.dense": "roberta.pooler.dense"}
    tensors = bert_embeddings("roberta.")
    by_head = _HEADS

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        pad = whole_number(values, "pad_token_id", 1, 0, MOST_POSITIONS)
        places = whole_number(values, "max_position_embeddings", 512, 1, MOST_POSITIONS)
        if places <= pad + 1:
            raise UserError(
                f"config.json: max_position_embeddings = {places!r} and pad_token_id = {pad!r}: "
                "positions are counted from pad_token_id + 1, so none is left"
            )
        usable = {**values, "pad_token_id": pad, "max_position_embeddings": places - pad - 1}
        return read_config(
            self.model_type,
            usable,
            FIELDS,
            **{**_DEFAULTS, "activation": activation_of(values, "hidden_act")},
        )

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        return {
            **written_config(config, FIELDS),
            "max_position_embeddings": config.max_positions + config.first_position,
            "model_type": self.model_type,
            "hidden_act": their_activation(config.activation),
        }
