"""What torch's compiler is given of a layer: the same numbers, from one graph for all layers."""

import pytest
import torch

from clozeworks.core.errors import UserError
from clozeworks.model import encoder
from clozeworks.model.encoder import Layer
from clozeworks.train.loop import TrainSettings
from clozeworks.train.parallel import learner_for
from tiny import CONFIG, DRAW, gap, make_groups, make_model, make_task

KINDS = {
    "bert": {},
    "modern": {"positions": "rotary", "norm": "pre", "gated": True, "num_segments": 0},
}


@pytest.fixture
def graphs(monkeypatch):
    """Whole graphs that the compiler was given; they run as they are."""
    seen = []

    def backend(graph, _):
        seen.append(graph)
        return graph.forward

    torch._dynamo.reset()
    made = torch.compile(Layer._after, backend=backend, dynamic=True, fullgraph=True)
    monkeypatch.setattr(encoder, "_compiled_after", lambda: made)
    return seen


def gradients(kind, lengths, compiled):
    task = make_task("mlm")
    model = make_model(task, CONFIG.model_copy(update=KINDS[kind])).train()
    model.set_dropout(0.0)
    for layer in model.encoder.layers:
        layer.compiled = compiled
    task.loss(model, task.collate(make_groups(lengths), DRAW), DRAW)["mlm"].backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_from_one_graph_for_all_layers_and_lengths(kind, graphs):
    assert CONFIG.num_layers > 1
    for lengths in ([40, 9, 25], [12, 50], [30, 31, 32, 33]):
        plain = gradients(kind, lengths, False)
        for name, gradient in gradients(kind, lengths, True).items():
            assert gap(gradient, plain[name]) < 1e-6, name
    assert len(graphs) == 1


def test_nothing_is_compiled_outside_training(graphs):
    model = make_model(make_task("mlm")).eval()
    for layer in model.encoder.layers:
        layer.compiled = True
    task = make_task("mlm")
    task.loss(model, task.collate(make_groups(), DRAW), DRAW)
    assert not graphs


def test_a_cpu_is_told_that_it_is_made_for_a_gpu():
    task = make_task("mlm")
    with pytest.raises(UserError, match="made for a GPU, and this model learns on cpu"):
        learner_for(make_model(task), task, TrainSettings(lr=1e-3, compile=True))
