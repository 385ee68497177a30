"""Laws of the generator: as large as published, and one with its encoder in what they share."""

import pytest
import torch

from clozeworks.model.families import FAMILIES, sized
from clozeworks.model.generator import generator_of, narrowed
from clozeworks.model.heads import encoder_of
from clozeworks.model.noise import Dropout
from tiny import CONFIG, DRAW, make_groups, make_model, make_task

SHARED = ("tokens", "positions", "segments", "norm")


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [
        ("mini", 0.25, (64, 1, 256, 4, 128)),
        ("small", 0.25, (64, 1, 256, 12, 128)),
        ("base", 1 / 3, (256, 4, 1024, 12, 768)),
        ("large", 0.25, (256, 4, 1024, 24, 1024)),
        ("small", 1.0, (256, 4, 1024, 12, 128)),
    ],
)
def test_sizes_are_those_of_the_paper(size, share, expected):
    config = narrowed(sized("electra", size, 100), share)
    found = (config.hidden_size, config.num_heads, config.inner_size, config.num_layers)
    assert (*found, config.embedding_width) == expected


@pytest.mark.parametrize("name", FAMILIES.names())
@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.5, 0.8, 1.0])
def test_every_family_has_one_of_every_share(name, share):
    for size in FAMILIES.get(name).sizes:
        whole = sized(name, size, 100)
        config = narrowed(whole, share)
        assert config.num_layers == whole.num_layers
        assert config.hidden_size == pytest.approx(share * whole.hidden_size, abs=2)
        assert config.embedding_width == whole.embedding_width
    smallest = next(iter(FAMILIES.get(name).sizes))
    encoder = encoder_of(sized(name, smallest, 100, hidden_size=32, num_heads=4, max_positions=64))
    generator_of(encoder, share)


def test_embeddings_are_shared_and_nothing_else_is():
    encoder = encoder_of(CONFIG)
    generator = generator_of(encoder, 0.25)
    for part in SHARED:
        assert getattr(generator.encoder.embeddings, part) is getattr(encoder.embeddings, part)
    own = {id(p) for p in encoder.parameters()}
    shared = [n for n, p in generator.named_parameters() if id(p) in own]
    assert {name.split(".")[2] for name in shared} == set(SHARED)
    assert generator.encoder.embeddings.project.weight.shape == (8, 32)


def test_one_source_of_dropout_serves_both():
    task = make_task("rtd")
    model = make_model(task).train()
    model.set_dropout(0.3)
    assert all(m.share == 0.3 for m in model.generator.modules() if isinstance(m, Dropout))
    batch = task.collate(make_groups(), DRAW)

    def losses(*key):
        model.encoder.noise.reseed(*key)
        return {n: float(t.detach()) for n, t in task.loss(model, batch, DRAW).items()}

    first = losses(0, 1)
    torch.manual_seed(5)
    assert losses(0, 1) == first
    other = losses(0, 2)
    assert other["mlm"] != first["mlm"] and other["rtd"] != first["rtd"]


def test_muon_turns_the_generators_matrices_too():
    model = make_model(make_task("rtd"))
    turned = set(model.hidden_matrices())
    assert turned == set(model.encoder.hidden_matrices()) | set(
        model.generator.encoder.hidden_matrices()
    )
    assert turned <= set(model.parameters()) and len(turned) == 2 * 4 * CONFIG.num_layers
