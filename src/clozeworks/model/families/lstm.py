"""The encoder of the years before BERT: a recurrence in both directions, and attention over it."""

from collections.abc import Mapping
from typing import ClassVar

from clozeworks.model.families import Size
from clozeworks.model.families.base import Own

_OWN: Size = {
    "family": "lstm",
    "recurrent": "lstm",
    "positions": "none",
    "num_segments": 0,
    "embedding_norm": False,
    "embedding_size": 100,
    "norm_eps": 1e-5,
    "max_positions": 8192,
}
_DIRECTIONS = ("", "_reverse")


class Lstm(Own):
    """BiLSTM (or BiGRU) with attention over its states; no Hugging Face class."""

    model_type = "lstm"
    modules = (
        "encoder.embeddings.project",
        "encoder.qkv",
        "encoder.out",
        "encoder.output_norm",
    )
    tensors = tuple(
        f"encoder.cells.{kind}_{part}_l{{}}{direction}"
        for kind in ("weight", "bias")
        for part in ("ih", "hh")
        for direction in _DIRECTIONS
    )
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": {**_OWN, "num_layers": 1, "hidden_size": 256, "num_heads": 4},
        "base": {**_OWN, "num_layers": 2, "hidden_size": 512, "num_heads": 8},
    }
