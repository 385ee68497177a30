"""Parity with Hugging Face for every family and every class, and mutations that must break it."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from relatives import (
    CLASSES,
    LIMIT,
    NAMES,
    VOCABULARY,
    build,
    classes,
    distance,
    opened,
    our_answers,
    random_batch,
    their_model,
)

from clozeworks.api import ConvertRecipe, convert
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.foreign import take_bundle
from clozeworks.interop.huggingface import open_with, write_bundle
from clozeworks.interop.tensors import read_tensors, write_tensors
from clozeworks.model import attention, encoder, rotary
from clozeworks.model.families import FAMILIES
from clozeworks.model.heads import Model, encoder_of
from clozeworks.model.names import to_theirs
from clozeworks.text.tokenizer import Tokenizer
from tiny import PIECES, TOKENIZER, gap

CASES = [(name, heads) for name in NAMES for heads in classes(name)]
CLEARLY = 10 * LIMIT


def named(case):
    name, heads = case
    return f"{name}-{'+'.join(sorted(heads)) or 'bare'}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_class_is_equal(case, tmp_path):
    name, heads = case
    theirs = their_model(name, heads)
    theirs.save_pretrained(tmp_path)
    ours = opened(tmp_path, heads)
    assert distance(ours, theirs, name, heads) < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_padding_on_the_left_is_equal_too(name, tmp_path):
    theirs = their_model(name, frozenset())
    theirs.save_pretrained(tmp_path)
    ours = opened(tmp_path, frozenset())
    assert distance(ours, theirs, name, frozenset(), left=True) < LIMIT


@pytest.mark.parametrize("case", CASES, ids=named)
def test_there_and_back_is_bitwise(case, tmp_path):
    name, heads = case
    theirs = their_model(name, heads)
    theirs.save_pretrained(tmp_path / "theirs")
    model = opened(tmp_path / "theirs", heads)
    labels = ["a", "b", "c"] if heads & {"classify", "tag"} else None
    card = Card(labels=labels, settings={"dropout": 0.0})
    write_bundle(tmp_path / "ours", model, TOKENIZER, card)
    before = read_tensors(tmp_path / "theirs" / "model.safetensors")
    after = read_tensors(tmp_path / "ours" / "model.safetensors")
    assert after.keys() <= before.keys()
    assert all(torch.equal(after[key], before[key]) for key in after)
    again = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not again[1]["missing_keys"] and not again[1]["unexpected_keys"]
    for key, tensor in again[0].state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[key])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_class_can_be_converted(case, tmp_path):
    name, heads = case
    theirs = their_model(name, heads)
    labels = ["a", "b", "c"] if heads & {"classify", "tag"} else None
    if labels:
        theirs.config.id2label = dict(enumerate(labels))
    theirs.save_pretrained(tmp_path / "theirs")
    Tokenizer.of(PIECES[:VOCABULARY]).save(tmp_path / "theirs")
    made = convert(ConvertRecipe(source=tmp_path / "theirs", out=tmp_path / "ours"))
    assert (made.heads, made.difference) == (sorted(heads), 0.0)
    assert made.to_transformers < LIMIT
    before = read_tensors(tmp_path / "theirs" / "model.safetensors")
    after = read_tensors(tmp_path / "ours" / "model.safetensors")
    assert after.keys() <= before.keys()
    assert all(torch.equal(after[key], before[key]) for key in after)
    assert open_bundle(tmp_path / "ours").card.labels == labels


@pytest.mark.parametrize("head", ["classify", "tag", "qa"])
@pytest.mark.parametrize("name", NAMES)
def test_another_class_starts_from_the_same_tensors_as_theirs(name, head, tmp_path):
    """Of a folder with a head for masked tokens: ModernBERT's classes share its dense layer."""
    their_model(name, frozenset({"mlm"})).save_pretrained(tmp_path)
    family = FAMILIES.get(name)()
    kind = getattr(transformers, family.architectures[frozenset({head})])
    classes = 2 if head == "qa" else CLASSES
    theirs, told = kind.from_pretrained(tmp_path, num_labels=classes, output_loading_info=True)
    model = open_with(open_bundle(tmp_path), build({head})).model
    table, layers = family.names(frozenset({head})), family.layers(model.config)
    ours = to_theirs(dict(model.named_parameters()), table, layers)
    state = theirs.state_dict()
    both = ours.keys() & state.keys() - told["missing_keys"]
    assert all(torch.equal(ours[key], state[key]) for key in both)
    assert len(both) >= 4 * 12 or name == "albert"
    assert name != "modernbert" or head == "qa" or "head.dense.weight" in both


def with_copies(name, folder, change=lambda end, tensor: tensor):
    """Their folder with masked-token head, the copies of tied tensors in it written out."""
    theirs = their_model(name, frozenset({"mlm"}))
    theirs.save_pretrained(folder)
    file = folder / "model.safetensors"
    state = read_tensors(file)
    tied = FAMILIES.get(name).tied
    copies = {end: change(end, state[twin].clone()) for end, twin in tied.items()}
    write_tensors(file, {**state, **copies})


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_tied_tensors_are_passed_over(name, tmp_path):
    with_copies(name, tmp_path)
    opened(tmp_path, frozenset({"mlm"}))


@pytest.mark.parametrize("name", NAMES)
def test_what_should_be_a_copy_and_is_not_is_refused(name, tmp_path):
    """transformers 5 keeps the two apart; a model without a masked-token head needs neither."""
    for end, twin in FAMILIES.get(name).tied.items():
        with_copies(name, tmp_path / end, lambda e, t, end=end: t + 1 if e == end else t)
        theirs, told = transformers.AutoModelForMaskedLM.from_pretrained(
            tmp_path / end, output_loading_info=True
        )
        assert not told["unexpected_keys"]
        assert not torch.equal(theirs.get_parameter(end), theirs.get_parameter(twin))
        with pytest.raises(UserError, match=f"{end} is not the same as .*--allow-missing {end}"):
            opened(tmp_path / end, frozenset({"mlm"}))
        bundle = open_bundle(tmp_path / end)
        assert end in take_bundle(bundle, [end]).left_out
        open_with(bundle, build({"tag"}))


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_alone_stands_for_both(name, tmp_path):
    theirs = their_model(name, frozenset({"mlm"}))
    theirs.save_pretrained(tmp_path)
    right = opened(tmp_path, frozenset({"mlm"})).state_dict()
    state = read_tensors(tmp_path / "model.safetensors")
    for end, twin in FAMILIES.get(name).tied.items():
        state[end] = state.pop(twin)
    write_tensors(tmp_path / "model.safetensors", state)
    found = opened(tmp_path, frozenset({"mlm"})).state_dict()
    assert all(torch.equal(found[key], right[key]) for key in right)


def with_config(model, changes):
    """The same weights in an encoder of other values, cut or repeated where shapes differ."""
    heads = dict(model.heads.items())
    changed = Model(encoder_of(model.config.model_copy(update=changes)), model.pooler, heads)
    state = dict(model.encoder.named_parameters())
    with torch.no_grad():
        for name, parameter in changed.encoder.named_parameters():
            if name in state:
                rows = min(len(parameter), len(state[name]))
                parameter[:rows] = state[name][:rows]
    return changed.eval()


ROTARY = {"theta", "local_theta", "local_window"}
"""Values that mean nothing where positions are not turned."""
VALUES = {
    "tanh gelu": {"activation": "gelu_tanh"},
    "exact gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
    "epsilon": {"norm_eps": 3e-2},
    "heads": {"num_heads": 8},
    "pre-norm": {"norm": "pre"},
    "post-norm": {"norm": "post"},
    "no norm of embeddings": {"embedding_norm": False},
    "scaled embeddings": {"embedding_scale": True},
    "no positions": {"positions": "none"},
    "waves": {"positions": "sinusoidal"},
    "positions from zero": {"after_pad": False},
    "positions after pad": {"after_pad": True},
    "no segments": {"num_segments": 0},
    "theta": {"theta": 1000.0},
    "local theta": {"local_theta": 500.0},
    "wider window": {"local_window": 7},
    "narrower window": {"local_window": 5},
    "all global": {"local_layers": ()},
    "all local": {"local_layers": (0, 1, 2, 3)},
    "other local": {"local_layers": (0, 1, 3)},
    "one group": {"groups": 1},
    "one layer a group": {"group_layers": 1},
    "fewer layers": {"num_layers": 2, "local_layers": (1,)},
}


@pytest.mark.parametrize("name", NAMES)
def test_other_values_are_another_model(name, tmp_path):
    """At least ten values of each family's config, changed one at a time, must be seen."""
    theirs = their_model(name, frozenset(), spread=0.3)
    theirs.save_pretrained(tmp_path)
    model = opened(tmp_path, frozenset())
    batch = random_batch(name)
    right = our_answers(model, batch)["x"].detach()
    caught, missed = [], []
    for change, values in VALUES.items():
        if all(getattr(model.config, key) == value for key, value in values.items()):
            continue
        if model.config.positions == "rotary" and set(values) & {"after_pad"}:
            continue
        if model.config.positions != "rotary" and not set(values).isdisjoint(ROTARY):
            continue
        if model.config.groups is None and set(values) & {"group_layers"}:
            continue
        found = our_answers(with_config(model, values), batch)["x"].detach()
        (caught if gap(found, right) > CLEARLY else missed).append(change)
    assert not missed
    assert len(caught) >= 10


def turned_the_other_way(patch):
    before = rotary.turns
    patch.setattr(encoder, "turns", lambda p, w, t: (before(p, w, t)[0], -before(p, w, t)[1]))


def turned_in_neighbouring_pairs(patch):
    def turned(qkv, turn, heads):
        cos, sin = turn
        parts = qkv.view(len(qkv), 3 * heads, -1)
        both = parts[:, : 2 * heads]
        a, b = both[..., 0::2], both[..., 1::2]
        both = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        return torch.cat([both, parts[:, 2 * heads :]], 1).view(len(qkv), -1)

    patch.setattr(attention, "turned", turned)


def keys_not_turned(patch):
    def turned(qkv, turn, heads):
        whole = rotary.turned(qkv, turn, heads).view(len(qkv), 3, -1)
        return torch.cat([whole[:, :1], qkv.view(len(qkv), 3, -1)[:, 1:]], 1).view(len(qkv), -1)

    patch.setattr(attention, "turned", turned)


def gate_activated_instead(patch):
    before = encoder.Layer._inner

    def inner(self, x):
        linear = self.up
        self.__dict__["up"] = lambda x: torch.cat(linear(x).chunk(2, -1)[::-1], -1)
        try:
            return before(self, x)
        finally:
            del self.__dict__["up"]

    patch.setattr(encoder.Layer, "_inner", inner)


def scores_not_scaled(patch):
    patch.setattr(attention, "math", SimpleNamespace(sqrt=lambda width: 1.0))


@pytest.mark.parametrize(
    "mutate",
    [
        turned_the_other_way,
        turned_in_neighbouring_pairs,
        keys_not_turned,
        gate_activated_instead,
        scores_not_scaled,
    ],
)
def test_a_wrong_modernbert_is_told_apart(mutate, tmp_path, monkeypatch):
    theirs = their_model("modernbert", frozenset())
    theirs.save_pretrained(tmp_path)
    model = opened(tmp_path, frozenset())
    assert distance(model, theirs, "modernbert", frozenset()) < LIMIT
    mutate(monkeypatch)
    assert distance(model, theirs, "modernbert", frozenset()) > CLEARLY


@pytest.mark.parametrize("name", NAMES)
def test_other_activations_of_heads_are_seen(name, tmp_path):
    for heads, part in ((frozenset({"classify"}), "pooler"), (frozenset({"mlm"}), "mlm")):
        theirs = their_model(name, heads)
        theirs.save_pretrained(tmp_path / part)
        model = opened(tmp_path / part, heads)
        module = model.pooler if part == "pooler" else model.heads["mlm"]
        right = module.activation
        for other in {"tanh", "relu", "gelu", "gelu_tanh"} - {right}:
            module.activation = other
            assert distance(model, theirs, name, heads) > CLEARLY
        module.activation = right
        assert distance(model, theirs, name, heads) < LIMIT
