"""Laws of what verbs say of rows: what they did not read, and which one cannot be judged."""

import json
from importlib import import_module

import pytest

from clozeworks import api
from clozeworks.api import model
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
    assert "dev: 2 rows are longer than max_length allows: 42 tokens were not read" in told
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


ASKED = {
    "classify": ({"text": "late", "text_pair": "lost", "label": "a"}, "text_pair", "--text-pair"),
    "choice": (
        {"context": "late", "question": "lost", "options": ["order", "the"], "answer": "the"},
        "question",
        "--question",
    ),
}


@pytest.mark.parametrize("task", ASKED)
@pytest.mark.parametrize("own", [True, False])
def test_what_training_rows_were_asked_with_is_missed_wherever_it_lacks(
    task, own, parent, tmp_path
):
    row, field, flag = ASKED[task]
    column = field if own else "second"
    columns = {} if own else {field: column}
    whole = {column if name == field else name: value for name, value in row.items()}
    data = written(tmp_path / "rows.jsonl", {**whole, column: None}, whole)
    settings = {"max_length": 48, "option_length": 16, "overlap": 4} if task == "choice" else {}
    if task == "classify":
        data = written(data, {**whole, column: None}, whole, {**whole, "label": "b"})
    given = {"columns": columns, "settings": settings}
    made = finetuned(task, parent, data, tmp_path / "run", dev=data, **given)
    short = {name: value for name, value in whole.items() if name != column}
    for lacking in (short, {**short, f"{column}x": "lost"}):
        other = written(tmp_path / "short.jsonl", lacking, whole)
        message = f"short.jsonl has no column '{column}' for '{field}'.*{flag} COLUMN"
        with pytest.raises(UserError, match=message):
            api.evaluate(api.EvaluateRecipe(model=made.bundle, data=other, device="cpu"))
        with pytest.raises(UserError, match=message):
            out = tmp_path / "out.jsonl"
            recipe = {"model": made.bundle, "data": other, "out": out, "device": "cpu"}
            api.predict(api.PredictRecipe(**recipe))
        with pytest.raises(UserError, match=message):
            finetuned(task, parent, data, tmp_path / "again", dev=other, **given)
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "again").exists()
    null = written(tmp_path / "null.jsonl", {**whole, column: None}, whole)
    assert api.evaluate(api.EvaluateRecipe(model=made.bundle, data=null, device="cpu"))


def test_a_model_beside_another_is_asked_with_what_its_own_rows_had(parent, tmp_path):
    whole = {"text": "late", "text_pair": "lost", "label": "a"}
    short = [{"text": "late", "label": "a"}, {"text": "lost", "label": "b"}]
    pairs = written(tmp_path / "pairs.jsonl", whole, {**whole, "label": "b"})
    single = written(tmp_path / "single.jsonl", *short)
    made = [
        finetuned("classify", parent, data, tmp_path / data.stem, dev=data).bundle
        for data in (single, pairs)
    ]
    recipe = {"model": made[0], "data": single, "device": "cpu", "out": tmp_path / "report"}
    assert api.evaluate(api.EvaluateRecipe(**recipe))
    with pytest.raises(UserError, match=r"single\.jsonl has no column 'text_pair'"):
        api.evaluate(api.EvaluateRecipe(**recipe, beside=[made[1]]))


def test_a_column_that_training_rows_had_not_is_not_read_unless_it_is_named(parent, tmp_path):
    short = [{"text": "late", "label": "a"}, {"text": "lost", "label": "b"}]
    data = written(tmp_path / "short.jsonl", *short)
    more = written(tmp_path / "more.jsonl", *({**row, "text_pair": "refund"} for row in short))

    def said(name, rows, **columns):
        recipe = {"model": made.bundle, "data": rows, "out": tmp_path / f"{name}.jsonl"}
        api.predict(api.PredictRecipe(**recipe, columns=columns, scores=True, device="cpu"))
        return [json.loads(line)["prediction"] for line in recipe["out"].open()]

    made = finetuned("classify", parent, data, tmp_path / "run", dev=more)
    assert finetuned("classify", parent, data, tmp_path / "same", dev=data).dev == made.dev
    alone, beside = said("alone", data), said("beside", more)
    assert alone == beside != said("named", more, text_pair="text_pair")
    judged = {
        path.name: api.evaluate(api.EvaluateRecipe(model=made.bundle, data=path, device="cpu"))
        for path in (data, more)
    }
    assert judged["short.jsonl"].evaluation.metrics == judged["more.jsonl"].evaluation.metrics


def test_of_a_folder_from_elsewhere_every_column_is_read(parent, tmp_path):
    whole = {"text": "late", "text_pair": "lost", "label": "a"}
    data = written(tmp_path / "rows.jsonl", whole, {**whole, "label": "b"})
    made = finetuned("classify", parent, data, tmp_path / "run", dev=data)
    assert model.learned_without(made.bundle) == model.learned_without(parent) == frozenset()


def test_of_two_models_each_is_asked_what_it_learned_with(parent, tmp_path):
    whole = {"text": "late", "text_pair": "refund the order", "label": "a"}
    other = {"text": "lost", "text_pair": "late", "label": "b"}
    pairs = written(tmp_path / "pairs.jsonl", whole, other)
    alone = [{name: row[name] for name in ("text", "label")} for row in (whole, other)]
    single = written(tmp_path / "single.jsonl", *alone)
    made = [
        finetuned("classify", parent, data, tmp_path / data.stem, dev=data).bundle
        for data in (single, pairs)
    ]
    recipe = {"data": pairs, "device": "cpu"}
    each = [api.evaluate(api.EvaluateRecipe(model=m, **recipe)).evaluation for m in made]
    for first, second in ((0, 1), (1, 0)):
        out = tmp_path / f"report-{first}"
        models = {"model": made[first], "beside": [made[second]], "out": out}
        both = api.evaluate(api.EvaluateRecipe(**models, **recipe))
        assert both.evaluation.calibration_error == each[first].calibration_error
        assert both.beside[0].calibration_error == each[second].calibration_error


def test_rows_held_out_and_rows_to_judge_by_are_not_both_asked_for(parent, tmp_path):
    data = written(tmp_path / "rows.jsonl", {"text": "late", "label": "a"})
    with pytest.raises(ValueError, match=r"dev_share 0\.2 is of rows held out"):
        finetuned("classify", parent, data, tmp_path / "run", dev=data, dev_share=0.2)


def test_scores_are_asked_of_what_has_some(parent, tmp_path):
    row = {"text": "refund me", "entities": [{"start": 0, "end": 6, "label": "name"}]}
    data = written(tmp_path / "rows.jsonl", row)
    made = finetuned("tag", parent, data, tmp_path / "run", dev=data)
    recipe = {"model": made.bundle, "data": data, "out": tmp_path / "out.jsonl", "device": "cpu"}
    with pytest.raises(UserError, match=r"--scores: .* 'tag', whose predictions have none"):
        api.predict(api.PredictRecipe(**recipe, scores=True))
    assert not (tmp_path / "out.jsonl").exists()


def test_rows_without_what_others_were_asked_with_are_counted(parent, tmp_path, told):
    whole = {"text": "late", "text_pair": "lost", "label": "a"}
    rows = [whole, {**whole, "label": "b"}, {**whole, "text_pair": None}]
    data = written(tmp_path / "rows.jsonl", *rows)
    finetuned("classify", parent, data, tmp_path / "run", dev=data)
    assert "1 row has no text_pair, which others have" in told
    told.clear()
    finetuned("classify", parent, written(data, *rows[:2]), tmp_path / "other", dev=data)
    assert not [line for line in told if "which others have" in line]


def test_judging_any_number_of_labels_needs_a_label_somewhere(parent, tmp_path):
    rows = [{"text": "late", "label": ["a"]}, {"text": "lost", "label": ["b", "a"]}]
    data = written(tmp_path / "rows.jsonl", *rows)
    made = finetuned("classify", parent, data, tmp_path / "r", dev=data, settings={"kind": "multi"})
    none = written(tmp_path / "none.jsonl", *({**row, "label": []} for row in rows))
    with pytest.raises(UserError, match=r"none.jsonl, row 1 and all others have no label.*--label"):
        api.evaluate(api.EvaluateRecipe(model=made.bundle, data=none, device="cpu"))
    some = written(tmp_path / "some.jsonl", {**rows[0], "label": []}, rows[1])
    assert api.evaluate(api.EvaluateRecipe(model=made.bundle, data=some, device="cpu"))


@pytest.mark.parametrize(
    ("task", "row", "common", "differs"),
    [
        (
            "choice",
            {"context": "late", "options": ["a", "b", "c"], "answer": "1"},
            {"max_length": 48, "overlap": 4, "option_length": 16},
            ({"answer_form": "0"}, {"answer_form": "1"}),
        ),
        (
            "rerank",
            {"query": "late", "candidates": ["a", "b", "c"], "relevant": "1"},
            {"max_length": 48, "overlap": 4, "query_length": 16},
            ({"relevant_form": "0"}, {"relevant_form": "1"}),
        ),
        (
            "relation",
            {
                "text": "late lost",
                "subject": {"start": 0, "end": 4},
                "object": {"start": 5, "end": 9},
                "label": "Z",
            },
            {},
            ({"no_relation": "Z"}, {}),
        ),
    ],
)
def test_models_with_other_right_answers_are_not_judged_beside_each_other(
    task, row, common, differs, parent, tmp_path
):
    rows = [row, {**row, "label": "Y"}] if task == "relation" else [row]
    data = written(tmp_path / "rows.jsonl", *rows)
    made = [
        finetuned(task, parent, data, tmp_path / f"r{n}", dev=data, settings={**common, **one})
        for n, one in enumerate(differs)
    ]
    recipe = {"model": made[0].bundle, "data": data, "device": "cpu"}
    with pytest.raises(UserError, match=r"r1 was trained for .* and r0 for .*the same question"):
        api.evaluate(api.EvaluateRecipe(**recipe, beside=[made[1].bundle]))
    for name, value in differs[1].items():  # what may change once a model is trained
        given = {**recipe, "settings": {name: value}, "out": tmp_path / "report"}
        assert api.evaluate(api.EvaluateRecipe(**given, beside=[made[1].bundle]))


def test_sentence_vectors_of_pairs_are_had_of_single_texts_too(parent, tmp_path):
    pair = {"text": "late", "text_pair": "lost", "score": 0.5}
    data = written(tmp_path / "pairs.jsonl", pair, {**pair, "score": 1.0})
    made = finetuned("embed", parent, data, tmp_path / "run", dev=data)
    texts = written(tmp_path / "texts.jsonl", {"text": "late"})
    recipe = {"model": made.bundle, "data": texts, "out": tmp_path / "o.jsonl", "device": "cpu"}
    assert api.predict(api.PredictRecipe(**recipe)).rows == 1


def test_a_small_dev_set_is_called_rough_where_only_some_of_it_is_written_out(
    parent, tmp_path, told
):
    data = written(tmp_path / "rows.jsonl", *[{"source": "late", "target": "lost"}] * 3)
    finetuned("seq2seq", parent, data, tmp_path / "run", dev=data, settings={"sampled": 2})
    assert [line for line in told if line.startswith("dev has only 3 rows: take its numbers")]


def test_rows_without_classes_are_not_held_out_of_each_class(parent, tmp_path, told):
    texts = [{"source": f"late {n}", "target": "lost"} for n in range(20)]
    data = written(tmp_path / "rows.jsonl", *texts)
    finetuned("seq2seq", parent, data, tmp_path / "run", dev_share=0.3)
    rows = [{"text": f"late {n}", "label": "ab"[n % 2]} for n in range(20)]
    classes = written(tmp_path / "classes.jsonl", *rows)
    finetuned("classify", parent, classes, tmp_path / "other", dev_share=0.3)
    held = [line for line in told if line.startswith("no dev file")]
    assert ["each class" in line for line in held] == [False, True]


def test_a_blank_that_cannot_be_filled_is_named_by_its_row_in_the_file(parent, tmp_path):
    rows = ["text,candidates", 'late [MASK],"[""lost""]"', ",", 'a [MASK],"[""zzz""]"']
    data = tmp_path / "blanks.csv"
    data.write_text("\n".join(rows) + "\n", "utf-8")
    recipe = api.PredictRecipe(model=parent, data=data, out=tmp_path / "out.jsonl", device="cpu")
    with pytest.raises(UserError, match=r"blanks.csv, row 4: candidate 'zzz'"):
        api.predict(recipe.model_copy(update={"keep_empty": True}))
    assert "zzz" not in PIECES and not recipe.out.exists()
