"""The encoder of the years before BERT: a bidirectional LSTM or GRU, and attention over its states.

One multi-head attention over recurrent states, as in Lin et al. 2017 (a structured self-attentive
sentence embedding) with the heads of Vaswani et al. 2017; it answers the same calls as `Encoder`.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
        self.packing.add(len(x), layout.rows * layout.capacity)
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
        """The states of both directions for every token, [T, H], no sequence seeing another.

        Each direction of each layer runs on padded steps of its own, the second over the sequences
        turned round, so that what pads always comes last and reaches no token. Torch's one call
        for all of them would need a PackedSequence, which on a CPU takes three times as long.
        """
        ways = (_Steps.of(offsets), _Steps.of(offsets, turned=True))
        for layer in range(self.config.num_layers):
            x = torch.cat([self._run(x, w, layer, i) for i, w in enumerate(ways)], 1)
        return x

    def _run(self, x: Tensor, steps: "_Steps", layer: int, way: int) -> Tensor:
        """One direction of one layer: vectors of the tokens [T, …] → states [T, H / 2]."""
        cells = self.cells
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(cells, f"{n}_l{layer}{'_reverse' * way}") for n in names]
        start = x.new_zeros(1, steps.rows.shape[1], cells.hidden_size)
        common = (weights, True, 1, 0.0, self.training, False, False)
        padded = x[steps.rows]
        if isinstance(cells, nn.LSTM):
            states = torch.lstm(padded, (start, start), *common)[0]
        else:
            states = torch.gru(padded, start, *common)[0]
        return states.flatten(0, 1).index_select(0, steps.tokens)


@dataclass(frozen=True)
class _Steps:
    """The order in which recurrence takes N sequences of at most L tokens.

    rows [L, N] int64: the token each sequence gives at each step, its last one again once it has no
    more; tokens [T] int64: where in the steps, flattened, each token stands.
    """

    rows: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, offsets: Tensor, turned: bool = False) -> "_Steps":
        lengths = offsets.diff()
        count, longest = len(lengths), int(lengths.max())
        step = torch.arange(longest, device=offsets.device)[:, None]
        place = torch.minimum(step, lengths - 1)
        rows = offsets[:-1] + (lengths - 1 - place if turned else place)
        owner = torch.repeat_interleave(torch.arange(count, device=offsets.device), lengths)
        at = torch.arange(len(owner), device=offsets.device) - offsets[owner]
        return cls(rows, (lengths[owner] - 1 - at if turned else at) * count + owner)
