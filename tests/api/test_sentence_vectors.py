"""Sentence vectors through the verbs: learned from rows of any kind, judged, predicted."""

import csv
import json
from itertools import islice

import numpy as np
import pytest

from clozeworks import api, cli
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from tiny import CHINESE, TOKENIZER, WORDS, make_model, make_task

TEXTS = [f"{a} {b} {c}" for a in WORDS[:4] for b in WORDS[4:9] for c in CHINESE[:2]]
ROWS = {
    "pairs": [{"text": t, "positive": f"my {t}", "negatives": ["lost"]} for t in TEXTS],
    "scored": [
        {"text": t, "text_pair": f"{t} a" if i % 2 else "where is", "score": 5 * (i % 2)}
        for i, t in enumerate(TEXTS)
    ],
    "texts": [{"text": t} for t in TEXTS],
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A tiny encoder, and rows of each kind."""
    folder = tmp_path_factory.mktemp("desk")
    write_bundle(folder / "bert", make_model(make_task("mlm")), TOKENIZER, Card(task="mlm"))
    for name, rows in ROWS.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def learned(desk, name, out, **given):
    settings = {"max_length": 16, **given.pop("settings", {})}
    train = {"duration": "4 steps", "precision": "fp32", **given.pop("train", {})}
    return api.finetune(
        api.FinetuneRecipe(
            task="embed",
            data=desk / f"{name}.jsonl",
            model=desk / "bert",
            out=out,
            settings=settings,
            train=train,
            device="cpu",
            **given,
        )
    )


@pytest.fixture(scope="module")
def bundles(desk):
    return {name: learned(desk, name, desk / f"run-{name}").bundle for name in ROWS}


NUMBERS = {"pairs": "mrr@10", "scored": "spearman", "texts": "spread"}


@pytest.mark.parametrize("name", ROWS)
def test_every_kind_of_rows_is_learned_from_and_kept(desk, bundles, name):
    card = open_bundle(bundles[name]).card
    objective = {"pairs": "contrastive", "scored": "cosent", "texts": "simcse"}[name]
    assert card.settings["objective"] == objective and card.settings["pooling"] == "mean"
    assert (bundles[name] / "1_Pooling" / "config.json").exists()
    lines = api.info(api.InfoRecipe(path=bundles[name]))
    assert lines["task"] == "embed" and lines["vectors"].endswith("windows of 16")
    again = learned(desk, name, desk / f"run-{name}")
    assert NUMBERS[name] in again.dev


def test_learning_from_texts_is_judged_by_scores(desk, tmp_path):
    dev, keep = desk / "scored.jsonl", {"keep_best": "spearman"}
    made = learned(desk, "texts", tmp_path / "run", dev=dev, train=keep)
    assert made.dev.keys() == {"spearman", "pearson"} and (tmp_path / "run" / "best").exists()
    with pytest.raises(UserError, match=r"keep_best.*choices: spearman, pearson"):
        learned(desk, "pairs", tmp_path / "no", dev=dev, train={"keep_best": "mrr@10"})


def test_going_on_from_sentence_vectors_takes_their_settings(desk, bundles, tmp_path):
    recipe = {"task": "embed", "data": desk / "scored.jsonl", "device": "cpu"}
    parent = learned(
        desk, "pairs", tmp_path / "cls", settings={"pooling": "cls", "normalize": True}
    ).bundle
    train = {"duration": "1 steps"}
    made = api.finetune(api.FinetuneRecipe(model=parent, out=tmp_path / "b", train=train, **recipe))
    settings = open_bundle(made.bundle).card.settings
    assert (settings["pooling"], settings["normalize"], settings["max_length"]) == ("cls", True, 16)
    assert settings["objective"] == "cosent", "what is learned, the rows decide"


@pytest.mark.parametrize("name", ["pairs", "scored"])
def test_reports_are_of_what_the_rows_have(desk, bundles, tmp_path, name):
    for language in ("en", "zh"):
        recipe = {"model": bundles["texts"], "data": desk / f"{name}.jsonl", "language": language}
        judged = api.evaluate(api.EvaluateRecipe(out=tmp_path / language, device="cpu", **recipe))
        assert judged.report.read_text("utf-8").count("<svg") >= 1
    assert judged.evaluation.kind == name
    other = "pairs" if name == "scored" else "scored"
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join(json.dumps(ROWS[n][0]) for n in (name, other)), "utf-8")
    with pytest.raises(
        UserError, match=r"row 2 has a .* where the first row has a .*judge rows of one kind"
    ):
        api.evaluate(api.EvaluateRecipe(model=bundles["texts"], data=mixed, device="cpu"))


def test_rows_without_an_answer_are_not_judged(desk, bundles):
    with pytest.raises(UserError, match="row 1 has neither a positive nor a score"):
        api.evaluate(api.EvaluateRecipe(model=bundles["texts"], data=desk / "texts.jsonl"))


def test_columns_of_training_do_not_bind_other_files(desk, tmp_path):
    (tmp_path / "q.jsonl").write_text(
        "\n".join(json.dumps({"q": r["text"], "dup": r["positive"]}) for r in ROWS["pairs"])
    )
    (tmp_path / "s.jsonl").write_text(
        "\n".join(
            json.dumps({"q": r["text"], "b": r["text_pair"], "s": r["score"]})
            for r in ROWS["scored"]
        )
    )
    bundle = api.finetune(
        api.FinetuneRecipe(
            task="embed",
            data=tmp_path / "q.jsonl",
            model=desk / "bert",
            out=tmp_path / "run",
            columns={"text": "q", "positive": "dup"},
            train={"duration": "1 steps"},
            device="cpu",
        )
    ).bundle
    columns = {"text_pair": "b", "score": "s"}
    recipe = {"model": bundle, "data": tmp_path / "s.jsonl", "columns": columns, "device": "cpu"}
    assert api.evaluate(api.EvaluateRecipe(**recipe)).evaluation.kind == "scored"


def test_vectors_go_into_a_file_of_numpys(desk, bundles, tmp_path):
    recipe = {"model": bundles["scored"], "data": desk / "scored.jsonl", "device": "cpu"}
    recipe["precision"] = "fp32"
    api.predict(api.PredictRecipe(out=tmp_path / "a.jsonl", **recipe))
    whole = [json.loads(line)["prediction"] for line in (tmp_path / "a.jsonl").open()]
    npy = tmp_path / "v.npy"
    api.predict(api.PredictRecipe(out=tmp_path / "b.jsonl", vectors=npy, **recipe))
    rest = [json.loads(line)["prediction"] for line in (tmp_path / "b.jsonl").open()]
    found = np.load(npy, mmap_mode="r")
    assert found.shape == (len(TEXTS), 32) and found.dtype == np.float32
    assert np.allclose(found, [p["vector"] for p in whole], atol=1e-8)
    assert rest == [{"similarity": p["similarity"]} for p in whole]
    assert whole[0].keys() == {"vector", "vector_pair", "similarity"}


def test_a_table_holds_vectors_as_json(desk, bundles, tmp_path):
    api.predict(
        api.PredictRecipe(
            model=bundles["pairs"], data=desk / "pairs.jsonl", out=tmp_path / "a.csv", device="cpu"
        )
    )
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(json.loads(rows[0]["prediction_vector"])) == 32
    assert rows[0]["prediction_similarity"] == "", "a positive is an answer, and not read"


def test_an_answers_column_of_another_meaning_does_no_harm(bundles, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "my parcel", "score": "high"}\n')
    recipe = {"model": bundles["scored"], "data": tmp_path / "rows.jsonl", "device": "cpu"}
    assert api.predict(api.PredictRecipe(out=tmp_path / "out.jsonl", **recipe)).rows == 1


@pytest.mark.parametrize(
    ("path", "message"), [("v.txt", "cannot write '.txt' .choices: .npy."), ("v.npy", "no vectors")]
)
def test_vectors_that_cannot_be_written_are_refused(desk, bundles, tmp_path, path, message):
    model = desk / "bert" if path == "v.npy" else bundles["pairs"]
    recipe = {"model": model, "data": desk / "texts.jsonl", "vectors": tmp_path / path}
    with pytest.raises(UserError, match=message):
        api.predict(api.PredictRecipe(out=tmp_path / "o.jsonl", device="cpu", **recipe))
    assert list(tmp_path.iterdir()) == []


def test_a_long_stream_is_answered_a_window_at_a_time(bundles):
    import torch

    from clozeworks.inference import engine as module

    engine = module.Engine.open(bundles["texts"], torch.device("cpu"), torch.float32)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield engine.task.Example(text=TEXTS[read % len(TEXTS)])

    assert len(list(islice(engine.predict(endless()), 10))) == 10
    assert read <= module.WINDOW + 1


def test_the_doctor_looks_at_all_texts_of_a_row(desk, capsys):
    words = ["doctor", str(desk / "pairs.jsonl"), "--task", "embed", "--model", str(desk / "bert")]
    cli.main([*words, "--window", "8"])
    said = capsys.readouterr().out
    assert f"{len(TEXTS)} rows, 0 empty, 0 repeated" in said
    assert "lose their ends" not in said, "they are read in windows"
