"""The values that make one encoder: sizes, activation, norm, dropout."""

from typing import Literal, Self

from pydantic import Field, model_validator

from clozeworks.core.config import Settings

Activation = Literal["gelu", "gelu_tanh", "relu"]
SIZES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
}
"""Layers and width of the usual sizes (Turc et al. 2019); heads: width / 64; inner: 4 widths."""


class EncoderConfig(Settings):
    """Everything the encoder needs to be built; families differ by these values alone.

    The upper limits are far above any model there is: they stop a damaged file before memory does.
    """

    vocab_size: int = Field(gt=0, le=10_000_000)
    """Rows of the token embedding."""
    hidden_size: int = Field(default=256, gt=0, le=65_536)
    """Width of a token vector (H)."""
    num_layers: int = Field(default=4, gt=0, le=1_000)
    """Encoder layers (L)."""
    num_heads: int = Field(default=4, gt=0)
    """Attention heads (A); must divide the width."""
    inner_size: int = Field(default=1024, gt=0, le=1_000_000)
    """Width inside the feed-forward part."""
    activation: Activation = "gelu"
    """Activation of the feed-forward part: exact GELU, its tanh approximation, or ReLU."""
    max_positions: int = Field(default=512, gt=0, le=10_000_000)
    """Longest sequence the learned positions allow."""
    num_segments: int = Field(default=2, gt=0, le=65_536)
    """Rows of the segment (token type) embedding."""
    norm_eps: float = Field(default=1e-12, gt=0)
    """Epsilon of every LayerNorm; some published models were trained with 1e-3."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of hidden values dropped in training."""
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of attention probabilities dropped in training."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of fresh weights."""
    pad_id: int = Field(default=0, ge=0)
    """Id of [PAD], written for other libraries; nothing is padded here."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"width {self.hidden_size} is not a multiple of {self.num_heads} heads"
            )
        return self

    @classmethod
    def of_size(cls, size: str, vocab_size: int) -> "EncoderConfig":
        """One of the usual sizes, from `tiny` to `base`."""
        layers, width = SIZES[size]
        return cls(
            vocab_size=vocab_size,
            num_layers=layers,
            hidden_size=width,
            num_heads=width // 64,
            inner_size=4 * width,
        )
