"""Laws of reading Examples: columns by name, labels as written, nothing dropped unsaid."""

import json
import math

import pytest

from clozeworks.core import log
from clozeworks.core.errors import UserError
from clozeworks.core.records import Example
from clozeworks.data.read import read_examples


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
    assert "2 rows with empty text left out (rows 2, 4)" in said[0]
    assert [e.text for e in read_examples(path, Pair, {}, empty="keep")] == ["a", "", "b", " "]


def test_a_file_of_empty_rows_alone_is_refused(tmp_path):
    with log.silence(), pytest.raises(UserError, match="holds no text"):
        list(read_examples(written(tmp_path, {"text": ""}), Pair, {}, empty="skip"))


def test_reading_streams(tmp_path):
    path = written(tmp_path, {"text": "a"}, {"text": ""})
    assert next(read_examples(path, Pair, {})).text == "a"
