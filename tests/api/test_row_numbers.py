"""Laws of the numbers rows are called by: a person finds the row that a page quotes."""

import csv
import json

import pytest

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.heads import Model, encoder_of
from tiny import CONFIG, TOKENIZER, make_examples, make_task

SETTINGS = {
    "classify": {"max_length": 64},
    "choice": {"max_length": 64, "overlap": 4, "option_length": 32},
}


@pytest.mark.parametrize(("name", "asked"), [("classify", "text"), ("choice", "context")])
def test_a_report_calls_rows_as_the_file_does(name, asked, tmp_path):
    task = make_task(name)
    rows = [row.model_dump(exclude_none=True) for row in make_examples(task, 30, 0)]
    for i, row in enumerate(rows):  # each text tells which row it is of
        row[asked] = f"{i} {row[asked]}"
    path = tmp_path / "data.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        for i, row in enumerate(rows):
            cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
            table.writerow({**cells, asked: ""} if i % 4 == 1 else cells)
    parent = write_bundle(tmp_path / "m", Model(encoder_of(CONFIG), None, {}), TOKENIZER, Card())
    made = api.finetune(
        api.FinetuneRecipe(
            task=name,
            data=path,
            dev=path,
            model=parent,
            out=tmp_path / "run",
            skip_empty=True,
            settings=SETTINGS[name],
            train={"duration": "1 steps", "batch": 8},
            device="cpu",
        )
    )
    recipe = api.EvaluateRecipe(model=made.bundle, data=path, skip_empty=True, device="cpu")
    mistakes = api.evaluate(recipe).evaluation.mistakes
    assert len(mistakes) > 5
    for mistake in mistakes:
        text = mistake.text if name == "classify" else mistake.texts[0]
        assert mistake.row == int(text.split()[0]) + 2  # the head of the columns is row 1
