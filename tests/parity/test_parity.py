"""Parity with Hugging Face: equal in outputs, losses and gradients, on hard batches."""

import pytest
import torch
from hf_distance import (
    BARE,
    CLASSES,
    LIMIT,
    Padded,
    distance,
    gradient_gaps,
    opened,
    random_batch,
    their_model,
)
from torch import nn

from clozeworks.core.bundle import open_bundle
from clozeworks.interop.huggingface import open_model
from clozeworks.model.encoder import Encoder
from clozeworks.model.heads import Model, Pooler
from tiny import CONFIG, gap, make_task

ACTIVATIONS = ["gelu", "gelu_tanh", "relu"]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_equal(name, tmp_path):
    theirs = their_model(CLASSES[name])
    theirs.save_pretrained(tmp_path)
    assert distance(opened(tmp_path, make_task(name)), theirs, name) < LIMIT


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("eps", [1e-12, 1e-3])
def test_every_value_of_the_config_is_equal(activation, eps, tmp_path):
    config = CONFIG.model_copy(
        update={"activation": activation, "norm_eps": eps, "num_heads": 2, "num_layers": 2}
    )
    theirs = their_model(CLASSES["mlm+nsp"], config)
    theirs.save_pretrained(tmp_path)
    assert distance(opened(tmp_path, make_task("mlm+nsp")), theirs, "mlm+nsp") < LIMIT


def test_the_bare_encoder_and_its_pooler_are_equal(tmp_path):
    theirs = their_model(BARE)
    theirs.save_pretrained(tmp_path)
    task = make_task("nsp")
    model, fresh = open_model(open_bundle(tmp_path), task)
    assert fresh == ["heads.nsp"]
    batch = random_batch(task)
    padded = Padded.of(batch)
    answer = theirs(**padded.inputs)
    x = model.eval().encoder.encode(model.encoder.embed(batch), batch).x
    pooled = model.pooled(x[batch.firsts], batch)
    assert gap(x, answer.last_hidden_state[padded.mask]) < LIMIT
    assert gap(pooled, answer.pooler_output) < LIMIT
    generator = torch.Generator().manual_seed(2)
    for_x, for_pooled = (torch.randn(t.shape, generator=generator) for t in (x, pooled))
    ((x * for_x).sum() + (pooled * for_pooled).sum()).backward()
    wanted = (answer.last_hidden_state[padded.mask] * for_x).sum()
    (wanted + (answer.pooler_output * for_pooled).sum()).backward()
    assert max(gradient_gaps(model, theirs).values()) < LIMIT


def test_eager_attention_agrees_too(tmp_path):
    theirs = their_model(CLASSES["mlm+nsp"])
    theirs.save_pretrained(tmp_path)
    eager = CLASSES["mlm+nsp"].from_pretrained(tmp_path, attn_implementation="eager").eval()
    model = opened(tmp_path, make_task("mlm+nsp"))
    assert distance(model, eager, "mlm+nsp") < LIMIT
    batch = random_batch(make_task("mlm+nsp"))
    padded = Padded.of(batch)
    their_probs = eager(**padded.inputs, output_attentions=True).attentions
    x = model.encoder.embed(batch)
    seen = model.encoder.encode(x, batch, want=["attention"])
    for probs, theirs_of_layer in zip(seen.attention, their_probs, strict=True):
        for i, length in enumerate(batch.offsets.diff().tolist()):
            row, slot = divmod(int(seen.layout.slots[batch.offsets[i]]), seen.layout.capacity)
            ours = probs[row, :, slot : slot + length, slot : slot + length]
            assert gap(ours, theirs_of_layer[i, :, :length, :length]) < LIMIT


def test_the_distance_sees_a_single_changed_weight(tmp_path):
    theirs = their_model(CLASSES["mlm+nsp"])
    theirs.save_pretrained(tmp_path)
    model = opened(tmp_path, make_task("mlm+nsp"))
    with torch.no_grad():
        model.encoder.layers[1].up.bias[3] += 1e-2
    assert distance(model, theirs, "mlm+nsp") > LIMIT


def test_a_bare_model_has_no_heads():
    encoder = Encoder(CONFIG)
    model = Model(encoder, Pooler(CONFIG), {})
    assert isinstance(model.pooler, nn.Module)
    assert not model.heads
