"""The original Transformer equals torch's own encoder, waves and scaled embeddings before it."""

import math

import pytest
import torch
from torch import nn

from clozeworks.data.batches import pack
from clozeworks.model.encoder import initialise
from clozeworks.model.families import sized
from clozeworks.model.heads import encoder_of
from clozeworks.model.rotary import waves
from tiny import VOCABULARY, gap, make_groups

LIMIT = 1e-5
HEADS, WIDTH, INNER, LAYERS = 4, 32, 48, 4


@pytest.fixture
def ours():
    values = {"hidden_size": WIDTH, "num_heads": HEADS, "inner_size": INNER, "num_layers": LAYERS}
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    encoder = encoder_of(sized("transformer", "mini", VOCABULARY.size, **values, **still)).eval()
    initialise(encoder, 0.2, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return encoder


def torchs(ours):
    """torch.nn.TransformerEncoder with our weights."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, 0.0, "relu", batch_first=True)
    theirs = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).train()
    with torch.no_grad():
        for mine, other in zip(ours.layers, theirs.layers, strict=True):
            pairs = (
                (other.self_attn.in_proj_weight, mine.qkv.weight),
                (other.self_attn.in_proj_bias, mine.qkv.bias),
                (other.self_attn.out_proj.weight, mine.out.weight),
                (other.self_attn.out_proj.bias, mine.out.bias),
            )
            for to, given in pairs:
                to.copy_(given)
            other.norm1.load_state_dict(mine.attention_norm.state_dict())
            other.linear1.load_state_dict(mine.up.state_dict())
            other.linear2.load_state_dict(mine.down.state_dict())
            other.norm2.load_state_dict(mine.output_norm.state_dict())
    return theirs


def test_it_equals_torchs_encoder(ours):
    batch = pack(make_groups())
    theirs = torchs(ours)
    lengths = batch.offsets.diff()
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    ids[mask] = batch.input_ids
    table = ours.embeddings.tokens.weight.detach()
    x = table[ids] * math.sqrt(WIDTH) + waves(ids.shape[1], WIDTH)
    answer = theirs(x, src_key_padding_mask=~mask)[mask]
    found = ours.encode(ours.embed(batch), batch).x
    assert gap(found, answer) < LIMIT
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    (found * weights).sum().backward()
    (answer * weights).sum().backward()
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert gap(mine.up.weight.grad, other.linear1.weight.grad) < LIMIT
        assert gap(mine.qkv.weight.grad, other.self_attn.in_proj_weight.grad) < LIMIT
        assert gap(mine.output_norm.weight.grad, other.norm2.weight.grad) < LIMIT


def test_waves_are_the_papers():
    table = waves(7, 6)
    for place in range(7):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            assert abs(float(table[place, 2 * i]) - math.sin(angle)) < 1e-6
            assert abs(float(table[place, 2 * i + 1]) - math.cos(angle)) < 1e-6
