"""ELECTRA (Clark et al. 2020): a generator that fills blanks, a discriminator that finds them."""

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
    bert_modules,
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

_OWN: Size = {"head_activation": "gelu", "pooler_activation": "gelu"}
_SMALL: Size = {**MINI, **_OWN, "num_layers": 12, "embedding_size": 128}
_FIELDS = {**FIELDS, "embedding_size": "embedding_size"}
_NEUTRAL: Neutral = {
    "summary_type": ("first",),
    "summary_activation": ("gelu",),
    "summary_use_proj": (True,),
    "summary_proj_to_labels": (False,),
}
"""How its class for multiple choice makes one vector of a sequence."""
_HEADS: dict[str, Names] = {
    "mlm": {
        "heads.mlm.dense": "generator_predictions.dense",
        "heads.mlm.norm": "generator_predictions.LayerNorm",
        "heads.mlm.bias": "generator_lm_head.bias",
    },
    "rtd": {
        "heads.rtd.dense": "discriminator_predictions.dense",
        "heads.rtd.score": "discriminator_predictions.dense_prediction",
    },
    "classify": {
        "pooler.dense": "classifier.dense",
        "heads.classify.dense": "classifier.out_proj",
    },
    "tag": {"heads.tag.dense": "classifier"},
    "qa": {"heads.qa.dense": "qa_outputs"},
    "choice": {"pooler.dense": "sequence_summary.summary", "heads.choice.dense": "classifier"},
}


class Electra(Public):
    """ELECTRA: as BERT, embeddings of another width projected; its pooler ends in GELU."""

    model_type = "electra"
    prefix = "electra."
    tokenizer = "WordPiece"
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": {**MINI, **_OWN, "embedding_size": 128},
        "small": _SMALL,
        "base": {**BASE, **_OWN},
        "large": {**LARGE, **_OWN},
    }
    architectures = classes("Electra", rtd="ForPreTraining")
    tensorflow = (
        (r"^discriminator_predictions/dense_1/", "discriminator_predictions/dense_prediction/"),
        (r"^generator_predictions/output_bias$", "generator_lm_head/bias"),
    )
    tied: ClassVar[Mapping[str, str]] = {
        "generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"
    }
    modules = {
        **bert_modules("electra."),
        "encoder.embeddings.project": "electra.embeddings_project",
    }
    tensors = bert_embeddings("electra.")
    by_head = _HEADS

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        refuse(values, _NEUTRAL)
        activation = activation_of(values, "hidden_act")
        given = {**_SMALL, "activation": activation}
        config = read_config(self.model_type, values, _FIELDS, **given)
        projected = config.embedding_size != config.hidden_size
        return config if projected else config.model_copy(update={"embedding_size": None})

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        return {
            **written_config(config, _FIELDS),
            "embedding_size": config.embedding_width,
            "model_type": self.model_type,
            "hidden_act": their_activation(config.activation),
        }
