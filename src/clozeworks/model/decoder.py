"""The decoder: BERT's layers reading from left to right, with cross-attention to a source.

It stands on the encoder as a head. Trained, it sees whole targets at once (`forward`); writing, one
token more at each `step`, with the keys and values of all before in a `Cache`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clozeworks.model.across import Across, attend_across
from clozeworks.model.attention import MASKED, Drop, Layout, View, attend
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import Embeddings, Layer, norm_of
from clozeworks.model.heads import AnyEncoder, TokenHead
from clozeworks.model.rows import rounded, rounded_offsets

GROWTH = 32
"""Places by which a cache grows at the least."""


class Tokens(NamedTuple):
    """Target tokens as they enter: ids, positions and segments [T] int64, bounds [N + 1]."""

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, ids: Tensor, offsets: Tensor) -> "Tokens":
        """All of one segment; positions count from 0 in each target."""
        lengths = offsets.diff()
        first = torch.repeat_interleave(offsets[:-1], lengths)
        positions = torch.arange(len(ids), device=ids.device) - first
        return cls(ids, positions, torch.zeros_like(ids), offsets)


class DecoderLayer(Layer):
    """A layer of BERT's with cross-attention, and a norm after it, before its feed-forward."""

    def __init__(self, encoder: AnyEncoder) -> None:
        config = encoder.config
        super().__init__(config, encoder.noise)
        width, bias = config.hidden_size, config.attention_bias
        self.cross_q = nn.Linear(width, width, bias=bias)
        self.cross_kv = nn.Linear(width, 2 * width, bias=bias)
        self.cross_out = nn.Linear(width, width, bias=bias)
        self.cross_norm = norm_of(width, config)

    def forward(  # type: ignore[override]  # it sees more than a layer of the encoder does
        self, x: Tensor, view: View, memory: Tensor, across: Across
    ) -> Tensor:
        drop = Drop(self.attention_dropout if self.training else 0.0, self.noise)
        x = self._attended(x, attend(self.qkv(x), view, self.heads, drop))
        q, kv = self.cross_q(x), self.cross_kv(memory)
        return self._crossed(x, attend_across(q, kv, across, self.heads, drop))

    def step(self, x: Tensor, past: "Past", seen: int, mask: Tensor) -> Tensor:
        """The next token of each row: x [B, H], after `seen` others; mask [N, 1, 1, S]."""
        rows, width = x.shape
        q, k, v = self.qkv(x).view(rows, 3, self.heads, 1, -1).unbind(1)
        keys, values = past.grown(k, v, seen)
        context = F.scaled_dot_product_attention(q, keys, values)
        x = self._attended(x, context.reshape(rows, width))
        asked = self.cross_q(x).view(len(mask), -1, self.heads, width // self.heads)
        found = F.scaled_dot_product_attention(
            asked.transpose(1, 2), past.source_keys, past.source_values, attn_mask=mask
        )
        return self._crossed(x, found.transpose(1, 2).reshape(rows, width))

    def matrices(self) -> dict[Tensor, int]:
        cross = {self.cross_q.weight: 1, self.cross_kv.weight: 2, self.cross_out.weight: 1}
        return {**super().matrices(), **cross}

    def _crossed(self, x: Tensor, context: Tensor) -> Tensor:
        return self._fed(self.cross_norm(x + self.dropout(self.cross_out(context))))


@dataclass
class Past:
    """What one layer keeps while texts are written: B rows, some of each of N sources.

    keys and values of the rows' own tokens [B, h, places, d], of the sources' [N, h, S, d].
    """

    keys: Tensor
    values: Tensor
    source_keys: Tensor
    source_values: Tensor

    def grown(self, k: Tensor, v: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """All keys and values, with those [B, h, 1, d] of the token after `seen` others."""
        if seen == self.keys.shape[2]:
            more = (0, 0, 0, max(GROWTH, seen))
            self.keys, self.values = F.pad(self.keys, more), F.pad(self.values, more)
        self.keys[:, :, seen], self.values[:, :, seen] = k[:, :, 0], v[:, :, 0]
        return self.keys[:, :, : seen + 1], self.values[:, :, : seen + 1]


@dataclass
class Cache:
    """The layers' pasts, how many tokens every row has, and which places hold a source."""

    pasts: list[Past]
    mask: Tensor
    """[N, 1, 1, S]: 0 where a token of the source is, MASKED where none is."""
    seen: int = 0

    def choose(self, rows: Tensor) -> None:
        """Let row i go on from row `rows[i]`, which must be of the same source."""
        for past in self.pasts:
            past.keys, past.values = past.keys[rows], past.values[rows]

    def keep(self, sources: Tensor) -> None:
        """Forget all sources but these [M], and their rows."""
        count = len(self.mask)
        self.mask = self.mask[sources]
        for past in self.pasts:
            past.source_keys = past.source_keys[sources]
            past.source_values = past.source_values[sources]
            past.keys, past.values = (
                kept.unflatten(0, (count, -1))[sources].flatten(0, 1)
                for kept in (past.keys, past.values)
            )


class Decoder(nn.Module):
    """What writes a target, token by token, looking at the encoder's vectors of its source.

    Its token vectors, which its output is multiplied with too, are the encoder's where it `shares`
    them. Its layers are those of the BERT it stands on, in number as many or fewer.
    """

    def __init__(self, encoder: AnyEncoder, layers: int, shares: bool = True) -> None:
        super().__init__()
        self.config: EncoderConfig = encoder.config
        self.noise = encoder.noise
        self.recompute = False
        """As the encoder's."""
        self.embeddings = Embeddings(encoder.config, encoder.noise)
        if shares:
            self.embeddings.tokens = encoder.embeddings.tokens
        self.layers = nn.ModuleList(DecoderLayer(encoder) for _ in range(layers))
        self.head = TokenHead(encoder.config)

    @property
    def weight(self) -> Tensor:
        """The output embedding, [V, H]."""
        return self.embeddings.tokens.weight

    def forward(self, target: Tokens, memory: Tensor, offsets: Tensor) -> Tensor:
        """What the output embedding is multiplied with after each target token, [T, H].

        `memory` [S, H] are the encoder's vectors of the sources, at bounds `offsets` [N + 1].
        Rows past T may follow, which round the shape.
        """
        x = self.embeddings(target)
        across = Across.of(offsets, target.offsets, x.dtype)
        layout = Layout.of(rounded_offsets(target.offsets))
        view = View(layout, layout.mask(x.dtype, causal=True))
        x, memory = rounded(x), rounded(memory)
        for layer in self._layers():
            x = self._through(layer, x, view, (memory, across))
        return cast(Tensor, self.head(x))

    def _through(
        self, layer: DecoderLayer, x: Tensor, view: View, source: tuple[Tensor, Across]
    ) -> Tensor:
        """The output of one layer, whether or not what it is made from is kept."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return cast(Tensor, layer(x, view, *source))
        context = self.noise.replayed
        again = checkpoint(layer, x, view, *source, use_reentrant=False, context_fn=context)
        return cast(Tensor, again)

    def logits(self, x: Tensor) -> Tensor:
        """Scores of every token [M, V] fp32, from rows of `forward` or `step`."""
        return F.linear(x, self.weight, self.head.bias).float()

    def begin(self, memory: Tensor, offsets: Tensor, rows: int) -> Cache:
        """A cache for `rows` texts of each source, no token of which is written."""
        lengths = offsets.diff()
        count, longest = len(lengths), int(lengths.max())
        inside = torch.arange(longest, device=memory.device) < lengths[:, None]
        places = inside.flatten().nonzero().flatten()
        heads, width = self.config.num_heads, self.config.hidden_size
        pasts = []
        for layer in self._layers():
            kv = memory.new_zeros(count * longest, 2 * width)
            kv[places] = layer.cross_kv(rounded(memory))[: len(memory)]
            split = kv.view(count, longest, 2, heads, -1).permute(2, 0, 3, 1, 4).contiguous()
            empty = memory.new_zeros(count * rows, heads, 0, width // heads)
            pasts.append(Past(empty, empty, *split))
        mask = torch.zeros(count, 1, 1, longest, dtype=memory.dtype, device=memory.device)
        return Cache(pasts, mask.masked_fill_(~inside[:, None, None], MASKED))

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """As `forward`, after one more token of each row: ids [B] → [B, H]; the cache grows."""
        places = torch.full_like(ids, cache.seen)
        ends = torch.arange(len(ids) + 1, device=ids.device)
        x = self.embeddings(Tokens(ids, places, torch.zeros_like(ids), ends))
        for layer, past in zip(self._layers(), cache.pasts, strict=True):
            x = layer.step(x, past, cache.seen, cache.mask)
        cache.seen += 1
        return cast(Tensor, self.head(x))

    def _layers(self) -> Iterator[DecoderLayer]:
        layers: Iterator[DecoderLayer] = iter(self.layers)  # type: ignore[arg-type]
        return layers


def depths(layers: int, wanted: int) -> list[int]:
    """Which of so many layers a decoder of `wanted` begins as: evenly spaced, the last among them.

    The last is what the head of masked tokens learned to read.
    """
    if wanted == 1:
        return [layers - 1]
    return [round(i * (layers - 1) / (wanted - 1)) for i in range(wanted)]
