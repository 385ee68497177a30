"""Laws of the recurrence: what torch's own packed one computes, outputs and gradients."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from clozeworks.model.families import sized
from clozeworks.model.recurrent import Recurrent
from tiny import gap

LENGTHS = [3, 7, 1, 29, 4]


def packed(model, x, offsets):
    """The states by torch's own two-way call on a PackedSequence, in the order of the tokens."""
    lengths = offsets.diff()
    order = torch.argsort(lengths, descending=True, stable=True)
    steps = torch.arange(int(lengths.max()))
    running = steps[:, None] < lengths[order][None]
    rows = (offsets[:-1][order][None] + steps[:, None])[running]
    states = model.cells(PackedSequence(x.index_select(0, rows), running.sum(1)))[0].data
    return torch.empty_like(states).index_copy(0, rows, states)


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
@pytest.mark.parametrize("training", [False, True])
def test_states_are_those_of_torchs_packed_recurrence(recurrent, training):
    torch.manual_seed(0)
    config = sized("lstm", "mini", 50, recurrent=recurrent, num_layers=2, hidden_size=32)
    model = Recurrent(config).train(training)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    x = torch.randn(sum(LENGTHS), 32, requires_grad=True)
    told = torch.randn(sum(LENGTHS), 32)
    wanted = [x, *model.cells.parameters()]
    ours, theirs = model._states(x, offsets), packed(model, x, offsets)
    assert gap(ours, theirs) < 1e-5
    gradients = [torch.autograd.grad((y * told).sum(), wanted) for y in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        assert gap(one, other) < 1e-5
