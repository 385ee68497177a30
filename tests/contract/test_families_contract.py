"""What every family of models owes: configs and names that go there and back."""

import pytest
import torch

from clozeworks.core.errors import UserError
from clozeworks.model.families import FAMILIES
from clozeworks.model.names import to_ours, to_theirs
from tiny import CONFIG, make_model, make_task

NAMES = FAMILIES.names()
HEADS = ["mlm", "nsp", "mlm+nsp", "classify"]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_goes_there_and_back(name):
    family = FAMILIES.get(name)()
    assert FAMILIES.summary(name)
    for activation in ("gelu", "gelu_tanh", "relu"):
        config = CONFIG.model_copy(update={"activation": activation, "norm_eps": 1e-5})
        values = family.values(config)
        assert values["model_type"] == family.model_type
        assert family.config(values) == config
        assert family.config({**values, "something_new": 1}) == config


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("heads", HEADS)
def test_every_tensor_has_a_name_there_and_comes_back(name, heads):
    family = FAMILIES.get(name)()
    model = make_model(make_task(heads))
    state = {n: p.detach() for n, p in model.named_parameters()}
    theirs = to_theirs(state, family.names, CONFIG.num_layers)
    assert not any(n.endswith(family.ignored) for n in theirs)
    assert sum(t.numel() for t in theirs.values()) == sum(t.numel() for t in state.values())
    ours = to_ours(theirs, family.names, CONFIG.num_layers)
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[n], state[n]) for n in state)
    assert frozenset(model.heads) in family.architectures


@pytest.mark.parametrize("name", NAMES)
def test_no_two_rows_of_a_table_share_a_name(name):
    table = FAMILIES.get(name)().names
    theirs = [n for row in table.values() for n in ((row,) if isinstance(row, str) else row)]
    assert len(set(theirs)) == len(theirs)


def test_unknown_families_are_explained():
    with pytest.raises(UserError, match="model family 'brt' is not known; did you mean 'bert'"):
        FAMILIES.get("brt")
