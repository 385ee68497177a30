"""Laws of models from elsewhere: by name, as word vectors, in parts; and what is refused."""

import json
import shutil
import struct
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from clozeworks import api, cli
from clozeworks.core.bundle import CARD, Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest
from clozeworks.interop.hub import local, origin
from clozeworks.interop.huggingface import labels_of, open_model, write_bundle
from clozeworks.interop.tensors import read_tensors
from clozeworks.model.families.bert import Bert
from clozeworks.text.load import load_tokenizer
from tiny import LABELS, TOKENIZER, make_model, make_task


@pytest.fixture
def folder(tmp_path):
    """A tiny classifier's folder."""
    task = make_task("classify")
    card = Card(task="classify", labels=LABELS, tokenizer=TOKENIZER.hash)
    return write_bundle(tmp_path / "model", make_model(task), TOKENIZER, card)


@pytest.fixture
def said(monkeypatch):
    """What is said to the person, line for line."""
    lines = []
    for name in ("clozeworks.api.convert", "clozeworks.interop.foreign"):
        monkeypatch.setattr(import_module(name), "say", lines.append)
    return lines


def convert(source, out, **more):
    return api.convert(api.ConvertRecipe(source=source, out=out, **more))


def test_a_folder_is_the_same_after_conversion(folder, tmp_path):
    made = convert(folder, tmp_path / "out")
    assert (made.family, made.heads, made.difference) == ("bert", ["classify"], 0.0)
    before, after = (read_tensors(f / "model.safetensors") for f in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert open_bundle(tmp_path / "out").card == open_bundle(folder).card
    with pytest.raises(UserError, match="already exists"):
        convert(folder, tmp_path / "out")


def test_what_no_such_model_has_is_listed_and_can_be_left_out(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    save_file({**state, "bert.extra.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"bert\.extra\.weight.*--allow-missing"):
        open_model(open_bundle(folder), make_task("classify"))
    convert(folder, tmp_path / "out", allow_missing=["bert.extra.weight"])
    assert open_model(open_bundle(tmp_path / "out"), make_task("classify")).fresh == []


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.1.output.dense.bias",
        "bert.encoder.layer.1.attention.self.key.bias",  # a third of what is one tensor here
        "bert.pooler.dense.bias",
        "classifier.bias",
    ],
)
def test_what_is_missing_is_filled_only_where_that_was_allowed(folder, tmp_path, name):
    """By the name it has in the file, and that tensor alone."""
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"the weights lack {name}; .*--allow-missing"):
        convert(folder, tmp_path / "out")
    convert(folder, tmp_path / "out", allow_missing=[name])
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == state.keys() | {name}
    assert all(torch.equal(written[other], tensor) for other, tensor in state.items())
    assert not written[name].any()


def test_a_name_may_be_given_as_a_bare_encoders_file_has_it(folder, tmp_path):
    rename(folder, architectures=["BertModel"])
    state = load_file(folder / "model.safetensors")
    bare = {k.removeprefix("bert."): v for k, v in state.items() if k.startswith("bert.")}
    del bare["pooler.dense.bias"]
    save_file(bare, folder / "model.safetensors")
    convert(folder, tmp_path / "out", allow_missing=["pooler.dense.bias"])
    assert "pooler.dense.bias" in load_file(tmp_path / "out" / "model.safetensors")


def rename(folder, **changes):
    """Change keys of config.json; None removes one. Without a card, as from elsewhere."""
    (folder / "clozeworks.json").unlink(missing_ok=True)
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {key: value for key, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))


# === Heads and labels ===


@pytest.mark.parametrize("named", [["BertForMaskedLM"], ["BertModel"], ["SomeBert"], None])
def test_every_pretraining_head_is_kept_whatever_class_is_named(tmp_path, named):
    task = make_task("mlm+nsp")
    folder = write_bundle(tmp_path / "model", make_model(task), TOKENIZER, Card())
    rename(folder, architectures=named)
    assert convert(folder, tmp_path / "out").heads == ["mlm", "nsp"]
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()


def test_a_named_class_that_is_not_whole_is_no_smaller_class(tmp_path):
    folder = write_bundle(tmp_path / "model", make_model(make_task("mlm")), TOKENIZER, Card())
    state = load_file(folder / "model.safetensors")
    del state["cls.predictions.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"the weights lack cls\.predictions\.bias"):
        convert(folder, tmp_path / "out")


def test_what_the_class_does_not_have_is_left_out_and_named(folder, tmp_path, said):
    extra = {"cls.predictions.bias": torch.zeros(TOKENIZER.vocabulary.size)}
    state = load_file(folder / "model.safetensors")
    save_file({**state, **extra}, folder / "model.safetensors")
    convert(folder, tmp_path / "out")
    assert "left out, as no class with these heads has them: cls.predictions.bias" in said
    rename(folder, architectures=None)  # a classifier's tensors do not say what they classify
    convert(folder, tmp_path / "bare")
    assert any("classifier.bias, classifier.weight, cls.pred" in line for line in said)


@pytest.mark.parametrize("labels", [["just one"], ["neg", "pos"], ["a", "b", "c"]])
@pytest.mark.parametrize("head", ["classify", "tag"])
def test_labels_of_any_number_are_kept_and_numbered_where_nothing_names_them(
    tmp_path, labels, head
):
    theirs = TAGGERS[head](transformers.BertConfig(**SMALL, id2label=dict(enumerate(labels))))
    theirs.save_pretrained(tmp_path / "named")
    TOKENIZER.save(tmp_path / "named")
    made = convert(tmp_path / "named", tmp_path / "out")
    assert (made.heads, made.difference) == ([head], 0.0)
    assert labels_of(open_bundle(tmp_path / "out")) == labels
    again = TAGGERS[head].from_pretrained(tmp_path / "out")
    assert torch.equal(again.classifier.weight, theirs.classifier.weight)
    assert list(again.config.id2label.values()) == labels
    rename(tmp_path / "named", id2label=None, label2id=None)
    convert(tmp_path / "named", tmp_path / "numbered")
    numbers = [f"LABEL_{i}" for i in range(len(labels))]
    assert labels_of(open_bundle(tmp_path / "numbered")) == numbers
    rename(tmp_path / "named", id2label={str(i): str(i) for i in range(4)})
    with pytest.raises(UserError, match=f"tell {len(labels)} labels apart, but 4 are named"):
        convert(tmp_path / "named", tmp_path / "wrong")


def test_the_kind_of_problem_is_kept(folder, tmp_path):
    rename(folder, problem_type="multi_label_classification")
    convert(folder, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert values["problem_type"] == "multi_label_classification"


SMALL = {
    "vocab_size": TOKENIZER.vocabulary.size,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TAGGERS = {
    "classify": transformers.BertForSequenceClassification,
    "tag": transformers.BertForTokenClassification,
}


# === What is compared ===


def test_the_folder_is_compared_with_transformers_where_it_has_a_class(
    folder, tmp_path, monkeypatch, said
):
    made = convert(folder, tmp_path / "out")
    assert made.to_transformers < 1e-5
    assert said[0] == "written and read again: largest difference 0.0e+00 on 4 sentences"
    assert said[1].startswith("the folder in transformers' BertForSequenceClassification: largest")
    module = sys.modules["clozeworks.api.convert"]
    monkeypatch.setattr(module, "class_of", lambda config, heads: None)
    assert convert(folder, tmp_path / "alone").to_transformers is None
    assert any(line.startswith("compared with no other program") for line in said)


def test_an_error_that_reading_and_writing_share_is_found(folder, tmp_path, monkeypatch):
    """Two tensors that change places on the way in change back on the way out."""
    modules = dict(Bert.modules)
    names = ("encoder.layers.{}.attention_norm", "encoder.layers.{}.output_norm")
    modules[names[0]], modules[names[1]] = modules[names[1]], modules[names[0]]
    monkeypatch.setattr(Bert, "modules", modules)
    with pytest.raises(UserError, match="says something else than the checkpoint"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_epsilon_that_the_family_cannot_say_is_refused(tmp_path):
    config = transformers.DistilBertConfig(
        vocab_size=SMALL["vocab_size"], dim=16, n_layers=2, n_heads=2, hidden_dim=24
    )
    transformers.DistilBertModel(config).save_pretrained(tmp_path / "model")
    TOKENIZER.save(tmp_path / "model")
    with pytest.raises(UserError, match=r"--norm-eps 0\.001: .* distilbert is always 1e-12"):
        convert(tmp_path / "model", tmp_path / "out", norm_eps=1e-3)
    convert(tmp_path / "model", tmp_path / "out", norm_eps=1e-12)


def test_the_command_names_both_folders(folder, tmp_path):
    cli.main(["convert", str(folder), str(tmp_path / "out"), "--to", "huggingface"])
    assert open_bundle(tmp_path / "out").card.labels == LABELS


def test_a_folder_that_says_something_else_is_not_kept(folder, tmp_path, monkeypatch):
    module = sys.modules["clozeworks.api.convert"]  # the verb has its name
    monkeypatch.setattr(module, "_difference", lambda model, written: 1e-3)
    with pytest.raises(UserError, match="says something else than the checkpoint"):
        convert(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


# === Parts ===


def in_parts(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({name: state[name] for name in some}, folder / file)
    return {name: file for file, some in parts.items() for name in some}


def write_index(folder, places):
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_parts_are_found_by_their_index(folder, tmp_path):
    whole = load_file(folder / "model.safetensors")
    places = in_parts(folder)
    (folder / "model-3-of-2.safetensors").write_bytes(b"not named, not read")
    write_index(folder, places)
    convert(folder, tmp_path / "out")
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2-of-2\.safetensors does not exist"):
        open_model(open_bundle(folder), make_task("classify"))


@pytest.mark.parametrize("name", ["../away.safetensors", "/etc/passwd", "a/b", "..", ""])
def test_an_index_never_leads_out_of_its_folder(folder, name):
    places = in_parts(folder)
    write_index(folder, dict.fromkeys(places, name))
    with pytest.raises(UserError, match="does not lie beside it"):
        open_model(open_bundle(folder), make_task("classify"))


def linked_from(folder, name, elsewhere):
    """Leave a link in the file's place, and the file elsewhere."""
    elsewhere.mkdir(parents=True, exist_ok=True)
    (folder / name).rename(elsewhere / name)
    (folder / name).symlink_to(elsewhere / name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "clozeworks.json"])
@pytest.mark.parametrize(
    ("home", "elsewhere"),
    [
        ("model", "other"),
        ("snapshots/model", "other"),
        ("models--a--b/snapshots/model", "blobs"),
        ("models--a--b/snapshots/model", "models--a--b/other"),
        ("models--a--b/snapshots/model", "models--a--c/blobs"),
    ],
)
def test_links_never_lead_out_of_the_folder(name, home, elsewhere, folder, tmp_path):
    place = tmp_path / "root" / home
    shutil.copytree(folder, place)
    linked_from(place, name, tmp_path / "root" / elsewhere)
    with pytest.raises(UserError, match=rf"{name} is a link that leads out"):
        open_bundle(place)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "tokenizer_config.json"])
def test_links_of_a_tokenizer_stay_in_its_folder(name, folder, tmp_path):
    linked_from(folder, name, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{name} is a link that leads out"):
        load_tokenizer(folder)
    (folder / name).unlink()
    (folder / f"real-{name}").write_bytes((tmp_path / "elsewhere" / name).read_bytes())
    (folder / name).symlink_to(f"real-{name}")
    assert load_tokenizer(folder).hash == TOKENIZER.hash


def test_a_generator_in_a_cache_links_to_its_models_blobs(folder, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    shutil.copytree(folder, snapshot)
    shutil.copytree(folder, snapshot / "generator")
    linked_from(snapshot / "generator", "config.json", tmp_path / "models--a--b" / "blobs")
    assert open_bundle(snapshot).generator.config == open_bundle(folder).config


def test_a_link_that_leads_in_a_circle_is_explained(folder):
    (folder / "circle").symlink_to(folder / "circle")
    open_bundle(folder)
    (folder / "away").symlink_to("../nowhere")
    with pytest.raises(UserError, match="away is a link that leads out"):
        open_bundle(folder)


REVISION = "0123456789abcdef0123456789abcdef01234567"


def as_cached(folder, root):
    """The folder as a Hugging Face cache holds it: links into blobs, by revision."""
    home = root / "hub" / "models--ada--tiny"
    snapshot = home / "snapshots" / REVISION
    for place in (home / "blobs", home / "refs", snapshot):
        place.mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    for i, file in enumerate(sorted(folder.iterdir())):
        (home / "blobs" / str(i)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    return snapshot


def test_a_cache_of_the_hub_opens_by_folder_and_by_name(folder, tmp_path, monkeypatch):
    snapshot = as_cached(folder, tmp_path)
    assert open_model(open_bundle(snapshot), make_task("classify")).fresh == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (
        "hub:ada/tiny",
        "hub:ada/tiny@main",
        f"hub:ada/tiny@{REVISION}",
    ):
        assert local_at(name).resolve() == snapshot.resolve()
    (snapshot / CARD).unlink()  # as a model from elsewhere, which says nothing of its origin
    origin.cache_clear()
    made = convert(Path("hub:ada/tiny"), tmp_path / "out")
    assert made.difference == 0.0
    known = open_bundle(made.out).card.provenance
    assert known.parent == f"hub:ada/tiny@{REVISION}"
    assert known.data["model.safetensors"] == digest(folder / "model.safetensors")


def local_at(name):
    return local(Path(name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:ada/none", "cannot be had.*HF_ENDPOINT"),
        ("hub:", "is not hub:OWNER/NAME"),
        ("hub:a/b/c", "is not hub:OWNER/NAME"),
    ],
)
def test_names_that_lead_nowhere_are_explained(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as refusal:
        local_at(name)
    assert "\n" not in str(refusal.value)


# === Headers that lie ===


def with_header(folder, header, body=b""):
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + body)


LIES = {
    "larger than the file": {
        "a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}
    },
    "shape and size": {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
    "overlap": {
        "a": {"dtype": "U8", "shape": [6], "data_offsets": [0, 6]},
        "b": {"dtype": "U8", "shape": [6], "data_offsets": [2, 8]},
    },
    "dtype": {"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}},
    "overflow": {"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}},
    "negative": {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    "backwards": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_before_memory_is_taken(name, folder):
    with_header(folder, LIES[name], bytes(8))
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_tensors(folder / "model.safetensors")


def test_a_header_without_end_is_refused(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(UserError, match="is damaged"):
        read_tensors(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "code.Model"}}, "code that comes with a model is never run"),
        ({"attn_implementation": "someone/kernel"}, "names code elsewhere"),
        ({"quantization_config": {"bits": 4}}, "open the model it was quantized from"),
        ({"tie_word_embeddings": False}, "an output embedding of its own"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"add_cross_attention": True}, "add_cross_attention"),
    ],
)
def test_what_would_run_code_or_change_the_mathematics_is_refused(folder, changes, message):
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message) as refusal:
        open_model(open_bundle(folder), make_task("classify"))
    assert str(refusal.value).startswith(str(folder))
