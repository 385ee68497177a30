"""What `doctor` owes every task: it looks any rows over, and names those that it cannot read."""

import json

import pytest

from clozeworks import api
from clozeworks.core.errors import UserError
from clozeworks.tasks import TASKS
from tiny import KINDS, TOKENIZER, make_examples, make_task

LABELLED = [n for n in (*TASKS.names(), *KINDS) if not TASKS.get(n.split(":")[0]).from_shards]


def write_rows(path, rows):
    dumped = [row.model_dump(mode="json", exclude_none=True) for row in rows]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in dumped), "utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save(folder)
    return folder


@pytest.mark.parametrize("name", LABELLED)
def test_it_looks_rows_over(name, tokenizer, tmp_path):
    task = make_task(name)
    data = write_rows(tmp_path / "data.jsonl", make_examples(task, 12))
    found = api.doctor(api.DoctorRecipe(data=data, task=task.name, model=tokenizer))
    train = found.splits["train"]
    assert (train.rows, train.empty) == (12, 0)
    assert train.lengths is not None and train.lengths.longest > 3
    assert found.lines()
    writes = any(task.written(row) for row in make_examples(task, 12))
    assert (train.targets is not None) == writes
    if not writes:
        with pytest.raises(UserError, match=f"target_length is for .* {task.name} does not"):
            api.doctor(api.DoctorRecipe(data=data, task=task.name, target_length=20))


def test_sentences_are_a_text(tokenizer, tmp_path):
    task = make_task("extract")
    rows = [task.Example(sentences=[f"lamp {i}", "where"], labels=[0]) for i in (1, 2, 2)]
    data = write_rows(tmp_path / "data.jsonl", rows)
    found = api.doctor(api.DoctorRecipe(data=data, task="extract", model=tokenizer))
    train = found.splits["train"]
    assert (train.rows, train.empty, train.duplicates) == (3, 0, 1)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("tag", {"text": "ab", "entities": [{"start": 0, "end": 9, "label": "x"}]}, "entity 'x'"),
        ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, "1 tags for 2 tokens"),
        ("extract", {"document": "a", "sentences": ["a"], "labels": [0]}, "both document and sen"),
    ],
)
def test_a_row_it_cannot_read_is_named(name, row, message, tmp_path):
    good = make_examples(make_task(name), 1)[0].model_dump(mode="json", exclude_none=True)
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, [good, row])), "utf-8")
    with pytest.raises(UserError, match=f"row 2: .*{message}"):
        api.doctor(api.DoctorRecipe(data=data, task=name))


def test_labels_in_one_cell_count_each_where_their_sign_is_said(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("text,label\nthe lamp,late | broken\nthe case,late\nthe cup,\n", "utf-8")
    whole = api.doctor(api.DoctorRecipe(data=data))
    assert whole.splits["train"].classes == {"late | broken": 1, "late": 1}
    apart = api.doctor(api.DoctorRecipe(data=data, separator="|"))
    assert apart.splits["train"].classes == {"late": 2, "broken": 1}


def test_what_finetune_would_refuse_is_not_passed_over(tmp_path):
    def looked_over(text, **more):
        (tmp_path / "data.csv").write_text(text, "utf-8")
        return api.doctor(api.DoctorRecipe(data=tmp_path / "data.csv", **more))

    blank = looked_over("text,label\nthe lamp,late\nthe case, \nthe cup,\nthe tray,late \n")
    assert blank.splits["train"].classes == {"late": 2}
    assert any("2 rows have no label" in warning for warning in blank.warnings)
    with pytest.raises(UserError, match=r"no column 'label'.*name one with --label"):
        looked_over("text,stars\nthe lamp,4\n")
    with pytest.raises(UserError, match="no column 'entities' or 'tags'"):
        looked_over("text,label\nthe lamp,4\n", task="tag")


def test_labels_that_look_alike_and_pairs_with_one_text_are_told(tmp_path):
    rows = [("a", "b", "1"), ("c", "", "1.0"), ("d", "e", "Late"), ("f", "g", "late")]
    data = tmp_path / "data.csv"
    data.write_text("text,text_pair,label\n" + "\n".join(map(",".join, rows)), "utf-8")
    warnings = api.doctor(api.DoctorRecipe(data=data)).warnings
    for wanted in ("'1', '1.0' are classes", "'Late', 'late' are classes", "1 row lacks a text"):
        assert any(wanted in warning for warning in warnings), wanted
