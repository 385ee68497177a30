"""BERT (Devlin et al. 2018), in all its published sizes (Turc et al. 2019 for the small ones)."""

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
    bert_decoder,
    bert_embeddings,
    bert_modules,
    classes,
)
from clozeworks.model.keys import activation_of, read_config, their_activation, written_config

_HEADS: dict[str, Names] = {
    "mlm": {
        "heads.mlm.dense": "cls.predictions.transform.dense",
        "heads.mlm.norm": "cls.predictions.transform.LayerNorm",
        "heads.mlm.bias": "cls.predictions.bias",
    },
    "nsp": {"heads.nsp.dense": "cls.seq_relationship"},
    "classify": {"heads.classify.dense": "classifier"},
    "tag": {"heads.tag.dense": "classifier"},
    "qa": {"heads.qa.dense": "qa_outputs"},
    "choice": {"heads.choice.dense": "classifier"},
    "seq2seq": bert_decoder("bert."),
}


class Bert(Public):
    """BERT: post-norm, learned positions, two segments."""

    model_type = "bert"
    prefix = "bert."
    tokenizer = "WordPiece"
    sizes: ClassVar[Mapping[str, Size]] = {
        "tiny": {"num_layers": 2, "hidden_size": 128, "num_heads": 2, "inner_size": 512},
        "mini": MINI,
        "small": {"num_layers": 4, "hidden_size": 512, "num_heads": 8, "inner_size": 2048},
        "medium": {"num_layers": 8, "hidden_size": 512, "num_heads": 8, "inner_size": 2048},
        "base": BASE,
        "large": LARGE,
    }
    architectures = {
        **classes("Bert", nsp="ForNextSentencePrediction", mlm_nsp="ForPreTraining"),
        frozenset({"seq2seq"}): "EncoderDecoderModel",
    }
    tensorflow = ((r"^output_(weights|bias)$", r"classifier/output_\1"),)
    tied: ClassVar[Mapping[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    modules = {**bert_modules("bert."), "pooler.dense": "bert.pooler.dense"}
    tensors = bert_embeddings("bert.")
    by_head = _HEADS

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        activation = activation_of(values, "hidden_act")
        return read_config(self.model_type, values, FIELDS, **BASE, activation=activation)

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        activation = their_activation(config.activation)
        kind = {"model_type": self.model_type, "hidden_act": activation}
        return {**written_config(config, FIELDS), **kind}
