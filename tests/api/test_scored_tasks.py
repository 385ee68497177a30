"""The verbs on choices, rankings and relations: from files of several forms to predictions."""

import csv
import json
from importlib import import_module

import pytest
from transformers import AutoTokenizer

from clozeworks import api
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.heads import Model, encoder_of
from clozeworks.text.load import load_tokenizer
from clozeworks.text.marked import marks_of
from clozeworks.text.tokenizer import Tokenizer
from tiny import CONFIG, PIECES, TOKENIZER, make_examples, make_task

SETTINGS = {
    "choice": {"max_length": 64, "overlap": 4, "option_length": 32},
    "rerank": {"max_length": 64, "overlap": 4, "query_length": 32},
    "relation": {"max_length": 64, "no_relation": "none"},
}


@pytest.fixture
def parent(tmp_path):
    """A bare encoder with the tiny vocabulary."""
    return write_bundle(tmp_path / "bert", Model(encoder_of(CONFIG), None, {}), TOKENIZER, Card())


def write_rows(path, rows):
    dumped = [row.model_dump(mode="json", exclude_none=True) for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in dumped), "utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as stream:
        names = sorted({name for row in dumped for name in row})
        table = csv.DictWriter(stream, names)
        table.writeheader()
        for row in dumped:
            cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
            table.writerow(cells)
    return path


def tuned(name, data, parent, out, dev=None, **more):
    return api.finetune(
        api.FinetuneRecipe(
            task=name,
            data=data,
            dev=dev or data,
            model=parent,
            out=out,
            settings={**SETTINGS[name], **more},
            train={"duration": "2 steps", "batch": 8},
            device="cpu",
        )
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_whole_path_from_a_file_of_either_form(name, suffix, parent, tmp_path):
    rows = make_examples(make_task(name), 16)
    data = write_rows(tmp_path / f"data{suffix}", rows)
    made = tuned(name, data, parent, tmp_path / "run")
    judged = api.evaluate(api.EvaluateRecipe(model=made.bundle, data=data, device="cpu"))
    assert judged.report.exists() and judged.evaluation.task == name
    out = tmp_path / "predicted.jsonl"
    api.predict(api.PredictRecipe(model=made.bundle, data=data, out=out, device="cpu"))
    found = [json.loads(line)["prediction"] for line in out.read_text("utf-8").splitlines()]
    assert len(found) == 16
    if suffix == ".csv":
        flat = tmp_path / "predicted.csv"
        api.predict(api.PredictRecipe(model=made.bundle, data=data, out=flat, device="cpu"))
    lines = api.info(api.InfoRecipe(path=made.bundle))
    assert lines["task"] == name and lines["heads"].startswith(
        {"rerank": "classify"}.get(name, name)
    )
    assert "unknown" not in lines
    findings = api.doctor(api.DoctorRecipe(task=name, data=data, model=parent, window=64))
    assert findings.splits["train"].rows == 16 and findings.splits["train"].lengths is not None


def test_a_vocabulary_without_unused_pieces_is_given_some_and_keeps_them(tmp_path):
    bare = Tokenizer.of([piece for piece in PIECES if not piece.startswith("[unused")])
    config = CONFIG.model_copy(update={"vocab_size": len(bare.pieces)})
    parent = write_bundle(tmp_path / "bert", Model(encoder_of(config), None, {}), bare, Card())
    data = write_rows(tmp_path / "data.jsonl", make_examples(make_task("relation"), 16))
    made = tuned("relation", data, parent, tmp_path / "run")
    tokenizer = load_tokenizer(made.bundle)
    marks = [f"[unused{i}]" for i in range(4)]
    assert tokenizer.pieces == [*bare.pieces, *marks] and len(marks_of(tokenizer.vocabulary)) == 4
    assert open_bundle(made.bundle).config["vocab_size"] == len(tokenizer.pieces)
    theirs = AutoTokenizer.from_pretrained(made.bundle)
    assert theirs.convert_tokens_to_ids(theirs.tokenize(f"a{marks[2]}b")) == [
        tokenizer.pieces.index(piece) for piece in ("a", marks[2], "b")
    ]
    out = tmp_path / "predicted.jsonl"
    api.predict(api.PredictRecipe(model=made.bundle, data=data, out=out, device="cpu"))
    again = api.finetune(
        api.FinetuneRecipe(
            task="relation",
            data=data,
            dev=data,
            model=made.bundle,
            out=tmp_path / "again",
            settings=SETTINGS["relation"],
            train={"duration": "1 steps"},
            device="cpu",
        )
    )
    assert load_tokenizer(again.bundle).hash == tokenizer.hash


def test_pairs_without_a_relation_are_learned_from_too(parent, tmp_path, monkeypatch):
    rows = [
        {
            "tokens": ["refund", "order", "late", "lost", f"a{'b' * i}"],
            "subject": {"start": i % 2, "end": i % 2 + 1},
            "object": {"start": 2 + i % 2, "end": 3 + i % 2},
            "label": ["owns(e1,e2)", "owns(e2,e1)"][i % 2],
        }
        for i in range(4)
    ]
    rows = [{**row, "tokens": rows[0]["tokens"]} for row in rows[:2]] + rows[2:]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    said = []
    monkeypatch.setattr(import_module("clozeworks.api.finetune"), "say", said.append)
    dev = write_rows(tmp_path / "dev.jsonl", make_examples(make_task("relation"), 6))
    made = tuned("relation", data, parent, tmp_path / "run", dev=dev, negatives=1.0)
    assert "4 rows more, made of those given" in said
    assert open_bundle(made.bundle).card.labels == ["none", "owns(e1,e2)", "owns(e2,e1)"]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "choice",
            {"context": "x", "options": ["a"], "answer": "a"},
            "row 1: options: .*no choice",
        ),
        (
            "choice",
            {"context": "x", "options": ["a", "b"], "answer": 1},
            "row 1: answer '1' is none",
        ),
        (
            "choice",
            {"context": "x", "options": ["a", " "], "answer": "a"},
            "row 1: 'options' holds an empty text",
        ),
        (
            "rerank",
            {"query": "x", "candidates": ["", "a"], "relevant": ["a"]},
            "row 1: 'candidates' holds an empty text",
        ),
        ("choice", {"context": "x", "options": ["a", "b"]}, "has no column 'answer' for 'answer'"),
        ("choice", {"context": "x", "options": ["a", "b"], "answer": None}, "row 1: no answer"),
        (
            "rerank",
            {"query": "x", "candidates": [], "relevant": []},
            "row 1: candidates: .*nothing",
        ),
        (
            "rerank",
            {"query": "x", "candidates": ["a"], "relevant": ["b"]},
            "row 1: relevant: 'b' is",
        ),
        (
            "relation",
            {"text": "ab", "subject": {"start": 0}, "object": {"start": 1, "end": 2}, "label": "x"},
            "row 1: 'subject.end' is missing",
        ),
        (
            "relation",
            {
                "text": "ab",
                "subject": {"start": 0, "end": 9},
                "object": {"start": 1, "end": 2},
                "label": "x",
            },
            "row 1: subject from 0 to 9 does not lie within the 2 characters",
        ),
    ],
)
def test_bad_rows_are_named(name, row, message, parent, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(UserError, match=message):
        tuned(name, data, parent, tmp_path / "run")


def test_a_row_that_cannot_be_read_is_named_by_predict_and_doctor_too(parent, tmp_path):
    task = make_task("relation")
    data = write_rows(tmp_path / "data.jsonl", make_examples(task, 12, 0))
    bundle = tuned("relation", data, parent, tmp_path / "run").bundle
    rows = make_examples(task, 2, 1)
    far = rows[1].subject.model_copy(update={"end": 999, "text": None})
    bad = write_rows(tmp_path / "bad.jsonl", [rows[0], rows[1].model_copy(update={"subject": far})])
    message = r"bad\.jsonl, row 2: subject from \d+ to 999 does not lie within"
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match=message):
        api.predict(api.PredictRecipe(model=bundle, data=bad, out=out, device="cpu"))
    assert not out.exists()
    with pytest.raises(UserError, match=message):
        api.doctor(api.DoctorRecipe(data=bad, task="relation"))
