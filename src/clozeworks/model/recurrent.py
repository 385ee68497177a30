"""The encoder of the years before BERT: a bidirectional LSTM or GRU, and attention over its states.

One multi-head attention over recurrent states, as in Lin et al. 2017 (a structured self-attentive
sentence embedding) with the heads of Vaswani et al. 2017; it answers the same calls as `Encoder`.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from clozeworks.model.attention import Drop, Layout, Packing, View, attend, attend_plainly
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import Embeddings, Encoded, Packed, Want, norm_of
from clozeworks.model.noise import Dropout, Noise


class Recurrent(nn.Module):
    """Packed tokens in, one vector a token out, by recurrence; `embed` and `encode` as `Encoder`.

    The states of both directions [T, H / 2 each] stand side by side; one attention over them is
    added to them, and the sum normalised.
    """

    def __init__(self, config: EncoderConfig, noise: Noise | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.noise = noise or Noise()
        self.packing = Packing()
        self.heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.embeddings = Embeddings(config, self.noise)
        cell = nn.LSTM if config.recurrent == "lstm" else nn.GRU
        self.cells = cell(width, width // 2, config.num_layers, bidirectional=True)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.output_norm = norm_of(width, config)
        self.dropout = Dropout(config.dropout, self.noise)

    def hidden_matrices(self) -> dict[Tensor, int]:
        """The attention's weights, as `Encoder.hidden_matrices`; recurrent ones are none."""
        return {self.qkv.weight: 3, self.out.weight: 1}

    def embed(self, batch: Packed) -> Tensor:
        """The vectors that enter the recurrence, [T, H]."""
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
        """Run the recurrence and its attention on `x` [T, H]; arguments as for `Encoder.encode`."""
        layout = Layout.of(batch.offsets)
        self.packing.add(len(x), layout)
        view = View(layout, layout.mask(x.dtype))
        kept = Encoded(x, layout, [x] if "hidden" in want else [])
        states = self.dropout(self._states(x, batch.offsets))
        if want:
            context, probs = attend_plainly(self.qkv(states), view, self.heads)
            kept.attention += [probs] if "attention" in want else []
        else:
            drop = Drop(self.attention_dropout if self.training else 0.0, self.noise)
            context = attend(self.qkv(states), view, self.heads, drop)
        if read is not None:
            states, context = states.index_select(0, read), context.index_select(0, read)
        kept.x = self.output_norm(states + self.dropout(self.out(context)))
        kept.hidden += [kept.x] if "hidden" in want else []
        return kept

    def _states(self, x: Tensor, offsets: Tensor) -> Tensor:
        """The states of both directions for every token, [T, H], no sequence seeing another."""
        steps, sizes = _by_step(offsets)
        packed = PackedSequence(x.index_select(0, steps), sizes)
        states = self.cells(packed)[0].data
        return torch.empty_like(states).index_copy(0, steps, states)


def _by_step(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in the order recurrence takes them: all first tokens, longest sequence first, and so on.

    Returns rows [T] and how many sequences are still running at each step, both int64.
    """
    lengths = offsets.diff().cpu()
    order = torch.argsort(lengths, descending=True, stable=True)
    starts = offsets[:-1].cpu()[order]
    steps = torch.arange(int(lengths.max()))
    running = steps[:, None] < lengths[order][None]
    rows = (starts[None] + steps[:, None])[running]
    return rows.to(offsets.device), running.sum(1)
