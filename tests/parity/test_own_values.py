"""Each value of the families without a class elsewhere makes another model: output and gradient."""

import pytest
import torch

from clozeworks.data.batches import pack
from clozeworks.model.encoder import initialise
from clozeworks.model.families import sized
from clozeworks.model.heads import encoder_of
from tiny import VOCABULARY, gap, make_groups

CLEARLY = 1e-4
COMMON = {
    "epsilon": {"norm_eps": 3e-2},
    "heads": {"num_heads": 8},
    "normalised embeddings": {"embedding_norm": True},
    "fewer layers": {"num_layers": 1},
}
VALUES = {
    "transformer": {
        **COMMON,
        "tanh gelu": {"activation": "gelu_tanh"},
        "exact gelu": {"activation": "gelu"},
        "tanh": {"activation": "tanh"},
        "pre-norm": {"norm": "pre"},
        "embeddings as they are": {"embedding_scale": False},
        "no positions": {"positions": "none"},
        "learned positions": {"positions": "learned"},
        "one group": {"groups": 1},
    },
    "lstm": {
        **COMMON,
        "gru": {"recurrent": "gru"},
        "scaled embeddings": {"embedding_scale": True},
        "waves": {"positions": "sinusoidal"},
        "learned positions": {"positions": "learned"},
    },
}
CASES = [(name, change) for name, changes in VALUES.items() for change in changes]
SHAPE = {"hidden_size": 32, "num_layers": 2, "dropout": 0.0, "attention_dropout": 0.0}


def answers(config, state):
    """Token vectors, and the gradient of the token embedding, of an encoder with these weights."""
    encoder = encoder_of(config).train()
    initialise(encoder, 0.3, seed=1)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name in state and state[name].shape == parameter.shape:
                parameter.copy_(state[name])
    batch = pack(make_groups())
    found = encoder.encode(encoder.embed(batch), batch).x
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    (found * weights).sum().backward()
    return found.detach(), encoder.embeddings.tokens.weight.grad


@pytest.mark.parametrize(("name", "change"), CASES)
def test_every_value_is_another_model(name, change):
    config = sized(name, "mini", VOCABULARY.size, **SHAPE)
    encoder = encoder_of(config)
    initialise(encoder, 0.3, seed=2)
    state = dict(encoder.named_parameters())
    right, again = answers(config, state), answers(config, state)
    found = answers(config.model_copy(update=VALUES[name][change]), state)
    for one, same, other in zip(right, again, found, strict=True):
        assert torch.equal(one, same)
        assert gap(other, one) > CLEARLY
