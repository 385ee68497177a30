"""The encoder of the original Transformer (Vaswani et al. 2017): waves, ReLU, post-norm."""

from collections.abc import Mapping
from typing import ClassVar

from clozeworks.model.families import Size
from clozeworks.model.families.base import Own

_OWN: Size = {
    "family": "transformer",
    "positions": "sinusoidal",
    "num_segments": 0,
    "activation": "relu",
    "embedding_norm": False,
    "embedding_scale": True,
    "norm_eps": 1e-5,
    "max_positions": 5000,
}


class Transformer(Own):
    """The original Transformer's encoder: sinusoidal positions, ReLU; no Hugging Face class."""

    model_type = "transformer"
    modules = (
        "encoder.embeddings.project",  # of the generator it may be trained with
        *(
            f"encoder.layers.{{}}.{part}"
            for part in ("qkv", "out", "attention_norm", "up", "down", "output_norm")
        ),
    )
    sizes: ClassVar[Mapping[str, Size]] = {
        "mini": {**_OWN, "num_layers": 4, "hidden_size": 256, "num_heads": 4, "inner_size": 1024},
        "base": {**_OWN, "num_layers": 6, "hidden_size": 512, "num_heads": 8, "inner_size": 2048},
        "big": {**_OWN, "num_layers": 6, "hidden_size": 1024, "num_heads": 16, "inner_size": 4096},
    }
