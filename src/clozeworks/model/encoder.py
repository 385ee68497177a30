"""The one encoder: embeddings, then layers of attention and feed-forward, over packed tokens."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeworks.model.attention import Drop, Layout, attend, attend_plainly
from clozeworks.model.config import Activation, EncoderConfig
from clozeworks.model.lookup import lookup
from clozeworks.model.noise import Dropout, Noise
from clozeworks.model.rows import rounded, rounded_index, rounded_offsets

Want = Literal["hidden", "attention"]


class Packed(Protocol):
    """What the encoder reads of a Batch."""

    @property
    def input_ids(self) -> Tensor:
        """[T] int64."""
        ...

    @property
    def positions(self) -> Tensor:
        """[T] int64, from 0 in each sequence."""
        ...

    @property
    def segments(self) -> Tensor:
        """[T] int64."""
        ...

    @property
    def offsets(self) -> Tensor:
        """[N + 1] int64 bounds of the sequences."""
        ...


@dataclass
class Encoded:
    """What the encoder answers: `x` [T, H] (or the rows read, [M, H]) and what was wanted besides.

    hidden: the embeddings and each layer's output, [T, H] each. attention: each layer's
    probabilities, [R, h, C, C] over the rows of `layout`.
    """

    x: Tensor
    layout: Layout
    hidden: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply the named activation, element by element."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Embeddings(nn.Module):
    """Token + position + segment vectors, normalised (Devlin et al. 2018, figure 2)."""

    def __init__(self, config: EncoderConfig, noise: Noise) -> None:
        super().__init__()
        width = config.hidden_size
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_positions, width)
        self.segments = nn.Embedding(config.num_segments, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout, noise)

    def forward(self, batch: Packed) -> Tensor:
        x = lookup(self.tokens.weight, batch.input_ids)
        x = x + lookup(self.positions.weight, batch.positions)
        x = x + lookup(self.segments.weight, batch.segments)
        out: Tensor = self.dropout(self.norm(x))
        return out


class Layer(nn.Module):
    """Attention, then feed-forward, each added to its input and normalised after (post-norm)."""

    def __init__(self, config: EncoderConfig, noise: Noise) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.activation = config.activation
        self.attention_dropout = config.attention_dropout
        self.noise = noise
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.up = nn.Linear(width, config.inner_size)
        self.down = nn.Linear(config.inner_size, width)
        self.output_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout, noise)

    def forward(
        self, x: Tensor, layout: Layout, mask: Tensor | None, read: Tensor | None = None
    ) -> Tensor:
        drop = Drop(self.attention_dropout if self.training else 0.0, self.noise)
        context = attend(self.qkv(x), layout, mask, self.heads, drop)
        if read is not None:  # every token was attended to; only these go on
            x, context = x.index_select(0, read), context.index_select(0, read)
        return self._after(x, context)

    def explained(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """The same without dropout, with the attention probabilities beside it."""
        context, probs = attend_plainly(self.qkv(x), layout, self.heads)
        return self._after(x, context), probs

    def _after(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.out(context)))
        inner = activate(self.up(x), self.activation)
        out: Tensor = self.output_norm(x + self.dropout(self.down(inner)))
        return out


class Encoder(nn.Module):
    """Packed tokens in, one vector a token out; two doors, `embed` and `encode`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.noise = Noise()
        self.embeddings = Embeddings(config, self.noise)
        self.layers = nn.ModuleList(Layer(config, self.noise) for _ in range(config.num_layers))

    def embed(self, batch: Packed) -> Tensor:
        """The vectors that enter the first layer, [T, H]."""
        x: Tensor = self.embeddings(batch)
        return x

    def encode(
        self,
        x: Tensor,
        batch: Packed,
        *,
        read: Tensor | None = None,
        want: Collection[Want] = (),
    ) -> Encoded:
        """Run the layers on `x` [T, H].

        `read` [M] names the rows the caller will look at: the last layer then skips its
        feed-forward part everywhere else, and `x` comes back as [M, H]. `want` keeps hidden states
        or attention, on a plain path without dropout.
        """
        if want:
            return self._explained(x, Layout.of(batch.offsets), read, want)
        count = len(x) if read is None else len(read)
        layout = Layout.of(rounded_offsets(batch.offsets))
        mask = layout.mask(x.dtype)
        x = rounded(x)
        for layer in self.layers[:-1]:
            x = layer(x, layout, mask)
        last = self.layers[-1]
        x = last(x, layout, mask, None if read is None else rounded_index(read))
        return Encoded(x[:count], layout)

    def _explained(
        self, x: Tensor, layout: Layout, read: Tensor | None, want: Collection[Want]
    ) -> Encoded:
        kept = Encoded(x, layout, [x] if "hidden" in want else [])
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x, probs = layer.explained(x, layout)
            if "hidden" in want:
                kept.hidden.append(x)
            if "attention" in want:
                kept.attention.append(probs)
        kept.x = x if read is None else x.index_select(0, read)
        return kept


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """Fill weights with N(0, std²), biases with 0, norms with 1 (as BERT); a function of `seed`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.0)
                part.bias.zero_()
            elif isinstance(part, nn.Linear | nn.Embedding):
                part.weight.normal_(0.0, std, generator=generator)
                if isinstance(part, nn.Linear):
                    part.bias.zero_()
