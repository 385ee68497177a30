"""The one encoder: embeddings, then layers of attention and feed-forward, over packed tokens."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clozeworks.model.attention import Drop, Layout, Packing, View, attend, attend_plainly
from clozeworks.model.config import Activation, EncoderConfig
from clozeworks.model.lookup import lookup
from clozeworks.model.noise import Dropout, Noise
from clozeworks.model.rotary import turns, waves
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
    match activation:
        case "relu":
            return F.relu(x)
        case "tanh":
            return torch.tanh(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def norm_of(width: int, config: EncoderConfig) -> nn.LayerNorm:
    """A LayerNorm as the config has them."""
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Token + position + segment vectors, normalised (Devlin et al. 2018, figure 2).

    A config may leave positions, segments or norm out, scale the token vectors, and project the sum
    to the width of the layers.
    """

    waves: Tensor

    def __init__(self, config: EncoderConfig, noise: Noise) -> None:
        super().__init__()
        width, places = config.embedding_width, config.max_positions
        self.first = config.first_position
        self.scale = math.sqrt(width) if config.embedding_scale else None
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.sparse = False
        """Whether the gradient of the token vectors holds only the rows that were read."""
        self.positions = (
            nn.Embedding(places + self.first, width) if config.positions == "learned" else None
        )
        sine = waves(places, width) if config.positions == "sinusoidal" else None
        self.register_buffer("waves", sine, persistent=False)
        self.segments = nn.Embedding(config.num_segments, width) if config.num_segments else None
        self.norm = norm_of(width, config) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout, noise)
        self.project = nn.Linear(width, config.hidden_size) if config.embedding_size else None

    def forward(self, batch: Packed) -> Tensor:
        x = lookup(self.tokens.weight, batch.input_ids, self.sparse)
        if self.scale is not None:
            x = x * self.scale
        if self.positions is not None:
            places = batch.positions + self.first if self.first else batch.positions
            x = x + lookup(self.positions.weight, places)
        elif self.waves is not None:
            x = x + self.waves.to(x.dtype)[batch.positions]
        if self.segments is not None:
            one = self.segments.num_embeddings == 1  # RoBERTa: then every token is of the first
            segments = torch.zeros_like(batch.segments) if one else batch.segments
            x = x + lookup(self.segments.weight, segments)
        out: Tensor = self.dropout(x if self.norm is None else self.norm(x))
        return out if self.project is None else cast(Tensor, self.project(out))


class Layer(nn.Module):
    """Attention, then feed-forward, each added to its input; a norm after (BERT) or before each."""

    def __init__(self, config: EncoderConfig, noise: Noise, first: bool = False) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.inner_size
        self.heads = config.num_heads
        self.activation = config.activation
        self.attention_dropout = config.attention_dropout
        self.noise = noise
        self.post = config.norm == "post"
        self.gated = config.gated
        bare = first and not self.post and not config.first_norm
        self.qkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.out = nn.Linear(width, width, bias=config.attention_bias)
        self.attention_norm = None if bare else norm_of(width, config)
        self.up = nn.Linear(width, inner * (2 if config.gated else 1), bias=config.inner_bias)
        self.down = nn.Linear(inner, width, bias=config.inner_bias)
        self.output_norm = norm_of(width, config)
        self.dropout = Dropout(config.dropout, noise)
        self.compiled = False
        """Whether, while training, torch's compiler makes the kernels of what follows attention."""

    def forward(self, x: Tensor, view: View, read: Tensor | None = None) -> Tensor:
        drop = Drop(self.attention_dropout if self.training else 0.0, self.noise)
        context = attend(self.qkv(self._before(x)), view, self.heads, drop)
        if read is not None:  # every token was attended to; only these go on
            x, context = x.index_select(0, read), context.index_select(0, read)
        if self.compiled and self.training:
            return _compiled_after()(self, x, context)
        return self._after(x, context)

    def explained(self, x: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """The same without dropout, with the attention probabilities beside it."""
        context, probs = attend_plainly(self.qkv(self._before(x)), view, self.heads)
        return self._after(x, context), probs

    def matrices(self) -> dict[Tensor, int]:
        """Its weights, and of how many matrices, one below the other, each consists."""
        up = 2 if self.gated else 1
        return {self.qkv.weight: 3, self.out.weight: 1, self.up.weight: up, self.down.weight: 1}

    def _before(self, x: Tensor) -> Tensor:
        return x if self.post or self.attention_norm is None else self.attention_norm(x)

    def _after(self, x: Tensor, context: Tensor) -> Tensor:
        return self._fed(self._attended(x, context))

    def _attended(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.dropout(self.out(context))
        if not self.post:
            return x
        assert self.attention_norm is not None
        return cast(Tensor, self.attention_norm(x))

    def _fed(self, x: Tensor) -> Tensor:
        out: Tensor
        if self.post:
            out = self.output_norm(x + self.dropout(self._inner(x)))
        else:
            out = x + self.dropout(self._inner(self.output_norm(x)))
        return out

    def _inner(self, x: Tensor) -> Tensor:
        inner = self.up(x)
        if self.gated:
            inner, gate = inner.chunk(2, -1)
            inner = activate(inner, self.activation) * gate
        else:
            inner = activate(inner, self.activation)
        out: Tensor = self.down(inner)
        return out


@cache
def _compiled_after() -> Callable[[Layer, Tensor, Tensor], Tensor]:
    """`Layer._after` by torch's compiler, once for all layers and any number of tokens."""
    return torch.compile(Layer._after, dynamic=True)


class Encoder(nn.Module):
    """Packed tokens in, one vector a token out; two doors, `embed` and `encode`."""

    def __init__(self, config: EncoderConfig, noise: Noise | None = None) -> None:
        super().__init__()
        self.config = config
        self.noise = noise or Noise()
        self.packing = Packing()
        self.recompute = False
        """Whether a layer keeps only its input while training, and runs again for the backward."""
        self.embeddings = Embeddings(config, self.noise)
        self.layers = nn.ModuleList(
            Layer(config, self.noise, first=i == 0) for i in range(config.num_distinct)
        )
        self.final_norm = norm_of(config.hidden_size, config) if config.norm == "pre" else None

    def hidden_matrices(self) -> dict[Tensor, int]:
        """The layers' weights, and of how many matrices, one below the other, each consists."""
        layers: list[Layer] = list(self.layers)  # type: ignore[arg-type]
        return {weight: parts for layer in layers for weight, parts in layer.matrices().items()}

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
            return self._explained(x, batch, read, want)
        count = len(x) if read is None else len(read)
        layout = Layout.of(rounded_offsets(batch.offsets))
        tokens, x = len(x), rounded(x)
        views = self._views(layout, rounded_index(batch.positions), x)
        in_rows = any(not view.varlen for view in views)
        self.packing.add(tokens, layout.rows * layout.capacity if in_rows else tokens)
        *most, last = zip(self._layers(), views, strict=True)
        for layer, view in most:
            x = self._through(layer, x, view)
        layer, view = last
        x = self._through(layer, x, view, None if read is None else rounded_index(read))
        return Encoded(self._finished(x)[:count], layout)

    def _through(self, layer: Layer, x: Tensor, view: View, read: Tensor | None = None) -> Tensor:
        """The output of one layer, whether or not what it is made from is kept."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return cast(Tensor, layer(x, view, read))
        again = checkpoint(
            layer, x, view, read, use_reentrant=False, context_fn=self.noise.replayed
        )
        return cast(Tensor, again)

    def _explained(
        self, x: Tensor, batch: Packed, read: Tensor | None, want: Collection[Want]
    ) -> Encoded:
        layout = Layout.of(batch.offsets)
        kept = Encoded(x, layout, [x] if "hidden" in want else [])
        views = self._views(layout, batch.positions, x, plain=True)
        for layer, view in zip(self._layers(), views, strict=True):
            x, probs = layer.explained(x, view)
            if "hidden" in want:
                kept.hidden.append(x)
            if "attention" in want:
                kept.attention.append(probs)
        x = self._finished(x)
        if "hidden" in want:
            kept.hidden[-1] = x
        kept.x = x if read is None else x.index_select(0, read)
        return kept

    def _layers(self) -> list[Layer]:
        """The layer at each depth; shared ones come more than once."""
        distinct: list[Layer] = list(self.layers)  # type: ignore[arg-type]
        return [distinct[i] for i in self.config.order]

    def _views(
        self, layout: Layout, positions: Tensor, x: Tensor, plain: bool = False
    ) -> list[View]:
        """What the layer at each depth sees of `x`; made once for global and once for local ones.

        `plain` views hold whole squares, from which probabilities can be read.
        """
        config = self.config
        width, window = config.hidden_size // config.num_heads, config.local_window
        dropped = self.training and any(layer.attention_dropout for layer in self._layers())

        def view(local: bool) -> View:
            theta = config.local_theta if local else config.theta
            turning = config.positions == "rotary"
            turn = turns(positions, width, theta) if turning else None
            if plain:
                return View(layout, layout.mask(x.dtype, window if local else None), turn)
            if local:
                return View.local(layout, x.dtype, window, turn)
            return View.everywhere(layout, x, config.num_heads, turn, dropped)

        local = set(config.local_layers)
        depths = len(config.order)
        made = {kind: view(kind) for kind in {depth in local for depth in range(depths)}}
        return [made[depth in local] for depth in range(depths)]

    def _finished(self, x: Tensor) -> Tensor:
        return x if self.final_norm is None else self.final_norm(x)


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """Fill weights with N(0, std²), biases with 0, norms with 1 (as BERT); a function of `seed`.

    Drawn on the CPU, wherever the weights are: the same seed is the same model on any device.
    Recurrent weights are uniform within one over the root of their width, as torch has them; what
    a head holds beside such parts, such as the moves of a CRF, is 0. Nothing stays as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.0)
                if part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, nn.Linear | nn.Embedding):
                drawn = torch.empty_like(part.weight, device="cpu")
                part.weight.copy_(drawn.normal_(0.0, std, generator=generator))
                if isinstance(part, nn.Linear) and part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, nn.RNNBase):
                bound = 1 / math.sqrt(part.hidden_size)
                for parameter in part.parameters():
                    drawn = torch.empty_like(parameter, device="cpu")
                    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))
            else:
                for parameter in part.parameters(recurse=False):
                    parameter.zero_()
