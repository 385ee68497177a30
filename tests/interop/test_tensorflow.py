"""Laws of TensorFlow checkpoints: read tensor for tensor, and no damage goes unseen."""

import json
import random
import shutil
import tracemalloc

import pytest
import torch
from tf_writer import write_checkpoint
from transformers import BertConfig, BertForPreTraining, ElectraConfig, ElectraForMaskedLM

from clozeworks import api
from clozeworks.core.bundle import open_bundle, read_json
from clozeworks.core.errors import UserError
from clozeworks.interop import tensorflow
from clozeworks.interop.huggingface import heads_of
from clozeworks.interop.sstable import masked_crc, read_table
from clozeworks.interop.tensorflow import find_checkpoint, read_checkpoint, to_huggingface
from clozeworks.interop.tensors import read_tensors
from clozeworks.model.families import FAMILIES
from tiny import gap

INDEX, DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"


@pytest.fixture
def checkpoint(public_weights, tmp_path):
    """A copy of a real checkpoint, with files that may be written."""
    folder = tmp_path / "tf"
    folder.mkdir()
    for file in (public_weights / "tf-bert-tiny-test").iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


def their_model(state, config):
    model = BertForPreTraining(BertConfig(**config)).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("decoder" in name or "position_ids" in name for name in missing)
    model.tie_weights()
    return model


def test_a_real_checkpoint_is_read_tensor_for_tensor(checkpoint):
    tensors = read_checkpoint(find_checkpoint(checkpoint))
    assert len(tensors) == 46  # 139 in all: two moments each, and global_step
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert tensors["bert/embeddings/word_embeddings"].shape == (15, 4)
    assert tensors["bert/encoder/layer_0/intermediate/dense/kernel"].shape == (4, 16)
    state = to_huggingface(tensors, FAMILIES.get("bert")())
    up = tensors["bert/encoder/layer_0/intermediate/dense/kernel"]
    assert torch.equal(state["bert.encoder.layer.0.intermediate.dense.weight"], up.t())
    nsp = tensors["cls/seq_relationship/output_weights"]
    assert torch.equal(state["cls.seq_relationship.weight"], nsp)


def test_it_says_what_hugging_faces_model_of_the_same_weights_says(checkpoint, tmp_path):
    made = api.convert(api.ConvertRecipe(source=checkpoint, out=tmp_path / "out"))
    assert (made.family, made.heads, made.difference) == ("bert", ["mlm", "nsp"], 0.0)
    config = read_json(checkpoint / "bert_config.json")
    tensors = read_checkpoint(find_checkpoint(checkpoint))
    theirs = their_model(to_huggingface(tensors, FAMILIES.get("bert")()), config)
    ours, told = BertForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    ids = torch.tensor([[2, 5, 6, 7, 3, 8, 9, 3]])
    for one, other in zip(ours.eval()(ids).to_tuple(), theirs(ids).to_tuple(), strict=True):
        assert gap(one, other) < 1e-6
    written = read_tensors(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(written[n], t) for n, t in theirs.state_dict().items() if n in written)
    assert heads_of(open_bundle(tmp_path / "out")) == {"mlm", "nsp"}


def test_the_epsilon_can_be_set(checkpoint, tmp_path):
    recipe = api.ConvertRecipe(source=checkpoint, out=tmp_path / "out", norm_eps=1e-3)
    api.convert(recipe)
    assert read_json(tmp_path / "out" / "config.json")["layer_norm_eps"] == 1e-3


def test_a_classifier_trained_with_googles_code_is_kept(checkpoint, tmp_path, monkeypatch):
    tensors = read_checkpoint(find_checkpoint(checkpoint))
    tensors = {name: t for name, t in tensors.items() if not name.startswith("cls/")}
    head = {"output_weights": torch.randn(3, 4), "output_bias": torch.randn(3)}
    monkeypatch.setattr(tensorflow, "read_checkpoint", lambda prefix: {**tensors, **head})
    made = api.convert(api.ConvertRecipe(source=find_checkpoint(checkpoint), out=tmp_path / "out"))
    assert (made.heads, made.difference) == (["classify"], 0.0)
    written = read_tensors(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["classifier.weight"], head["output_weights"])
    labels = open_bundle(tmp_path / "out").card.labels
    assert labels == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize(
    ("name", "keys", "one"),
    [
        ("google_bert_pr_chinese", 207, b"bert/encoder/layer_11/output/dense/kernel"),
        ("albert_small_zh_google", 98, b"bert/encoder/embedding_hidden_mapping_in/kernel"),
    ],
)
def test_real_indexes_are_read(public_weights, name, keys, one):
    """The second holds a snappy-compressed block."""
    table = read_table(public_weights / "tf-index" / f"{name}.ckpt.index")
    assert len(table) == keys and one in table and list(table) == sorted(table)


def test_alberts_names_lead_to_hugging_faces(public_weights):
    table = read_table(public_weights / "tf-index" / "albert_small_zh_google.ckpt.index")
    names = [key.decode() for key in table if key and b"adam" not in key and key != b"global_step"]
    renamed = to_huggingface(dict.fromkeys(names, torch.zeros(2, 2)), FAMILIES.get("albert")())
    family = FAMILIES.get("albert")()
    config = family.config({"vocab_size": 9, "num_hidden_layers": 6, "num_attention_heads": 4})
    table = family.names(frozenset({"mlm", "sop"}))
    known = {
        n.format(*family.layers(config))
        for row in table.values()
        for n in ([row] if isinstance(row, str) else row)
    }
    assert renamed.keys() == known


def test_electras_names_lead_to_hugging_faces():
    names = {
        "electra/encoder/layer_3/attention/self/query/kernel": (
            "electra.encoder.layer.3.attention.self.query.weight"
        ),
        "electra/embeddings_project/bias": "electra.embeddings_project.bias",
        "discriminator_predictions/dense_1/kernel": (
            "discriminator_predictions.dense_prediction.weight"
        ),
        "generator_predictions/LayerNorm/gamma": "generator_predictions.LayerNorm.weight",
        "generator_predictions/output_bias": "generator_lm_head.bias",
    }
    found = to_huggingface(dict.fromkeys(names, torch.zeros(1, 1)), FAMILIES.get("electra")())
    assert list(found) == list(names.values())


def test_a_checksum_is_leveldbs():
    assert masked_crc(b"") == 0xA282EAD8
    assert masked_crc(b"foo") != masked_crc(b"bar")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def damaged(checkpoint, file, content, whole):
    """Read a checkpoint one of whose files is altered: an error, or the very same tensors."""
    (checkpoint / file).write_bytes(content)
    try:
        found = read_checkpoint(checkpoint / "bert_model.ckpt")
    except UserError as error:
        assert "\n" not in str(error)
        return True
    assert same(found, whole)
    return False


def flips(checkpoint, count):
    whole = read_checkpoint(checkpoint / "bert_model.ckpt")
    draw = random.Random(0)
    tracemalloc.start()
    for _ in range(count):
        file = draw.choice([INDEX, DATA])
        content = bytearray((checkpoint / file).read_bytes())
        before = bytes(content)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        seen = damaged(checkpoint, file, content, whole)
        (checkpoint / file).write_bytes(before)
        assert seen
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


def cuts(checkpoint, step):
    whole = read_checkpoint(checkpoint / "bert_model.ckpt")
    for file in (INDEX, DATA):
        content = (checkpoint / file).read_bytes()
        for length in range(0, len(content), step):
            assert damaged(checkpoint, file, content[:length], whole)
        (checkpoint / file).write_bytes(content)


def test_flipped_bits_are_found(checkpoint):
    flips(checkpoint, 500)


def test_cut_files_are_found(checkpoint):
    cuts(checkpoint, 97)


@pytest.mark.slow
def test_ten_thousand_flipped_bits_and_every_cut_are_found(checkpoint):
    flips(checkpoint, 10_000)
    cuts(checkpoint, 1)


def test_missing_parts_are_named(checkpoint, tmp_path):
    (checkpoint / DATA).rename(checkpoint / "elsewhere")
    with pytest.raises(UserError, match=rf"{DATA} does not exist"):
        read_checkpoint(checkpoint / "bert_model.ckpt")
    (checkpoint / "bert_config.json").unlink()
    (checkpoint / "elsewhere").rename(checkpoint / DATA)
    with pytest.raises(UserError, match="holds no config"):
        api.convert(api.ConvertRecipe(source=checkpoint, out=tmp_path / "out"))
    shutil.copyfile(checkpoint / INDEX, checkpoint / "other.ckpt.index")
    with pytest.raises(UserError, match=r"several checkpoints; .*bert_model\.ckpt, other\.ckpt"):
        find_checkpoint(checkpoint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [INDEX, DATA, "bert_config.json", "vocab.txt"])
def test_links_never_lead_out_of_the_folder(name, checkpoint, tmp_path):
    (checkpoint / name).rename(tmp_path / name)
    (checkpoint / name).symlink_to(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is a link that leads out"):
        api.convert(api.ConvertRecipe(source=checkpoint, out=tmp_path / "out"))


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_checkpoint_in_several_data_files_is_read_whole(shards, checkpoint, tmp_path):
    whole = read_checkpoint(checkpoint / "bert_model.ckpt")
    prefix = tmp_path / "parts" / "model.ckpt"
    prefix.parent.mkdir()
    write_checkpoint(prefix, whole, shards)
    assert len(list(prefix.parent.glob("*.data-*"))) == shards
    assert same(read_checkpoint(find_checkpoint(prefix.parent)), whole)
    last = prefix.with_name(f"model.ckpt.data-{shards - 1:05d}-of-{shards:05d}")
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    with pytest.raises(UserError, match=rf"{last.name}: the checksum of .* is wrong"):
        read_checkpoint(prefix)
    last.unlink()
    with pytest.raises(UserError, match=rf"{last.name} does not exist"):
        read_checkpoint(prefix)


def googles_electra(theirs):
    """An ELECTRA generator's tensors by the names Google's code gives them."""
    renamed = {}
    for name, tensor in theirs.items():
        product = name.endswith(".weight") and tensor.dim() == 2 and "_embeddings." not in name
        name = name.replace("generator_lm_head.bias", "generator_predictions/output_bias")
        name = name.replace("_embeddings.weight", "_embeddings").replace("layer.", "layer_")
        norm = "LayerNorm" in name
        name = name.replace(".weight", ".gamma" if norm else ".kernel")
        name = (name.replace(".bias", ".beta") if norm else name).replace(".", "/")
        renamed[name] = tensor.t() if product else tensor
    return renamed


def test_googles_electra_generator_says_what_hugging_faces_says(checkpoint, tmp_path):
    values = {
        **read_json(checkpoint / "bert_config.json"),
        "embedding_size": 6,
        "model_type": "electra",
    }
    (checkpoint / "bert_config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    theirs = ElectraForMaskedLM(ElectraConfig(**values)).eval()
    with torch.no_grad():
        theirs.generator_lm_head.bias.normal_()
    state = {n: t for n, t in theirs.state_dict().items() if n != "generator_lm_head.weight"}
    for file in (INDEX, DATA):
        (checkpoint / file).unlink()
    write_checkpoint(checkpoint / "electra.ckpt", googles_electra(state), 2)
    made = api.convert(api.ConvertRecipe(source=checkpoint, out=tmp_path / "out"))
    assert (made.family, made.heads, made.difference) == ("electra", ["mlm"], 0.0)
    ours = ElectraForMaskedLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.tensor([[2, 5, 6, 7, 3, 8, 9, 3]])
    assert gap(ours(ids).logits, theirs(ids).logits) < 1e-6
