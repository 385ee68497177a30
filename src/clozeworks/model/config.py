"""The values that make one encoder: widths, positions, norms, sharing, windows, heads."""

from typing import Literal, Self

from pydantic import Field, model_validator

from clozeworks.core.config import Settings

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]
Positions = Literal["learned", "sinusoidal", "rotary", "none"]
MOST_LAYERS = 1_000
MOST_POSITIONS = 10_000_000


class EncoderConfig(Settings):
    """Everything the encoder needs to be built; families differ by these values alone.

    The upper limits are far above any model there is: they stop a damaged file before memory does.
    """

    family: str = "bert"
    """The family whose names and files it has."""
    vocab_size: int = Field(gt=0, le=10_000_000)
    """Rows of the token embedding."""
    hidden_size: int = Field(default=256, gt=0, le=65_536)
    """Width of a token vector (H)."""
    num_layers: int = Field(default=4, gt=0, le=MOST_LAYERS)
    """Encoder layers a token passes through (L)."""
    num_heads: int = Field(default=4, gt=0)
    """Attention heads (A); must divide the width."""
    inner_size: int = Field(default=1024, gt=0, le=1_000_000)
    """Width inside the feed-forward part."""
    activation: Activation = "gelu"
    """Activation of the feed-forward part: exact GELU, its tanh approximation, ReLU, or tanh."""
    max_positions: int = Field(default=512, gt=0, le=MOST_POSITIONS)
    """Longest sequence the positions allow."""
    num_segments: int = Field(default=2, ge=0, le=65_536)
    """Rows of the segment (token type) embedding; 0 for a model without one."""
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

    embedding_size: int | None = Field(default=None, gt=0, le=65_536)
    """Width of the embeddings where a projection leads from them to H (ALBERT, ELECTRA)."""
    embedding_norm: bool = True
    """Whether the sum of the embeddings is normalised."""
    embedding_scale: bool = False
    """Whether token vectors are multiplied by the root of their width (Vaswani et al. 2017)."""
    positions: Positions = "learned"
    """How a token knows its place: a learned vector, waves added, or queries and keys turned."""
    after_pad: bool = False
    """Whether the first place's row of the position embedding is the one after `pad_id`."""
    theta: float = Field(default=160_000.0, gt=0)
    """Base of the rotary frequencies."""
    local_theta: float = Field(default=10_000.0, gt=0)
    """The same in local layers."""
    local_window: int = Field(default=64, gt=0, le=MOST_POSITIONS)
    """How far a token of a local layer sees, to either side."""
    local_layers: tuple[int, ...] = ()
    """The layers, from 0, that see only so far."""
    norm: Literal["post", "pre"] = "post"
    """Whether what leaves a sublayer is normalised (BERT), or what enters it."""
    first_norm: bool = True
    """With pre-norm: whether the first layer's attention has a norm before it."""
    norm_bias: bool = True
    """Whether norms have a bias."""
    attention_bias: bool = True
    """Whether the products of attention have a bias."""
    inner_bias: bool = True
    """Whether the products of the feed-forward part have a bias."""
    gated: bool = False
    """Whether the feed-forward part multiplies its activation with a second half (GeGLU)."""
    groups: int | None = Field(default=None, gt=0, le=MOST_LAYERS)
    """Layers are shared in this many groups (ALBERT); absent: every layer is its own."""
    group_layers: int = Field(default=1, gt=0, le=MOST_LAYERS)
    """Distinct layers in a group, run one after another."""

    recurrent: Literal["lstm", "gru"] | None = None
    """A bidirectional LSTM or GRU with one attention over its states, in place of the layers."""

    head_activation: Activation | None = None
    """Activation of the masked-token head; absent: that of the feed-forward part."""
    head_bias: bool = True
    """Whether the dense layers of pooler and masked-token head have a bias."""
    pooling: Literal["first", "mean"] = "first"
    """What stands for a sequence: its first token's vector, or the mean of all."""
    pooler_activation: Activation = "tanh"
    """Activation of the pooler."""
    pooler_norm: bool = False
    """Whether the pooler ends in a norm."""
    pooled_tokens: bool = False
    """Whether heads that judge single tokens stand on the pooler too."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"width {self.hidden_size} is not a multiple of {self.num_heads} heads"
            )
        if self.positions == "rotary" and self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"rotary positions need an even width of a head, not "
                f"{self.hidden_size // self.num_heads}"
            )
        if self.groups is not None and self.num_layers % self.groups:
            raise ValueError(f"{self.num_layers} layers do not divide into {self.groups} groups")
        if self.num_layers * self.group_layers > MOST_LAYERS:
            raise ValueError(
                f"{self.num_layers} layers of {self.group_layers} each are more than "
                f"{MOST_LAYERS:,} in all"
            )
        if self.recurrent and self.hidden_size % 2:
            raise ValueError(f"width {self.hidden_size} does not halve into two directions")
        return self

    @property
    def embedding_width(self) -> int:
        """Width of the token, position and segment vectors (E)."""
        return self.embedding_size or self.hidden_size

    @property
    def first_position(self) -> int:
        """The row of the position embedding that stands for the first place."""
        return self.pad_id + 1 if self.after_pad else 0

    @property
    def order(self) -> list[int]:
        """Which of the distinct layers runs at each depth."""
        if self.groups is None:
            return list(range(self.num_layers))
        each = self.num_layers // self.groups
        firsts = [depth // each * self.group_layers for depth in range(self.num_layers)]
        return [first + inner for first in firsts for inner in range(self.group_layers)]

    @property
    def num_distinct(self) -> int:
        """Layers that have weights of their own."""
        return self.num_layers if self.groups is None else self.groups * self.group_layers
