"""What every form of data file owes: the same rows, numbered, with errors a person can act on."""

import json

import pytest

from clozeworks.core.errors import UserError
from clozeworks.data.sources.base import SOURCES, format_of, open_source

NAMES = SOURCES.names()
TEXTS = ["where is my parcel", "我要退款。", 'a, "quoted" text', "last"]


def write_csv(path):
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *[[text] for text in TEXTS]])


def write_jsonl(path):
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def write_text(path):
    path.write_text("\n".join(TEXTS) + "\n", "utf-8")


def write_parquet(path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": TEXTS}), path)


def write_excel(path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["text"], *[[text] for text in TEXTS]]:
        book.active.append(row)
    book.save(path)


def write_conll(path):
    lines = ("".join(f"{word}\tO\n" for word in text.split(" ")) for text in TEXTS)
    path.write_text("\n".join(lines), "utf-8")


def write_squad(path):
    asked = [{"id": str(i), "question": text, "answers": []} for i, text in enumerate(TEXTS)]
    paragraphs = [{"context": text, "qas": [one]} for text, one in zip(TEXTS, asked, strict=True)]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), "utf-8")


WRITERS = {
    "squad": write_squad,
    "conll": write_conll,
    "csv": write_csv,
    "jsonl": write_jsonl,
    "text": write_text,
    "parquet": write_parquet,
    "excel": write_excel,
}


def test_every_source_is_tried_here():
    assert set(WRITERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_come_out_in_order(name, tmp_path):
    kind = SOURCES.get(name)
    assert SOURCES.summary(name)
    assert kind.suffixes and all(suffix.startswith(".") for suffix in kind.suffixes)
    path = tmp_path / f"data{kind.suffixes[0]}"
    WRITERS[name](path)
    rows = list(open_source(path).rows())
    texts = [r.get("text") or r.get("context") or " ".join(r["tokens"]) for _, r in rows]
    assert texts == TEXTS
    numbers = [number for number, _ in rows]
    assert numbers == sorted(set(numbers)) and numbers[0] >= 1
    assert list(open_source(path, format=name).rows()) == rows
    assert list(open_source(path).rows()) == rows, "a source can be read twice"


@pytest.mark.parametrize("name", NAMES)
def test_every_suffix_chooses_its_source(name, tmp_path):
    for suffix in SOURCES.get(name).suffixes:
        for written in (suffix, suffix.upper()):
            assert format_of(tmp_path / f"data{written}") == name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_there_is_explained(name, tmp_path):
    suffix = SOURCES.get(name).suffixes[0]
    (tmp_path / f"train{suffix}").write_bytes(b"")
    with pytest.raises(UserError, match=f"did you mean 'train{suffix}'"):
        open_source(tmp_path / f"trian{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        open_source(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"text"}))
def test_damage_is_a_users_error_that_names_the_file(name, tmp_path):
    path = tmp_path / f"data{SOURCES.get(name).suffixes[0]}"
    path.write_bytes(b"text\n\xff\xfe \x00 broken")
    with pytest.raises(UserError, match="data"):
        list(open_source(path).rows())


def test_an_ending_nobody_reads_asks_for_the_format(tmp_path):
    (tmp_path / "data.dat").write_text("x")
    with pytest.raises(UserError, match="give --format"):
        open_source(tmp_path / "data.dat")
