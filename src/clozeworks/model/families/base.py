"""What families have in common: BERT's names of things, and the form that is ours alone."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import Heads, Size
from clozeworks.model.keys import refuse
from clozeworks.model.names import Table, rows

Names = dict[str, str | tuple[str, ...]]

FIELDS = {
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
"""Our keys → those of BERT's config.json, which most families share."""

_SHAPE = ("vocab_size", "hidden_size", "num_layers", "num_heads", "inner_size")
"""What a folder of our own form never leaves unsaid."""

MINI: Size = {"num_layers": 4, "hidden_size": 256, "num_heads": 4, "inner_size": 1024}
BASE: Size = {"num_layers": 12, "hidden_size": 768, "num_heads": 12, "inner_size": 3072}
LARGE: Size = {"num_layers": 24, "hidden_size": 1024, "num_heads": 16, "inner_size": 4096}


def bert_modules(prefix: str) -> Names:
    """Modules of the embeddings and layers, as BERT and its nearest relatives name them."""
    layer = f"{prefix}encoder.layer.{{}}."
    own = layer + "attention.self."
    return {
        "encoder.embeddings.norm": f"{prefix}embeddings.LayerNorm",
        "encoder.layers.{}.qkv": (own + "query", own + "key", own + "value"),
        "encoder.layers.{}.out": layer + "attention.output.dense",
        "encoder.layers.{}.attention_norm": layer + "attention.output.LayerNorm",
        "encoder.layers.{}.up": layer + "intermediate.dense",
        "encoder.layers.{}.down": layer + "output.dense",
        "encoder.layers.{}.output_norm": layer + "output.LayerNorm",
    }


def bert_embeddings(prefix: str) -> Names:
    """Their names of the three embeddings."""
    return {
        "encoder.embeddings.tokens.weight": f"{prefix}embeddings.word_embeddings.weight",
        "encoder.embeddings.positions.weight": f"{prefix}embeddings.position_embeddings.weight",
        "encoder.embeddings.segments.weight": f"{prefix}embeddings.token_type_embeddings.weight",
    }


def bert_decoder(prefix: str) -> Names:
    """The decoder of a pair, whose second half has BERT's names after `decoder.`, and a head."""
    own = {**bert_modules(f"decoder.{prefix}"), **bert_embeddings(f"decoder.{prefix}")}
    cross = f"decoder.{prefix}encoder.layer.{{}}.crossattention."
    layer, head = "heads.seq2seq.layers.{}.", "decoder.cls.predictions."
    return {
        **{name.replace("encoder.", "heads.seq2seq.", 1): theirs for name, theirs in own.items()},
        f"{layer}cross_q": f"{cross}self.query",
        f"{layer}cross_kv": (f"{cross}self.key", f"{cross}self.value"),
        f"{layer}cross_out": f"{cross}output.dense",
        f"{layer}cross_norm": f"{cross}output.LayerNorm",
        "heads.seq2seq.head.dense": f"{head}transform.dense",
        "heads.seq2seq.head.norm": f"{head}transform.LayerNorm",
        "heads.seq2seq.head.bias": f"{head}bias",
    }


def numbered(config: EncoderConfig) -> list[str]:
    """Layers called by their number."""
    return [str(number) for number in range(config.num_distinct)]


def classes(stem: str, **more: str) -> dict[Heads, str]:
    """Hugging Face's class names for the heads that every family has, and `more`."""
    named = {
        "": "Model",
        "mlm": "ForMaskedLM",
        "classify": "ForSequenceClassification",
        "tag": "ForTokenClassification",
        "qa": "ForQuestionAnswering",
        "choice": "ForMultipleChoice",
        **more,
    }
    return {frozenset(filter(None, heads.split("_"))): stem + end for heads, end in named.items()}


class Public:
    """A family with classes in transformers: what its classes hold, as tables of names."""

    modules: Mapping[str, str | tuple[str, ...]]
    """Modules of embeddings, layers and, where the bare class has one, pooler."""
    tensors: Mapping[str, str | tuple[str, ...]]
    """Single tensors: the embeddings."""
    by_head: Mapping[str, Names]
    """What each head adds: its modules, and tensors such as `heads.mlm.bias`."""
    tensorflow: Sequence[tuple[str, str]] = ()
    ignored = ("position_ids",)

    def names(self, heads: Heads) -> Table:
        """The names in the class with these heads; a head may name the pooler anew."""
        modules, tensors = dict(self.modules), dict(self.tensors)
        for head in heads:
            for ours, theirs in self.by_head.get(head, {}).items():
                single = ours.endswith((".bias", ".weight"))
                (tensors if single else modules)[ours] = theirs
        return rows(modules, tensors)

    def layers(self, config: EncoderConfig) -> list[str]:
        """Layers called by their number."""
        return numbered(config)


class Own:
    """A model that no Hugging Face class holds: our own names and values, in folders of the same
    form."""

    model_type: str
    sizes: ClassVar[Mapping[str, Size]]
    prefix = ""
    tokenizer = "WordPiece"
    architectures: Mapping[Heads, str] = {}
    ignored: tuple[str, ...] = ()
    tied: Mapping[str, str] = {}
    tensorflow: tuple[tuple[str, str], ...] = ()
    modules: tuple[str, ...]
    """The encoder's modules that have a weight and a bias."""
    tensors: tuple[str, ...] = ()
    """Its other tensors."""

    def names(self, heads: Heads) -> Table:
        """Every name as it is."""
        modules = [*self.modules, "pooler.dense"]
        modules += [f"heads.{head}.{part}" for head in heads for part in ("dense", "norm", "score")]
        embeddings = [f"encoder.embeddings.{kind}.weight" for kind in ("tokens", "positions")]
        tensors = [*self.tensors, *embeddings, "encoder.embeddings.segments.weight"]
        tensors += [f"heads.{head}.bias" for head in heads]
        return rows({name: name for name in modules}, {name: name for name in tensors})

    def layers(self, config: EncoderConfig) -> list[str]:
        """Layers called by their number."""
        return numbered(config)

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        """Our own values; other keys are passed over, but for what changes the mathematics."""
        refuse(values)
        if missing := [key for key in _SHAPE if values.get(key) is None]:
            raise UserError(f"config.json: {missing[0]!r} is missing; copy it again")
        usual = next(iter(self.sizes.values()))
        known = {key: values[key] for key in EncoderConfig.model_fields if key in values}
        own = {**usual, **known, "family": self.model_type}
        return validated(EncoderConfig, own, "config.json")

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        """Our own values."""
        return {**config.model_dump(mode="json"), "model_type": self.model_type}
