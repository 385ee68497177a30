"""Laws of models from elsewhere: by name, as word vectors, in parts; and what is refused."""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clozeworks import api
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.hub import local
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.interop.tensors import read_tensors
from clozeworks.interop.vectors import read_vectors
from clozeworks.text.load import load_tokenizer
from tiny import LABELS, TOKENIZER, make_model, make_task


@pytest.fixture
def folder(tmp_path):
    """A tiny classifier's folder."""
    task = make_task("classify")
    card = Card(task="classify", labels=LABELS, tokenizer=TOKENIZER.hash)
    return write_bundle(tmp_path / "model", make_model(task), TOKENIZER, card)


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
    with pytest.raises(UserError, match=r"bert\.extra\.weight.*--leave-out"):
        open_model(open_bundle(folder), make_task("classify"))
    convert(folder, tmp_path / "out", leave_out=["bert.extra.weight"])
    assert open_model(open_bundle(tmp_path / "out"), make_task("classify")).fresh == []


def test_what_is_missing_is_filled_only_where_that_was_allowed(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    ours = "encoder.layers.1.down.bias"
    gone = {k: v for k, v in state.items() if k != "bert.encoder.layer.1.output.dense.bias"}
    save_file(gone, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"the weights lack {ours}"):
        convert(folder, tmp_path / "out")
    convert(folder, tmp_path / "out", leave_out=[ours])
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == state.keys()
    assert not written["bert.encoder.layer.1.output.dense.bias"].any()
    save_file({k: v for k, v in state.items() if "pooler" not in k}, folder / "model.safetensors")
    with pytest.raises(UserError, match="the weights lack pooler"):
        convert(folder, tmp_path / "other")


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
    made = convert(local_at("hub:ada/tiny"), tmp_path / "out")
    assert made.difference == 0.0


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


# === Word vectors ===

WORDS = ["late", "parcel", "lamp", "快", "递"]


def vectors(path, header=False, binary=False):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(len(WORDS), 6)).astype(np.float32)
    first = f"{len(WORDS)} 6\n".encode()
    if binary:
        rows = [
            f"{word} ".encode() + row.tobytes() + b"\n"
            for word, row in zip(WORDS, matrix, strict=True)
        ]
    else:
        rows = [
            f"{w} {' '.join(repr(float(x)) for x in row)}\n".encode()
            for w, row in zip(WORDS, matrix, strict=True)
        ]
    path.write_bytes((first if header or binary else b"") + b"".join(rows))
    return matrix


@pytest.mark.parametrize(
    ("name", "form"),
    [("glove.txt", {}), ("w2v.vec", {"header": True}), ("w2v.bin", {"binary": True})],
)
def test_word_vectors_become_a_bilstm(tmp_path, name, form):
    matrix = vectors(tmp_path / name, **form)
    words, read = read_vectors(tmp_path / name)
    assert words == WORDS and np.array_equal(read, matrix)
    made = convert(tmp_path / name, tmp_path / "out")
    assert (made.family, made.heads, made.difference) == ("lstm", [], 0.0)
    tokenizer = load_tokenizer(tmp_path / "out")
    task = make_task("classify")
    model, fresh = open_model(open_bundle(tmp_path / "out"), task)
    assert fresh == ["heads.classify", "pooler"]
    table = model.encoder.embeddings.tokens.weight.detach()
    for word, row in zip(WORDS, matrix, strict=True):
        assert np.array_equal(table[tokenizer.pieces.index(word)].numpy(), row)


@pytest.mark.parametrize("content", ["", "late 1.0 2.0\nparcel 1.0\n", "late a b\n"])
def test_files_that_are_no_vectors_are_explained(tmp_path, content):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(UserError, match=r"cannot be read as word vectors|holds no words"):
        convert(tmp_path / "x.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
