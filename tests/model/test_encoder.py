"""Laws of the encoder: the company a sequence keeps changes nothing, nor does the road taken."""

import pytest
import torch
from torch import nn

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.data.batches import pack
from clozeworks.model.config import EncoderConfig
from clozeworks.model.encoder import Encoder, initialise
from clozeworks.model.lookup import lookup
from clozeworks.model.noise import Dropout, Noise
from tiny import CONFIG, DRAW, UNEQUAL, gap, make_groups, make_model, make_task


@pytest.fixture(scope="module")
def encoder():
    return make_model(make_task("classify")).encoder


def encoded(encoder, groups):
    batch = pack(groups)
    return encoder.encode(encoder.embed(batch), batch)


@pytest.mark.parametrize("company", [slice(0, 7), slice(6, None, -1), slice(1, 6, 2)], ids=str)
def test_a_sequence_alone_is_the_same_in_company(encoder, company):
    groups = make_groups()[company]
    with torch.no_grad():
        together = encoded(encoder, groups).x.split([len(g.sequences[0]) for g in groups])
        for group, rows in zip(groups, together, strict=True):
            assert gap(rows, encoded(encoder, [group]).x) < 1e-5


def test_gradients_of_a_sequence_are_its_own():
    model = make_model(make_task("classify"))
    groups, weight = make_groups([40, 9, 100]), model.encoder.layers[1].qkv.weight

    def gradient(chosen):
        total = 0
        for part in chosen:
            x = encoded(model.encoder, part).x
            total = total + (x * torch.linspace(-1, 1, x.shape[1])).square().sum()
        return torch.autograd.grad(total, weight)[0]

    assert gap(gradient([groups]), gradient([[group] for group in groups])) < 1e-5


def test_reading_some_rows_is_selecting_from_all(encoder):
    batch = pack(make_groups())
    x = encoder.embed(batch)
    read = torch.tensor([0, 3, 69, 70, 3, 300])
    every = encoder.encode(x, batch).x
    some = encoder.encode(x, batch, read=read)
    assert gap(some.x, every[read]) < 1e-5
    assert gap(encoder.encode(x, batch, read=read, want=["hidden"]).x, every[read]) < 1e-5
    cotangent = torch.randn(some.x.shape, generator=torch.Generator().manual_seed(0))
    weight = encoder.layers[2].down.weight
    ours = torch.autograd.grad((some.x * cotangent).sum(), weight, retain_graph=True)[0]
    theirs = torch.autograd.grad((every[read] * cotangent).sum(), weight)[0]
    assert gap(ours, theirs) < 1e-5


def test_looking_inside_changes_nothing(encoder):
    batch = pack(make_groups())
    x = encoder.embed(batch)
    fast = encoder.encode(x, batch)
    seen = encoder.encode(x, batch, want=["hidden", "attention"])
    assert gap(seen.x, fast.x) < 1e-5
    assert len(seen.hidden) == CONFIG.num_layers + 1
    assert torch.equal(seen.hidden[0], x)
    assert torch.equal(seen.hidden[-1], seen.x)
    assert len(seen.attention) == CONFIG.num_layers
    for probs in seen.attention:
        assert probs.shape == (seen.layout.rows, CONFIG.num_heads, *[seen.layout.capacity] * 2)
        assert torch.allclose(probs.sum(-1), torch.ones(probs.shape[:-1]), atol=1e-5)
    assert not encoder.encode(x, batch, want=["attention"]).hidden


def test_what_enters_at_x_is_what_is_encoded(encoder):
    batch = pack(make_groups([20, 30]))
    x = encoder.embed(batch).detach().requires_grad_()
    encoder.encode(x, batch).x[:20].square().sum().backward()
    assert x.grad[:20].abs().min(dim=1).values.max() > 0
    assert x.grad[20:].abs().max() == 0


@pytest.mark.parametrize("task_name", ["mlm+nsp", "classify"])
def test_initialise_is_a_function_of_the_seed(task_name):
    def weights(seed):
        model = make_task(task_name).build(Encoder(CONFIG))
        initialise(model, 0.02, seed)
        return dict(model.named_parameters())

    first, again, other = weights(1), weights(1), weights(2)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        if "norm.weight" in name:
            assert tensor.eq(1).all()
        elif name.endswith("bias"):
            assert tensor.eq(0).all()
        else:
            assert not torch.equal(tensor, other[name])
            assert 0.01 < tensor.std().item() < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lookup_is_an_embedding(dtype):
    weight = torch.randn(50, 8, dtype=dtype).requires_grad_()
    ids = torch.randint(50, (400,), generator=torch.Generator().manual_seed(0))
    cotangent = torch.randn(400, 8, dtype=dtype)
    theirs = weight.detach().clone().requires_grad_()
    expected = nn.functional.embedding(ids, theirs)
    found = lookup(weight, ids)
    assert torch.equal(found, expected)
    expected.backward(cotangent)
    found.backward(cotangent)
    assert gap(weight.grad, theirs.grad) < 1e-5


def test_a_common_ids_gradient_does_not_stop_growing_in_bf16():
    ids = torch.zeros(5000, dtype=torch.int64)
    weight = torch.zeros(2, 4, dtype=torch.bfloat16).requires_grad_()
    theirs = weight.detach().clone().requires_grad_()
    lookup(weight, ids).backward(torch.ones(5000, 4, dtype=torch.bfloat16))
    nn.functional.embedding(ids, theirs).backward(torch.ones(5000, 4, dtype=torch.bfloat16))
    ours, plain = (abs(float(t.grad[0, 0]) - 5000) for t in (weight, theirs))
    assert ours < 20
    assert plain > 1000, "bf16 sums no longer stall: the lookup's own backward is not needed"


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(share):
    layer = Dropout(share, Noise())
    kept = layer.train()(torch.ones(400, 500))
    assert float((kept == 0).float().mean()) == pytest.approx(share, abs=1 / 256 + 0.003)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.01 + 0.01 * (share > 0.8))
    assert len(kept.unique()) == 2
    assert torch.equal(layer.eval()(kept), kept)
    assert torch.equal(Dropout(0.0, Noise()).train()(kept), kept)


def test_the_largest_share_a_setting_allows_can_be_dropped():
    kept = Dropout(0.999, Noise()).train()(torch.ones(1000, 100))
    assert kept.isfinite().all()
    assert float((kept == 0).float().mean()) > 0.99


def test_dropout_is_a_function_of_its_key():
    noise, x = Noise(), torch.ones(50, 50)

    def masks(*key):
        noise.reseed(*key)
        return torch.stack([noise.keep(x, 0.5), noise.keep(x, 0.5)])

    first = masks(1, 2, 3, 0)
    assert torch.equal(first, masks(1, 2, 3, 0))
    assert not torch.equal(first[0], first[1])
    for other in [(2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 1)]:
        assert 0.4 < float((first == masks(*other)).float().mean()) < 0.6


def test_training_with_dropout_is_a_function_of_the_key():
    task = make_task("mlm+nsp")
    model = make_model(task)
    model.set_dropout(0.1)
    batch = task.collate(make_groups(), DRAW)

    def losses(*key):
        model.train().encoder.noise.reseed(*key)
        return torch.stack(list(task.loss(model, batch, DRAW).values()))

    assert torch.equal(losses(0, 1), losses(0, 1))
    assert not torch.equal(losses(0, 1), losses(0, 2))
    model.set_dropout(0.0)
    assert torch.equal(losses(0, 1), losses(0, 2))


def test_bad_sizes_are_refused():
    with pytest.raises(UserError, match="width 30 is not a multiple of 4 heads"):
        validated(EncoderConfig, {"vocab_size": 9, "hidden_size": 30}, "x")
    with pytest.raises(UserError, match="dropout"):
        validated(EncoderConfig, {"vocab_size": 9, "dropout": 1.0}, "x")
    for changes, message in (
        ({"positions": "rotary", "hidden_size": 12}, "rotary positions need an even width"),
        ({"groups": 3}, "4 layers do not divide into 3 groups"),
        ({"recurrent": "gru", "hidden_size": 5, "num_heads": 1}, "does not halve"),
    ):
        with pytest.raises(UserError, match=message):
            validated(EncoderConfig, {"vocab_size": 9, "num_heads": 4, **changes}, "x")


def test_lengths_cover_every_kind_of_row():
    assert min(UNEQUAL) < 64 < max(UNEQUAL) and max(UNEQUAL) > 128 and 64 in UNEQUAL
