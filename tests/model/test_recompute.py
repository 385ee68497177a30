"""Layers run again for the backward pass: the same gradients, from the same noise."""

import pytest
import torch

from clozeworks.core.errors import UserError
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import Layer
from clozeworks.model.heads import encoder_of
from clozeworks.train.loop import TrainSettings
from clozeworks.train.parallel import learner_for
from tiny import CONFIG, DRAW, make_groups, make_model, make_task

KINDS = {
    "bert": {},
    "shared": {"groups": 1, "num_layers": 3},
    "modern": {
        "positions": "rotary",
        "norm": "pre",
        "gated": True,
        "num_segments": 0,
        "local_layers": (1,),
        "local_window": 4,
    },
}


def gradients(values, recompute, dropout):
    """Of one batch, by parameter; how often layers ran; and what noise would come next."""
    task = make_task("mlm+nsp")
    model = make_model(task, CONFIG.model_copy(update=values))
    model.set_dropout(dropout)
    model.train()
    model.encoder.recompute = recompute
    runs = []
    for module in model.modules():
        if isinstance(module, Layer):
            module.register_forward_pre_hook(lambda *given: runs.append(1))
    model.encoder.noise.reseed(7, 1)
    batch = task.collate(make_groups(), DRAW)
    torch.stack(list(task.loss(model, batch, DRAW).values())).sum().backward()
    after = model.encoder.noise.keep(torch.ones(1000), 0.5)
    return {n: p.grad for n, p in model.named_parameters()}, len(runs), after


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_bit_for_bit(kind, dropout):
    kept, once, noise = gradients(KINDS[kind], False, dropout)
    again, twice, after = gradients(KINDS[kind], True, dropout)
    assert twice == 2 * once == 2 * CONFIG.num_layers
    assert torch.equal(noise, after)
    for name, gradient in kept.items():
        assert torch.equal(gradient, again[name]), name


def test_dropout_that_is_not_replayed_would_be_noticed(monkeypatch):
    """The law above can fail: drawn on, instead of drawn again, the masks are others."""
    from contextlib import nullcontext

    from clozeworks.model.noise import Noise

    kept, _, _ = gradients({}, False, 0.3)
    monkeypatch.setattr(Noise, "replayed", lambda self: (nullcontext(), nullcontext()))
    again, _, _ = gradients({}, True, 0.3)
    assert not all(torch.equal(gradient, again[name]) for name, gradient in kept.items())


def test_nothing_is_run_twice_without_gradients_or_training():
    task = make_task("mlm")
    model = make_model(task)
    model.encoder.recompute = True
    runs = []
    model.encoder.layers[0].register_forward_pre_hook(lambda *given: runs.append(1))
    batch = task.collate(make_groups(), DRAW)
    task.loss(model, batch, DRAW)["mlm"].backward()
    with torch.no_grad():
        task.loss(model.train(), batch, DRAW)
    assert len(runs) == 2


def test_an_encoder_without_layers_refuses():
    config = EncoderConfig(family="lstm", vocab_size=200, hidden_size=32, recurrent="lstm")
    task = make_task("classify")
    with pytest.raises(UserError, match="'lstm' has no layers to run again"):
        learner_for(task.build(encoder_of(config)), task, TrainSettings(recompute=True))
