"""What every family of models owes: configs, sizes and names that go there and back."""

import pytest
import torch

from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.model import families
from clozeworks.model.families import FAMILIES, check_class, check_holds, family_named, sized
from clozeworks.model.heads import encoder_of
from clozeworks.model.names import their_names, to_ours, to_theirs
from tiny import DRAW, TOKENIZER, VOCABULARY, make_groups, make_task

NAMES = FAMILIES.names()
SIZES = [(name, size) for name in NAMES for size in FAMILIES.get(name).sizes]
SMALL = {"hidden_size": 32, "num_heads": 4, "pad_id": VOCABULARY.pad, "dropout": 0.0}


def small(name, **changes):
    """A family's smallest model, narrow enough for laws to be tried."""
    size = next(iter(FAMILIES.get(name).sizes))
    return sized(name, size, VOCABULARY.size, **{**SMALL, "attention_dropout": 0.0, **changes})


def model_of(name, task):
    model = task.build(encoder_of(small(name)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
            if "norm.weight" in part:
                parameter.add_(1.0)
    return model.eval()


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_a_named_size_can_be_written_and_read(name, size):
    config = sized(name, size, 1000)
    family = FAMILIES.get(name)()
    values = family.values(config)
    assert values["model_type"] == family.model_type
    assert family.config({**values, "something_new": 1}) == config
    assert family_named(values["model_type"]).model_type == family.model_type
    assert FAMILIES.summary(name) and family.tokenizer
    check_holds(config)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["mlm", "classify"])
def test_every_tensor_has_a_name_there_and_comes_back(name, task):
    family = FAMILIES.get(name)()
    model = model_of(name, make_task(task))
    state = {n: p.detach() for n, p in model.named_parameters()}
    table, layers = family.names(frozenset({task})), family.layers(model.config)
    theirs = to_theirs(state, table, layers)
    assert not any(n.endswith((*family.ignored, *family.tied)) for n in theirs)
    if task == "mlm":
        assert set(family.tied.values()) <= their_names(table, layers).keys()
    assert sum(t.numel() for t in theirs.values()) == sum(t.numel() for t in state.values())
    ours = to_ours(theirs, table, layers)
    assert state.keys() <= ours.keys()
    assert all(torch.equal(ours[n], state[n]) for n in state)
    assert theirs.keys() <= their_names(table, layers).keys()
    check_class(family, frozenset(model.heads))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["mlm", "classify"])
def test_every_family_learns(name, task):
    """A loss that falls, with gradients in every parameter and nothing seen of other sequences."""
    task = make_task(task)
    model = model_of(name, task)
    groups = make_groups(classes=3 if task.name == "classify" else 2)
    batch = task.collate(groups, DRAW)
    (total,) = task.loss(model, batch, DRAW).values()
    total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in silent if not name.startswith("pooler")]
    alone = task.predict(model, task.collate(groups[:1], DRAW))
    together = task.predict(model, task.collate(groups, DRAW))
    for key in alone:
        if alone[key].is_floating_point():
            rows = together[key][: len(alone[key])]
            assert torch.allclose(alone[key], rows, atol=1e-4, rtol=1e-4)


def test_what_a_family_cannot_hold_is_refused():
    with pytest.raises(UserError, match="model family 'brt' is not known; did you mean 'bert'"):
        FAMILIES.get("brt")
    with pytest.raises(UserError, match=r"size of roberta 'bse' is not known.*'base'"):
        sized("roberta", "bse", 100)
    with pytest.raises(UserError, match=r"norm_eps = 0\.5: a distilbert model has 1e-12"):
        sized("distilbert", "mini", 100, norm_eps=0.5)
    with pytest.raises(UserError, match="gated = True: a bert model has False"):
        sized("bert", "mini", 100, gated=True)
    with pytest.raises(UserError, match=r"no roberta model has heads for mlm.nsp .choices: choice"):
        check_class(FAMILIES.get("roberta")(), frozenset({"mlm", "nsp"}))


def test_a_gru_is_written_and_read(tmp_path):
    task = make_task("mlm")
    config = small("lstm", recurrent="gru", num_layers=2)
    model = task.build(encoder_of(config))
    folder = write_bundle(tmp_path / "out", model, TOKENIZER, Card(task="mlm"))
    again, fresh = open_model(open_bundle(folder), task)
    assert fresh == [] and again.config == config
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])


NEW = '''
"""A family that is added."""

from clozeworks.model.families.base import classes
from clozeworks.model.families.bert import Bert


class Ernie(Bert):
    """ERNIE: BERT's shape under another name."""

    model_type = "ernie"
    architectures = classes("Ernie")
'''


def test_one_file_adds_a_family(tmp_path, monkeypatch):
    """Named, sized, read and written: nothing but the file is touched."""
    (tmp_path / "ernie.py").write_text(NEW, "utf-8")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    assert "ernie" in FAMILIES.names()
    assert FAMILIES.summary("ernie").startswith("ERNIE")
    config = sized("ernie", "mini", VOCABULARY.size)
    assert config.family == "ernie"
    task = make_task("mlm")
    folder = write_bundle(tmp_path / "out", task.build(encoder_of(config)), TOKENIZER, Card())
    bundle = open_bundle(folder)
    assert bundle.config["architectures"] == ["ErnieForMaskedLM"]
    assert bundle.config["model_type"] == "ernie"
    assert open_model(bundle, task).fresh == []
