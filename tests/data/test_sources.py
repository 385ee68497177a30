"""Laws of the sources: what was written is read, row by row, whatever wrote it."""

import csv
import gzip
import io
import json
import lzma
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.data.sources import jsonl
from clozeworks.data.sources.base import SOURCES, open_source

TABLE = [{"text": "good, really", "label": "1"}, {"text": "他说：“不好”\n第二行", "label": "0"}]


def rows(path, **options):
    return [row for _, row in open_source(path, **options).rows()]


def as_csv(table, delimiter=",", newline="\r\n"):
    out = io.StringIO()
    writer = csv.DictWriter(out, table[0], delimiter=delimiter, lineterminator=newline)
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def write_excel(path, table):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(list(table[0]))
    for row in table:
        book.active.append(list(row.values()))
    book.save(path)


def write_parquet(path, table):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


def write_lines(path, table):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), "utf-8")


WRITERS = {
    "a.csv": lambda path, table: path.write_text(as_csv(table), "utf-8", newline=""),
    "b.tsv": lambda path, table: path.write_text(as_csv(table, "\t"), "utf-8", newline=""),
    "c.jsonl": write_lines,
    "d.json": lambda path, table: path.write_text(json.dumps(table, indent=1), "utf-8"),
    "e.xlsx": write_excel,
    "f.parquet": write_parquet,
}


def test_every_source_is_tried_here():
    assert SOURCES.names() == ["conll", "csv", "excel", "jsonl", "parquet", "squad", "text"]
    for name in SOURCES.names():
        assert SOURCES.summary(name)


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name, TABLE)
    assert rows(tmp_path / name) == TABLE


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("name", ["a.csv", "b.tsv", "c.jsonl"])
def test_packed_files_are_looked_through(tmp_path, name, suffix, pack):
    WRITERS[name](tmp_path / name, TABLE)
    packed = tmp_path / (name + suffix)
    packed.write_bytes(pack((tmp_path / name).read_bytes()))
    assert rows(packed) == TABLE


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16"])
def test_chinese_spreadsheets_csv_is_read(tmp_path, encoding):
    path = tmp_path / "中文.csv"
    path.write_bytes(as_csv(TABLE).encode(encoding))
    told = "utf-8" if encoding == "utf-8-sig" else encoding
    assert rows(path, encoding=told) == TABLE


def test_gb18030_read_as_utf8_is_told_apart(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n好,1\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"byte 11 .*--encoding gb18030"):
        rows(path)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


def test_a_separator_inside_a_quoted_name_separates_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('"Text (a, b, c)";"Label"\nrow 0;1\n', "utf-8")
    assert [row for _, row in open_source(path).rows()] == [
        {"Text (a, b, c)": "row 0", "Label": "1"}
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELL, CELL, st.just("x")), min_size=1), st.sampled_from(",;"))
def test_whatever_csv_writes_is_read(tmp_path_factory, cells, delimiter):
    table = [dict(zip("abc", row, strict=True)) for row in cells]
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(as_csv(table, delimiter, "\n"), "utf-8", newline="")
    assert rows(path) == table


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('1\t"Great" movie', [["1", '"Great" movie']]),
        ('1\tA 5" pipe\n0\tan 8" pipe', [["1", 'A 5" pipe'], ["0", 'an 8" pipe']]),
        ('1\t"never closed\n0\tplain', [["1", '"never closed'], ["0", "plain"]]),
        ('"never closed\t1\nhe said "no"\t0', [['"never closed', "1"], ['he said "no"', "0"]]),
        ('"start\t1\nthe end"\t0', [['"start', "1"], ['the end"', "0"]]),
        ('"a"\t5"\nx"', [['"a"', '5"'], ['x"', None]]),
        ('1\t"two\nlines"\n0\tplain', [["1", "two\nlines"], ["0", "plain"]]),
        ('"two\nlines"\t1\nplain\t0', [["two\nlines", "1"], ["plain", "0"]]),
        ('"a ""quoted"" word"\t1', [['a "quoted" word', "1"]]),
        ('"a\ttab"\t1', [["a\ttab", "1"]]),
        ('1\t"the end', [["1", '"the end']]),
        ('"he left\the said"', [['"he left', 'he said"']]),
    ],
)
def test_tabbed_quotes_are_quoting_only_where_they_pair(tmp_path, written, read):
    path = tmp_path / "t.tsv"
    path.write_text(f"a\tb\n{written}\n", "utf-8")
    assert [list(row.values()) for row in rows(path)] == read


def test_every_record_of_a_table_is_a_row_but_blank_lines_and_what_trails(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text\nhello\n""\n\nworld\n""\n', "utf-8")
    assert [row["text"] for row in rows(path)] == ["hello", "", "world", ""]
    path.write_text("text,pair\n\nhello,a\n,\nworld,b\n,\n,\n", "utf-8")
    assert [row["text"] for row in rows(path)] == ["hello", "", "world"]
    path = tmp_path / "t.tsv"
    path.write_text("text\tpair\nhello\ta\n\n\t\nworld\tb\n\t\n", "utf-8")
    assert [row["text"] for row in rows(path)] == ["hello", "", "world"]


def test_columns_without_a_name_are_kept_apart(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,,label,,z,,\nlate,A,B,C,D,,\n", "utf-8")
    assert rows(path) == [{"text": "late", "": "A", "label": "B", "column 4": "C", "z": "D"}]


def test_a_workbook_with_flipped_bits_is_refused_or_read(tmp_path):
    table = [{"text": f"好 {i} " * 9, "label": i} for i in range(30)]
    write_excel(tmp_path / "a.xlsx", table)
    whole, chance = (tmp_path / "a.xlsx").read_bytes(), random.Random(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (tmp_path / "b.xlsx").write_bytes(damaged)
        try:
            rows(tmp_path / "b.xlsx")
        except UserError:
            refused += 1
    assert refused > 10


def test_what_can_be_read_but_once_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="no file that can be read more than once"):
        rows(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_ends_of_lines_within_a_cell_stay_as_they_are(tmp_path, name, encoding):
    path, split = tmp_path / name, "\t" if name == "t.tsv" else ","
    cells = ["a\r\nb", "c\nd\r\n\r\n"]
    for end in ("\n", "\r\n"):
        text = f'x{split}y{end}"{cells[0]}"{split}"{cells[1]}"{end}'
        path.write_text(text, encoding, newline="")
        (row,) = (row for _, row in open_source(path, encoding=encoding).rows())
        assert list(row.values()) == cells


def test_csv_row_numbers_are_a_spreadsheets(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"x\ny",1\nz,2\n', "utf-8")
    assert [number for number, _ in open_source(path).rows()] == [2, 3]


def test_csv_streams_in_bounded_memory_with_fields_of_many_lines(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8") as out:
        out.write("text,label\n")
        for number in range(600):
            out.write('"' + f"line {number}, 第\n" * 200 + f'",{number}\n')
    assert path.stat().st_size > 1_500_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in open_source(path).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 600
    assert peak < 500_000


def test_a_field_over_pythons_limit_is_read(tmp_path):
    csv.field_size_limit(131072)
    path = tmp_path / "t.csv"
    path.write_text(f"text,label\n{'字' * 300_000},1\n", "utf-8")
    assert len(rows(path)[0]["text"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", 'a,b\n"x" y,1\n', "row 2: a field goes on.*doubled"),
        ("a.csv", 'a,b\n1,2\n"never closed,1\nmore,2\n', "row 3: a quote is opened.*doubled"),
        ("a.csv", "a,b\r1,2\r3,4\r", "row 1: a carriage return.*line feeds"),
        ("a.csv", "a,b\n1,2\r3,4\n", "row 2: a carriage return.*line feeds"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "row 3 has 3 fields, the first row has 2"),
        ("a.csv", "a,a\n1,2\n", "two columns are called 'a'"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "row 2 is not JSON"),
        ("a.jsonl", '{"a": 1}\n7\n', "row 2 holds a int"),
        ("a.json", '[{"a": 1},', "is not JSON"),
        ("a.json", '{\n "a": 1\n}\n', "row 1 is not JSON.*one whole object"),
        ("a.parquet", "no", "cannot be read as parquet"),
        ("a.xlsx", "no", "cannot be read as an Excel workbook"),
        ("a.xls", "no", "save it as .xlsx"),
        ("a.xlsx.gz", "no", "unpack it first"),
        ("a.parquet.xz", "no", "unpack it first"),
        ("a.dat", "no", "'.dat'.*--format .choices: conll, csv"),
    ],
)
def test_damage_is_named_with_its_row(tmp_path, name, content, words):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UserError, match=words):
        rows(tmp_path / name)


def test_a_title_above_the_names_of_a_workbook_is_explained(tmp_path):
    write_excel(tmp_path / "a.xlsx", [{"Reviews of May": "text", "": "label"}, {"a": "b", "b": 1}])
    with pytest.raises(UserError, match=r"row 2 has 2 fields.* first row must hold the column"):
        rows(tmp_path / "a.xlsx")


def test_a_long_json_list_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LIST_LIMIT", 10)
    (tmp_path / "a.json").write_text(json.dumps(TABLE), "utf-8")
    with pytest.raises(UserError, match="jq -c"):
        rows(tmp_path / "a.json")


def test_numbers_that_json_does_not_have_are_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "b": -Infinity, "c": 1.5}\n', "utf-8")
    assert rows(tmp_path / "a.jsonl") == [{"a": None, "b": None, "c": 1.5}]


def test_a_named_format_wins_over_the_suffix(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one, two\nthree\n", "utf-8")
    assert rows(path, format="text") == [{"text": "one, two"}, {"text": "three"}]
    with pytest.raises(UserError, match="did you mean 'parquet'"):
        open_source(path, format="parket")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        open_source(Path(tmp_path))


# === SQuAD ===


def test_squads_questions_come_with_their_text_and_answers(tmp_path):
    answers = [{"text": "lamp", "answer_start": 2}]
    asked = [
        {"id": "1", "question": "what?", "answers": answers, "is_impossible": False},
        {"id": "2", "question": "when?", "answers": [], "is_impossible": True},
        {"id": "3", "question": "who?"},
    ]
    article = {"title": "T", "paragraphs": [{"context": "a lamp", "qas": asked}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "2", "data": [article]}), "utf-8")
    found = rows(path, format="squad")
    assert [row.get("answers") for row in found] == [
        {"text": ["lamp"], "answer_start": [2]},
        {"text": [], "answer_start": []},
        None,
    ]
    assert {(row["context"], row["title"]) for row in found} == {("a lamp", "T")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [{"title": "T"}]}', "not in SQuAD's form"),
        ("[1, 2]", "not in SQuAD's form"),
        ('{"data": [', "is not JSON"),
    ],
)
def test_what_is_not_squad_is_refused(tmp_path, text, message):
    (tmp_path / "dev.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        rows(tmp_path / "dev.json", format="squad")


def test_lines_of_text_may_end_in_a_carriage_return_alone(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes("早上好\rlate\r\nlost\r\rme".encode())
    rows = list(open_source(path).rows())
    assert rows == [(n, {"text": t}) for n, t in enumerate(["早上好", "late", "lost", "", "me"], 1)]
