"""Laws of what verbs say of rows: what they did not read, and which one cannot be judged."""

import json
from importlib import import_module

import pytest

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from tiny import PIECES, TOKENIZER, make_model, make_task

TRAIN = {"duration": "2 steps", "batch": 4, "precision": "fp32"}


@pytest.fixture
def parent(tmp_path):
    """A tiny BERT's folder."""
    task = make_task("mlm")
    card = Card(task="mlm", settings=task.settings, tokenizer=TOKENIZER.hash)
    return write_bundle(tmp_path / "bert", make_model(task), TOKENIZER, card)


@pytest.fixture
def told(monkeypatch):
    """Every line that training says."""
    lines = []
    for module in ("finetune", "model"):
        monkeypatch.setattr(import_module(f"clozeworks.api.{module}"), "say", lines.append)
    return lines


def written(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def finetuned(task, parent, data, out, **given):
    settings, train = given.pop("settings", {}), {**TRAIN, **given.pop("train", {})}
    recipe = {"task": task, "data": data, "model": parent, "out": out, "device": "cpu"}
    made = {**recipe, "settings": settings, "train": train, **given}
    return api.finetune(api.FinetuneRecipe.model_validate(made))


def test_dev_rows_that_are_learned_from_are_said(parent, tmp_path, told):
    rows = [{"text": f"late {n}", "label": "ab"[n % 2]} for n in range(6)]
    data = written(tmp_path / "rows.jsonl", *rows)
    dev = written(tmp_path / "dev.jsonl", {"text": "lost", "label": "a"}, *rows[:2])
    finetuned("classify", parent, data, tmp_path / "run", dev=dev)
    assert any(line.startswith("2 of the 3 dev rows ask what rows to learn from") for line in told)
    apart = written(tmp_path / "apart.jsonl", {"text": "lost", "label": "a"})
    told.clear()
    finetuned("classify", parent, data, tmp_path / "other", dev=apart)
    assert not any("dev row" in line and "flatters" in line for line in told)


def test_tokens_that_training_and_dev_lose_are_said_with_what_keeps_them(parent, tmp_path, told):
    rows = [{"text": "late " * n, "label": "ab"[n % 2]} for n in (1, 2, 30, 40, 3, 4)]
    data = written(tmp_path / "rows.jsonl", *rows)
    finetuned("classify", parent, data, tmp_path / "run", dev=data, settings={"max_length": 16})
    assert "2 rows of 6 too long: 42 tokens lost; raise --max-length to keep more" in told
    assert "dev: 2 rows are longer than --max-length allows: 42 tokens were not read" in told
    told.clear()
    windows = {"max_length": 16, "overlap": 4}
    finetuned("classify", parent, data, tmp_path / "w", dev=data, settings=windows)
    assert told and not [line for line in told if "lost" in line or "not read" in line]


def test_what_dev_loses_is_said_where_only_some_of_it_is_written_out(parent, tmp_path, told):
    texts = [{"source": "late " * n, "target": "lost"} for n in (1, 2, 60, 3, 4)]
    data = written(tmp_path / "rows.jsonl", *texts)
    settings = {"source_length": 32, "target_length": 16, "sampled": 2}
    finetuned("seq2seq", parent, data, tmp_path / "run", dev=data, settings=settings)
    limits = "--source-length or --target-length"
    assert f"dev: 1 row of 5 too long: 30 tokens lost; raise {limits} to keep more" in told


def test_the_longest_texts_are_no_best_model(parent, tmp_path):
    data = written(tmp_path / "rows.jsonl", {"source": "late", "target": "lost"})
    train = {"keep_best": "length_ratio"}
    with pytest.raises(UserError, match=r"keep_best 'length_ratio' is not known.*rouge_l"):
        finetuned("seq2seq", parent, data, tmp_path / "run", dev=data, train=train)


def test_rows_that_cannot_be_judged_together_are_named_before_any_is_predicted(
    parent, tmp_path, monkeypatch
):
    pairs = [{"text": "late", "positive": "lost"}, {"text": "a", "positive": "the"}]
    data = written(tmp_path / "rows.jsonl", *pairs)
    made = finetuned("embed", parent, data, tmp_path / "run", dev=data)
    monkeypatch.setattr("clozeworks.inference.engine.Engine.predict", None)
    scored = {"text": "a", "text_pair": "the", "score": 1.0}
    for row, message in (
        (scored, r"mixed.jsonl, row 3 has a score where the first row has a positive"),
        ({"text": "a"}, r"mixed.jsonl, row 3 has neither a positive nor a score"),
    ):
        mixed = written(tmp_path / "mixed.jsonl", *pairs, row)
        with pytest.raises(UserError, match=message):
            api.evaluate(api.EvaluateRecipe(model=made.bundle, data=mixed, device="cpu"))


def test_queries_to_which_nothing_is_relevant_are_not_predicted(parent, tmp_path, monkeypatch):
    some = {"query": "late", "candidates": ["lost", "order"], "relevant": ["lost"]}
    data = written(tmp_path / "rows.jsonl", some, some)
    settings = {"max_length": 48, "overlap": 4, "query_length": 16}
    made = finetuned("rerank", parent, data, tmp_path / "run", dev=data, settings=settings)
    monkeypatch.setattr("clozeworks.inference.engine.Engine.predict", None)
    nothing = written(tmp_path / "nothing.jsonl", {**some, "relevant": []})
    with pytest.raises(UserError, match=r"nothing.jsonl, row 1 and all others have nothing rele"):
        api.evaluate(api.EvaluateRecipe(model=made.bundle, data=nothing, device="cpu"))


def test_how_right_answers_are_named_may_change_once_it_is_trained(parent, tmp_path):
    row = {"context": "late", "question": "lost", "options": ["order", "the"], "answer": "the"}
    data = written(tmp_path / "rows.jsonl", row, row)
    settings = {"max_length": 48, "overlap": 4, "option_length": 16}
    made = finetuned("choice", parent, data, tmp_path / "run", dev=data, settings=settings)
    letters = written(tmp_path / "letters.jsonl", {**row, "answer": "B"}, {**row, "answer": "A"})
    recipe = {"model": made.bundle, "data": letters, "device": "cpu"}
    judged = api.evaluate(api.EvaluateRecipe(**recipe, settings={"answer_form": "A"}))
    assert judged.evaluation.rows == 2
    with pytest.raises(UserError, match="'B' is none of 2"):
        api.evaluate(api.EvaluateRecipe(**recipe))


def test_a_blank_that_cannot_be_filled_is_named_by_its_row_in_the_file(parent, tmp_path):
    rows = ["text,candidates", 'late [MASK],"[""lost""]"', ",", 'a [MASK],"[""zzz""]"']
    data = tmp_path / "blanks.csv"
    data.write_text("\n".join(rows) + "\n", "utf-8")
    recipe = api.PredictRecipe(model=parent, data=data, out=tmp_path / "out.jsonl", device="cpu")
    with pytest.raises(UserError, match=r"blanks.csv, row 4: candidate 'zzz'"):
        api.predict(recipe.model_copy(update={"keep_empty": True}))
    assert "zzz" not in PIECES and not recipe.out.exists()
