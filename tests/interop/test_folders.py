"""Laws of folders: theirs open here, ours open there, nothing in them is run or guessed."""

import json
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)

from clozeworks import tasks
from clozeworks.core.bundle import CARD, Calibration, Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import task_of
from clozeworks.interop.huggingface import (
    check_match,
    config_of,
    family_of,
    heads_of,
    labels_of,
    open_model,
    write_bundle,
)
from clozeworks.model.encoder import Encoder
from clozeworks.model.families.bert import Bert
from clozeworks.model.heads import Model, Pooler
from clozeworks.text.load import load_tokenizer
from tiny import CONFIG, LABELS, PIECES, TOKENIZER, gap, make_groups, make_model, make_task

AUTO = {
    "mlm": AutoModelForMaskedLM,
    "nsp": AutoModelForNextSentencePrediction,
    "mlm+nsp": AutoModelForPreTraining,
    "classify": AutoModelForSequenceClassification,
}


def written(folder, name, seed=0):
    """A random model of a task, and the folder it was written to."""
    task = make_task(name)
    model = make_model(task, seed=seed)
    card = Card(
        task=name,
        settings=task.settings,
        labels=task.labels or None,
        calibration=Calibration(temperature=1.7, threshold=0.4),
    )
    write_bundle(folder, model, TOKENIZER, card)
    return model


def opened_there(kind, folder):
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not told[trouble], trouble
    return model.eval()


def logits_of(model, name, batch):
    """What each head of ours says, in the order Hugging Face gives them."""
    x = model.encoder.encode(model.encoder.embed(batch), batch).x
    found = []
    if "mlm" in model.heads:
        head = model.heads["mlm"]
        found.append(F.linear(head(x), model.encoder.embeddings.tokens.weight, head.bias)[None])
    for other in ("nsp", "classify"):
        if other in model.heads:
            found.append(model.heads[other](model.pooled(x[batch.firsts], batch)))
    return found


@pytest.mark.parametrize("name", AUTO)
def test_what_we_write_opens_there_whole(name, tmp_path):
    model = written(tmp_path / "bundle", name)
    theirs = opened_there(AUTO[name], tmp_path / "bundle")
    batch = pack(make_groups([50]))
    answer = theirs(input_ids=batch.input_ids[None], token_type_ids=batch.segments[None])
    both = [getattr(answer, key, None) for key in ("prediction_logits", "seq_relationship_logits")]
    expected = [logits for logits in both if logits is not None] or [answer.logits]
    for ours, wanted in zip(logits_of(model, name, batch), expected, strict=True):
        assert gap(ours, wanted) < 1e-5
    text = "where is my parcel? 我要退款"
    ids = AutoTokenizer.from_pretrained(tmp_path / "bundle")(text)["input_ids"]
    assert ids == TOKENIZER.encode(text).ids.tolist()
    if name == "classify":
        assert [theirs.config.id2label[i] for i in range(3)] == LABELS


def test_a_bare_encoder_opens_there_whole(tmp_path):
    model = Model(Encoder(CONFIG), Pooler(CONFIG), {})
    write_bundle(tmp_path / "bare", model, TOKENIZER, Card())
    opened_there(AutoModel, tmp_path / "bare")
    again, fresh = open_model(open_bundle(tmp_path / "bare"), make_task("nsp"))
    assert fresh == ["heads.nsp"]
    assert torch.equal(again.pooler.dense.weight, model.pooler.dense.weight)


@pytest.mark.parametrize("name", AUTO)
def test_what_we_write_opens_here_bit_for_bit(name, tmp_path):
    model = written(tmp_path / "bundle", name)
    again, fresh = open_model(open_bundle(tmp_path / "bundle"), make_task(name), seed=9)
    assert fresh == []
    for (there, ours), (here, found) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert there == here
        assert torch.equal(ours, found)
    assert again.encoder.config == CONFIG
    write_bundle(tmp_path / "again", again, load_tokenizer(tmp_path / "bundle"), Card(task=name))
    first, second = (tmp_path / f / "model.safetensors" for f in ("bundle", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_bundle_keeps_task_labels_and_calibration(tmp_path):
    written(tmp_path, "classify")
    bundle = open_bundle(tmp_path)
    task = task_of(bundle, load_tokenizer(tmp_path))
    assert (task.name, task.labels) == ("classify", LABELS)
    assert task.calibration == Calibration(temperature=1.7, threshold=0.4)
    assert task.config.dropout == 0


def test_writing_replaces_the_folder_whole(tmp_path):
    written(tmp_path / "bundle", "mlm")
    (tmp_path / "bundle" / "stray").write_text("x")
    written(tmp_path / "bundle", "classify")
    assert not (tmp_path / "bundle" / "stray").exists()
    assert open_bundle(tmp_path / "bundle").card.task == "classify"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


# === Theirs, as they come ===


@pytest.fixture
def their_folder(tmp_path):
    values = {**Bert().values(CONFIG), "id2label": dict(enumerate(LABELS))}
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**values)).save_pretrained(tmp_path)
    return tmp_path


def rewritten(folder, change):
    """The folder's weights after `change`, in their place."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def same_model(folder, other):
    for ours, theirs in zip(folder.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_bin_weights_open_the_same(their_folder):
    task = make_task("classify")
    expected = open_model(open_bundle(their_folder), task).model
    file = their_folder / "model.safetensors"
    torch.save(load_file(file), their_folder / "pytorch_model.bin")
    file.unlink()
    found = open_model(open_bundle(their_folder), task)
    assert found.fresh == []
    same_model(found.model, expected)


def test_weights_in_several_files_open_the_same(their_folder):
    task = make_task("classify")
    expected = open_model(open_bundle(their_folder), task).model
    state = load_file(their_folder / "model.safetensors")
    names = sorted(state)
    places = {}
    for i, part in enumerate((names[:20], names[20:]), 1):
        path = their_folder / f"model-0000{i}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, path)
        places |= dict.fromkeys(part, path.name)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (their_folder / "model.safetensors.index.json").write_text(index)
    (their_folder / "model.safetensors").unlink()
    same_model(open_model(open_bundle(their_folder), task).model, expected)


def test_old_names_and_buffers_are_read_past(their_folder):
    task = make_task("classify")
    expected = open_model(open_bundle(their_folder), task).model

    def old(state):
        names = {
            n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            for n in state
        }
        buffer = {"bert.embeddings.position_ids": torch.arange(160)[None]}
        return {names[n]: t for n, t in state.items()} | buffer

    rewritten(their_folder, old)
    found = open_model(open_bundle(their_folder), task)
    assert found.fresh == []
    same_model(found.model, expected)


def test_a_bare_encoder_without_prefix_opens(tmp_path):
    theirs = BertModel(BertConfig(**Bert().values(CONFIG)))
    theirs.save_pretrained(tmp_path)
    assert not any(n.startswith("bert.") for n in load_file(tmp_path / "model.safetensors"))
    found = open_model(open_bundle(tmp_path), make_task("classify"))
    assert found.fresh == ["heads.classify"]
    words = theirs.embeddings.word_embeddings.weight
    assert torch.equal(found.model.encoder.embeddings.tokens.weight, words)
    assert torch.equal(found.model.pooler.dense.weight, theirs.pooler.dense.weight)


def test_an_encoder_without_pooler_opens_with_a_fresh_one(tmp_path):
    BertForMaskedLM(BertConfig(**Bert().values(CONFIG))).save_pretrained(tmp_path)
    first = open_model(open_bundle(tmp_path), make_task("classify"), seed=3)
    again = open_model(open_bundle(tmp_path), make_task("classify"), seed=3)
    other = open_model(open_bundle(tmp_path), make_task("classify"), seed=4)
    assert first.fresh == ["heads.classify", "pooler"]
    same_model(first.model, again.model)
    assert not torch.equal(first.model.pooler.dense.weight, other.model.pooler.dense.weight)


def test_a_head_of_other_labels_is_not_taken(their_folder):
    task = make_task("classify", labels=["refund", "delivery", "other"])
    assert open_model(open_bundle(their_folder), task).fresh == ["heads.classify"]


def test_labels_their_config_leaves_unsaid_are_known(tmp_path):
    BertForSequenceClassification(BertConfig(**Bert().values(CONFIG))).save_pretrained(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    TOKENIZER.save(tmp_path)
    bundle = open_bundle(tmp_path)
    assert labels_of(bundle) == ["LABEL_0", "LABEL_1"]
    assert open_model(bundle, task_of(bundle, load_tokenizer(tmp_path))).fresh == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"problem_type": "single_label_classification"}, "single"),
        ({}, "single"),
        ({"problem_type": "regression"}, "regression"),
        ({"problem_type": "multi_label_classification"}, "multi"),
        ({"id2label": {"0": "score"}}, "regression"),
    ],
    ids=str,
)
def test_a_classifier_is_of_the_kind_its_config_says_or_implies(changes, kind, their_folder):
    TOKENIZER.save(their_folder)
    task = task_of(with_config(their_folder, changes), TOKENIZER)
    assert task.config.kind == kind
    assert task.labels == (["score"] if "id2label" in changes else LABELS)


def test_minilm_is_equal_in_every_layer(minilm_folder):
    tokenizer, theirs = load_tokenizer(minilm_folder), AutoModel.from_pretrained(minilm_folder)
    state = load_file(minilm_folder / "model.safetensors")
    assert state["embeddings.position_ids"].dtype == torch.int64
    model, fresh = open_model(
        open_bundle(minilm_folder), tasks.create("nsp", {}, tokenizer.vocabulary)
    )
    assert fresh == ["heads.nsp"]
    texts = ["How do I get a refund?", "a much longer text, " * 20, "我要退款"]
    batch = pack([Group(i, [tokenizer.encode(text)]) for i, text in enumerate(texts)])
    seen = model.eval().encoder.encode(model.encoder.embed(batch), batch, want=["hidden"])
    fast = model.encoder.encode(model.encoder.embed(batch), batch).x
    given = AutoTokenizer.from_pretrained(minilm_folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        answer = theirs.eval()(**given, output_hidden_states=True)
    real = given["attention_mask"].bool()
    assert torch.equal(given["input_ids"][real], batch.input_ids)
    for ours, wanted in zip(seen.hidden, answer.hidden_states, strict=True):
        assert gap(ours, wanted[real]) < 1e-5
    assert gap(fast, answer.last_hidden_state[real]) < 1e-5
    assert gap(model.pooled(fast[batch.firsts], batch), answer.pooler_output) < 1e-5


# === What is refused ===


class Bomb:
    """Runs code when it is unpickled by someone careless."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_never_runs(form, their_folder, tmp_path):
    state = load_file(their_folder / "model.safetensors")
    (their_folder / "model.safetensors").unlink()
    poisoned = {**state, "bomb": Bomb(tmp_path / "ran")}
    if form == "torch":
        torch.save(poisoned, their_folder / "pytorch_model.bin")
    else:
        (their_folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), 2))
    with pytest.raises(UserError, match=r"pytorch_model\.bin.*more than tensors") as refusal:
        open_model(open_bundle(their_folder), make_task("classify"))
    assert "weights_only" not in str(refusal.value)  # no advice to run it after all
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kept", [0, 7, 0.5])
def test_a_cut_file_is_said_to_be_damaged(name, kept, their_folder):
    file = their_folder / "model.safetensors"
    if name.endswith(".bin"):
        torch.save(load_file(file), their_folder / name)
        file.unlink()
    whole = (their_folder / name).read_bytes()
    (their_folder / name).write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(UserError, match=f"{name} is damaged or cut short.*copy it again"):
        open_model(open_bundle(their_folder), make_task("classify"))


def test_weights_that_are_no_tensors_by_name_are_refused(their_folder):
    (their_folder / "model.safetensors").unlink()
    torch.save([torch.zeros(3)], their_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        open_model(open_bundle(their_folder), make_task("classify"))


def test_missing_and_misshapen_tensors_are_named(their_folder):
    key = "bert.encoder.layer.1.attention.self.key.weight"
    whole = load_file(their_folder / "model.safetensors")
    rewritten(their_folder, lambda state: {n: t for n, t in state.items() if n != key})
    with pytest.raises(UserError, match=f"but not '{key}'"):
        open_model(open_bundle(their_folder), make_task("classify"))
    gone = "bert.encoder.layer.2.output.dense.bias"
    rewritten(their_folder, lambda state: {n: t for n, t in whole.items() if n != gone})
    with pytest.raises(UserError, match=f"the weights lack {re.escape(gone)}"):
        open_model(open_bundle(their_folder), make_task("classify"))
    rewritten(their_folder, lambda state: whole | {gone: torch.zeros(31)})
    with pytest.raises(UserError, match=r"should be \[32\], \[31\] there"):
        open_model(open_bundle(their_folder), make_task("classify"))


OTHER_NUMBERS = [
    torch.int8,
    torch.uint16,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("dtype", OTHER_NUMBERS, ids=str)
@pytest.mark.parametrize("end", ["layer.1.output.dense.weight", "self.key.bias", "classifier.bias"])
def test_weights_of_other_numbers_are_refused(end, dtype, their_folder):
    def change(state):
        return {n: t.to(dtype) if n.endswith(end) else t for n, t in state.items()}

    rewritten(their_folder, change)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=f"{end} holds numbers of type {kind}, .*float32"):
        open_model(open_bundle(their_folder), make_task("classify"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_any_floats_are_taken(dtype, their_folder):
    expected = load_file(their_folder / "model.safetensors")["classifier.weight"].to(dtype).float()
    rewritten(their_folder, lambda state: {n: t.to(dtype) for n, t in state.items()})
    model, fresh = open_model(open_bundle(their_folder), make_task("classify"))
    assert fresh == []
    assert torch.equal(model.heads["classify"].dense.weight, expected)


ODD = {
    "a number for a name": lambda t: {3: t},
    "sparse": lambda t: {"classifier.weight": t.to_sparse()},
    "sparse rows": lambda t: {"classifier.weight": t.to_sparse_csr()},
    "meta": lambda t: {"classifier.weight": t.to("meta")},
    "quantized": lambda t: {"classifier.weight": torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)},
    "one number many times": lambda t: {"classifier.weight": t[:1, :1].expand(10**9, 10**9)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_tensors_in_a_bin_file_are_refused_in_one_line(odd, their_folder):
    state = load_file(their_folder / "model.safetensors")
    (their_folder / "model.safetensors").unlink()
    torch.save({**state, **odd(state["classifier.weight"])}, their_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin.* save the model|by name") as refusal:
        open_model(open_bundle(their_folder), make_task("classify"))
    assert "\n" not in str(refusal.value)


def with_config(folder, changes):
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))
    return open_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberto"}, "model_type 'roberto' is not known"),
        ({"hidden_act": "geluu"}, "hidden_act 'geluu'.*did you mean 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "relative_key.*not supported"),
        ({"is_decoder": True}, "a decoder is not an encoder"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_attention_heads": 5}, "not a multiple of 5 heads"),
        ({"vocab_size": None}, "vocab_size"),
        ({"num_hidden_layers": "many"}, "num_layers"),
        ({"num_hidden_layers": 10**6}, "num_layers = 1000000"),
        (
            {"hidden_size": 65_536},
            r"word_embeddings\.weight should be \[\d+, 65536\], \[\d+, 32\]",
        ),
        ({"vocab_size": 10_000_000}, r"should be \[10000000, 32\]"),
        ({"id2label": {"zero": "no"}}, "id2label should name a label for each number"),
        ({"id2label": ["no", "yes"]}, "id2label should name a label for each number"),
    ],
    ids=str,
)
def test_configs_of_other_models_are_refused_in_one_line(changes, message, their_folder):
    bundle = with_config(their_folder, changes)
    with pytest.raises(UserError, match=message) as refusal:
        open_model(bundle, make_task("classify"))
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(their_folder))


def test_what_a_config_leaves_at_null_is_as_if_not_there(their_folder):
    config = config_of(open_bundle(their_folder))
    nulls = {"model_type": None, "hidden_act": None, "position_embedding_type": None}
    assert config_of(with_config(their_folder, nulls)) == config
    assert heads_of(with_config(their_folder, {"architectures": "BertModel"})) == frozenset()


def test_a_card_that_names_a_label_twice_is_refused(tmp_path):
    written(tmp_path / "bundle", "mlm")
    (tmp_path / "bundle" / CARD).write_text('{"format": 1, "labels": ["a", "b", "a"]}')
    with pytest.raises(UserError, match="'a' is there twice"):
        open_bundle(tmp_path / "bundle")


def test_folders_that_are_no_models_are_explained(tmp_path):
    with pytest.raises(UserError, match="absent does not exist; name") as absent:
        open_bundle(tmp_path / "absent")
    assert "hub:OWNER/NAME" in str(absent.value) and "clozeworks-mini" in str(absent.value)
    with pytest.raises(UserError, match="not a model folder"):
        open_bundle(tmp_path)
    written(tmp_path / "bundle", "mlm")
    with pytest.raises(UserError, match=r"did you mean .*bundle"):
        open_bundle(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        open_bundle(tmp_path / "bundle" / "config.json")
    (tmp_path / "bundle" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        open_model(open_bundle(tmp_path / "bundle"), make_task("mlm"))
    (tmp_path / "bundle" / CARD).write_text('{"format": 1, "lables": []}')
    with pytest.raises(UserError, match="unknown key 'lables'; did you mean 'labels'"):
        open_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "config.json").write_text('{"hidden')
    with pytest.raises(UserError, match="damaged or cut short"):
        open_bundle(tmp_path / "bundle")


def test_only_models_are_named_where_one_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "bert-base", "mlm")
    written(tmp_path / "run" / "bundle", "mlm")
    written(tmp_path / ".cache", "mlm")
    (tmp_path / "bert-bas.txt").write_text("no model", "utf-8")
    (tmp_path / "shards").mkdir()
    with pytest.raises(UserError, match=r"did you mean 'bert-base'\?") as refusal:
        open_bundle("bert-bas")
    assert "(choices: bert-base, run/bundle); name one" in str(refusal.value)
    with pytest.raises(UserError, match="nowhere/bert does not exist; name one"):
        open_bundle("nowhere/bert")


def test_a_tokenizer_of_another_model_is_refused():
    check_match(TOKENIZER, len(PIECES), "x")
    check_match(TOKENIZER, len(PIECES) + 10, "x")
    with pytest.raises(UserError, match="do not belong together"):
        check_match(TOKENIZER, len(PIECES) - 1, "x")


def test_the_family_is_read_from_the_config(their_folder):
    assert isinstance(family_of(open_bundle(their_folder)), Bert)
