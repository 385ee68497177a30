"""Folders of sentence-transformers: theirs are used at once, ours give the same vectors there."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModel

from clozeworks import api
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.interop.sentences import said_of
from clozeworks.tasks import create
from clozeworks.tasks.embed import EmbedExample
from tiny import TOKENIZER, VOCABULARY, gap, make_model

TEXTS = [
    "where is my parcel?",
    "我要退款！",
    "a",
    "please, the order is late and lost",
    "ＡＢ é 👩‍👩‍👧",
]


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("sentence_transformers")


def vectors_of(engine, texts):
    found = engine.predict([EmbedExample(text=text) for text in texts])
    return torch.tensor(np.stack([np.asarray(p.vector) for p in found]))


def written(folder, **given):
    """A random model of sentence vectors, and the folder it was written to."""
    task = create("embed", given, VOCABULARY)
    model = make_model(task)
    write_bundle(folder, model, TOKENIZER, Card(task="embed", settings=task.settings))
    return Engine(model, task, TOKENIZER)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [False, True])
def test_what_we_write_gives_the_same_vectors_there(library, tmp_path, pooling, normalize):
    engine = written(tmp_path / "bundle", pooling=pooling, normalize=normalize, max_length=64)
    theirs = library.SentenceTransformer(str(tmp_path / "bundle"), device="cpu")
    assert theirs.max_seq_length == 64
    wanted = theirs.encode(TEXTS, convert_to_tensor=True)
    assert float((vectors_of(engine, TEXTS) - wanted).abs().max()) < 1e-5
    again = Engine.open(tmp_path / "bundle", torch.device("cpu"), torch.float32)
    assert torch.equal(vectors_of(again, TEXTS), vectors_of(engine, TEXTS))
    theirs.save_pretrained(str(tmp_path / "theirs"))  # and back, as that library writes it
    back = Engine.open(tmp_path / "theirs", torch.device("cpu"), torch.float32)
    assert gap(vectors_of(back, TEXTS), wanted) < 1e-5
    assert back.task.settings == engine.task.settings


def test_it_opens_in_transformers_whole(tmp_path):
    engine = written(tmp_path / "bundle")
    theirs, told = AutoModel.from_pretrained(tmp_path / "bundle", output_loading_info=True)
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not told[trouble], trouble
    sequence = TOKENIZER.encode(TEXTS[0])
    out = theirs.eval()(input_ids=torch.tensor(sequence.ids)[None]).last_hidden_state[0]
    assert gap(vectors_of(engine, TEXTS[:1])[0], out.mean(0)) < 1e-5


def test_the_pooler_of_the_folder_it_is_from_is_kept(tmp_path):
    written(tmp_path / "one")
    first, _ = AutoModel.from_pretrained(tmp_path / "one", output_loading_info=True)
    with torch.no_grad():
        first.pooler.dense.weight.fill_(0.25)
    first.save_pretrained(tmp_path / "one")
    task = create("embed", {}, VOCABULARY)
    opened = open_model(open_bundle(tmp_path / "one"), task)
    assert opened.fresh == []
    write_bundle(tmp_path / "two", opened.model, TOKENIZER, Card(task="embed"))
    again = AutoModel.from_pretrained(tmp_path / "two")
    assert bool((again.pooler.dense.weight == 0.25).all())


def test_real_weights_are_used_at_once(library, minilm_folder, public_data, tmp_path):
    """The vectors of all-MiniLM-L6-v2 through the verbs, of texts and of pairs."""
    theirs = library.SentenceTransformer(str(minilm_folder), device="cpu")
    rows = [{"text": TEXTS[i], "text_pair": TEXTS[i + 1]} for i in range(4)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    recipe = {"model": minilm_folder, "data": data, "precision": "fp32", "device": "cpu"}
    api.predict(api.PredictRecipe(out=tmp_path / "out.jsonl", **recipe))
    found = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").open()]
    wanted = theirs.encode([row["text"] for row in rows])
    assert np.abs(np.array([f["vector"] for f in found]) - wanted).max() < 1e-5
    others = theirs.encode([row["text_pair"] for row in rows])
    alike = [float(a @ b) for a, b in zip(wanted, others, strict=True)]
    assert [f["similarity"] for f in found] == pytest.approx(alike, abs=1e-5)
    assert (
        "mean of its tokens, of length 1; windows of 256"
        in api.info(api.InfoRecipe(path=minilm_folder))["vectors"]
    )


def test_real_weights_order_scored_pairs_as_people_do(minilm_folder, public_data, tmp_path):
    judged = api.evaluate(
        api.EvaluateRecipe(
            model=minilm_folder,
            data=_head(public_data / "stsb" / "dev.jsonl.gz", tmp_path, 200),
            out=tmp_path / "report",
            columns={"text": "text_a", "text_pair": "text_b", "score": "label"},
            device="cpu",
        )
    )
    assert judged.evaluation.spearman.estimate > 0.8


def _head(path, folder, count):
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = [next(stream) for _ in range(count)]
    (folder / "head.jsonl").write_text("".join(lines), "utf-8")
    return folder / "head.jsonl"


def test_conversion_keeps_what_makes_vectors(folder, tmp_path):
    api.convert(api.ConvertRecipe(source=folder, out=tmp_path / "out"))
    before, after = (
        Engine.open(path, torch.device("cpu"), torch.float32) for path in (folder, tmp_path / "out")
    )
    assert after.task.settings == before.task.settings
    assert torch.equal(vectors_of(after, TEXTS), vectors_of(before, TEXTS))
    assert said_of("embed", open_bundle(tmp_path / "out"))["normalize"] is True


# === What is not known here ===


@pytest.fixture
def folder(tmp_path):
    """A folder as sentence-transformers writes it, without a card."""
    written(tmp_path / "bundle", normalize=True)
    (tmp_path / "bundle" / "clozeworks.json").unlink()
    return tmp_path / "bundle"


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_a_folder_says_is_taken_from_it(folder):
    found = said_of("embed", open_bundle(folder))
    assert found == {"pooling": "mean", "normalize": True, "max_length": 128}
    assert said_of("classify", open_bundle(folder)) == {}
    changed(folder / "sentence_bert_config.json", max_seq_length=None)
    assert said_of("embed", open_bundle(folder))["max_length"] == 160, "all of its positions"
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(UserError, match=r"1_Pooling/config\.json does not exist"):
        said_of("embed", open_bundle(folder))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling mean [+] max is not"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "pooling lasttoken is not known"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "ask: "}, "default_prompt_name": "query"},
            "before each text stands a prompt there .'ask: '.",
        ),
    ],
)
def test_what_would_change_the_vectors_is_refused(folder, name, values, message):
    changed(folder / name, **values)
    with pytest.raises(UserError, match=message):
        Engine.open(folder, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([{"type": "x.Transformer", "path": ""}], "names no Transformer and Pooling"),
        ([{"type": "x.Dense", "path": ""}], "a module 'Dense', which is not known here"),
        ([{"type": "x.Pooling", "path": "../1"}, {"type": "x.Transformer"}], "names '../1', which"),
        ({"a": 1}, "should hold a list of modules"),
    ],
)
def test_modules_that_are_not_known_are_refused(folder, modules, message):
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=message):
        Engine.open(folder, torch.device("cpu"), torch.float32)
