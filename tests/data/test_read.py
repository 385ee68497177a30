"""Laws of reading Examples: columns by name, labels as written, nothing dropped unsaid."""

import csv
import io
import json
import math

import pytest

from clozeworks.core import log
from clozeworks.core.errors import UserError
from clozeworks.core.records import Example
from clozeworks.data.read import read_examples
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.tasks.qa import QaExample
from clozeworks.tasks.seq2seq import Seq2SeqExample
from clozeworks.tasks.tag import TagExample


class Pair(Example):
    text: str
    text_pair: str | None = None
    label: str | None = None


class Scored(Example):
    text: str
    score: float


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_csv_rows(cells):
    out = io.StringIO()
    csv.writer(out).writerows(cells)
    return out.getvalue()


def test_columns_are_chosen_by_name_and_others_passed_over(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("id,review,stars\n7,好吃,5\n8,bad,1\n", "utf-8")
    read = list(read_examples(path, Pair, {"text": "review", "label": "stars"}))
    assert read == [Pair(text="好吃", label="5"), Pair(text="bad", label="1")]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (1, "1"),
        (4.0, "4.0"),
        (True, "true"),
        ("4.0", "4.0"),
        (None, None),
        ("", None),
        (math.nan, None),
    ],
)
def test_labels_become_strings_as_written(tmp_path, value, label):
    path = written(tmp_path, {"text": "a", "label": value})
    assert [e.label for e in read_examples(path, Pair, {})] == [label]


def test_numbers_stay_numbers_where_the_field_is_one(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("text,score\na,2.5\n", "utf-8")
    assert list(read_examples(path, Scored, {})) == [Scored(text="a", score=2.5)]
    path.write_text("text,score\na,much\n", "utf-8")
    with pytest.raises(UserError, match=r"row 2: score = 'much'"):
        list(read_examples(path, Scored, {}))


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([{"texts": "a", "b": 1}], {}, "no column 'text'.*did you mean 'texts'.*--text COLUMN"),
        ([{"text": "a"}], {"label": "stars"}, "no column 'stars' for 'label'.*--label"),
        ([{"text": "a"}, {"txt": "b"}], {}, "row 2 has no column 'text'"),
        ([{"text": "a"}], {"texte": "x"}, "field of Pair 'texte'.*did you mean 'text'"),
        ([{"text": "a"}, {"text": " \n"}], {}, "row 2: 'text' is empty.*--skip-empty"),
        ([{"text": None}], {}, "row 1: 'text' is empty"),
        ([{"text": "a\0b"}], {}, "row 1: 'text' holds a NUL"),
        ([{"text": "ab\ud800"}], {}, r"row 1: 'text' holds a lone surrogate \(U\+D800\).* 2,"),
        ([{"text": ["a"]}], {}, "row 1: text = "),
        ([], {}, "holds no rows"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, columns, words):
    with pytest.raises(UserError, match=words):
        list(read_examples(written(tmp_path, *rows), Pair, columns))


def test_a_header_alone_holds_no_rows(tmp_path):
    (tmp_path / "h.csv").write_text("text,label\n", "utf-8")
    with pytest.raises(UserError, match="holds no rows"):
        list(read_examples(tmp_path / "h.csv", Pair, {}))


def test_empty_rows_are_skipped_only_when_asked_and_counted(tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("clozeworks.data.read.say", said.append)
    path = written(tmp_path, {"text": "a"}, {"text": ""}, {"text": "b"}, {"text": " "})
    assert [e.text for e in read_examples(path, Pair, {}, empty="skip")] == ["a", "b"]
    assert "2 rows with empty text left out (2, 4)" in said[0]
    assert [e.text for e in read_examples(path, Pair, {}, empty="keep")] == ["a", "", "b", " "]


def test_a_file_of_empty_rows_alone_is_refused(tmp_path):
    with log.silence(), pytest.raises(UserError, match="holds no text"):
        list(read_examples(written(tmp_path, {"text": ""}), Pair, {}, empty="skip"))


def test_reading_streams(tmp_path):
    path = written(tmp_path, {"text": "a"}, {"text": ""})
    assert next(read_examples(path, Pair, {})).text == "a"


# === Lists, and rows of one field or another ===


def rows_of(path, kind, **more):
    return list(read_examples(path, kind, {}, **more))


def test_a_cell_with_a_json_list_is_the_list_and_an_empty_one_is_empty(tmp_path):
    lines = ["text,label", 'a,"[""x"", ""y|z""]"', "b,", "c,[PAD]", 'd,"[1, 2]"']
    (tmp_path / "rows.csv").write_text("\n".join(lines), "utf-8")
    found = rows_of(tmp_path / "rows.csv", ClassifyExample)
    assert [e.label for e in found] == [["x", "y|z"], [], "[PAD]", ["1", "2"]]


def test_a_list_in_a_cell_is_read_where_text_is_not_wanted(tmp_path):
    (tmp_path / "rows.csv").write_text('tokens,tags\n"[""a"", ""b""]","[""O"", ""O""]"\n', "utf-8")
    (found,) = rows_of(tmp_path / "rows.csv", TagExample)
    assert found.tokens == ["a", "b"] and found.tags == ["O", "O"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "label": ["b", "\ud800"]}, "row 2: 'label' holds a lone surrogate"),
        ({"text": "a", "label": ["b\x00"]}, "row 2: 'label' holds a NUL"),
    ],
)
def test_characters_in_lists_are_looked_at_too(tmp_path, row, message):
    rows = [{"text": "fine", "label": ["b"]}, row]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path / "rows.jsonl", ClassifyExample)


def test_of_fields_that_stand_for_one_another_one_must_be_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"words": ["a"]}\n', "utf-8")
    wanted = r"no column 'text' or 'tokens' \(choices: words\); name one with --text or --tokens"
    with pytest.raises(UserError, match=wanted):
        rows_of(path, TagExample)
    path.write_text('{"text": "a"}\n{"text": " "}\n{"tokens": ["b"]}\n', "utf-8")
    with pytest.raises(UserError, match=r"row 2: 'text' is empty"):
        rows_of(path, TagExample)
    assert [e.text or e.tokens for e in rows_of(path, TagExample, empty="skip")] == ["a", ["b"]]
    assert len(rows_of(path, TagExample, empty="keep")) == 3
    with pytest.raises(UserError, match=r"no column 'entities' or 'tags' \(choices: text\)"):
        rows_of(path, TagExample, one_of={"entities", "tags"})


def test_an_unknown_key_within_a_list_is_named_with_those_there_are(tmp_path):
    row = {"text": "a", "entities": [{"start": 0, "end": 1, "label": "x", "kind": "y"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), "utf-8")
    with pytest.raises(UserError, match=r"unknown key 'entities.0.kind' .*label"):
        rows_of(tmp_path / "rows.jsonl", TagExample)


@pytest.mark.parametrize("text", ["[1, 2, 3]", '["x"]', "[]", "[null]", "[2019] a year"])
def test_text_that_looks_like_a_list_is_text_where_lists_can_be_written(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"source": "a", "target": text}) + "\n", "utf-8")
    (row,) = read_examples(path, Seq2SeqExample, {})
    assert row.target == text


@pytest.mark.parametrize("text", ['["x"]', "['x', 'y']", "[]", "[ ]"])
def test_a_list_written_as_text_is_no_label(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    for label in (text, [text]):
        path.write_text(json.dumps({"text": "a", "label": label}) + "\n", "utf-8")
        with pytest.raises(UserError, match=r"row 1: label: .* is a list written as text"):
            list(read_examples(path, ClassifyExample, {}))


@pytest.mark.parametrize("hot", [[1, 0, 1], [0.0, 0.0], [True, True, False], ["1", "0", "0"]])
def test_a_number_for_every_label_is_no_list_of_labels(tmp_path, hot):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", "label": hot}) + "\n", "utf-8")
    with pytest.raises(UserError, match="has a 0 or 1 for each label; give the names"):
        list(read_examples(path, ClassifyExample, {}))
    path.write_text('{"text": "a", "label": ["0", "1"]}\n{"text": "b", "label": 1}\n', "utf-8")
    assert [row.label for row in read_examples(path, ClassifyExample, {})] == [["0", "1"], "1"]


def test_cells_as_pandas_writes_lists_and_objects_are_read_as_such(tmp_path):
    path = tmp_path / "rows.csv"
    cells = [["text", "label"], ["a", "['x', \"it's\"]"], ["b", "[]"], ["c", "[2019] a year"]]
    path.write_text(as_csv_rows(cells), "utf-8")
    found = [row.label for row in read_examples(path, ClassifyExample, {})]
    assert found == [["x", "it's"], [], "[2019] a year"]
    answers = {"text": ["b"], "answer_start": [1]}
    path.write_text(as_csv_rows([["context", "question", "answers"], ["ab", "q", answers]]))
    (row,) = read_examples(path, QaExample, {})
    assert row.answers is not None and row.answers.model_dump() == answers


def test_an_empty_cell_of_a_workbook_holds_no_labels_as_that_of_a_table_does(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (("text", "label"), ("a", "x|y"), ("b", None)):
        book.active.append(row)
    book.save(tmp_path / "r.xlsx")
    (tmp_path / "r.csv").write_text("text,label\na,x|y\nb,\n", "utf-8")
    one, other = (
        list(read_examples(tmp_path / name, ClassifyExample, {})) for name in ("r.xlsx", "r.csv")
    )
    assert one == other and [row.label for row in one] == ["x|y", []]
