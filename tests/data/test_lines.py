"""Laws of text files with a document a line, and of those that look like it."""

import pytest
from test_prepare import CORPUS, expected, read_back, same_bytes, write_corpus

from clozeworks.core.errors import UserError
from clozeworks.data import documents as documents_module
from clozeworks.data import prepare as prepare_module
from clozeworks.data.documents import MANY_LINES
from clozeworks.data.prepare import PrepareSettings, prepare

pytestmark = pytest.mark.usefixtures("quiet")

LINES = [[line] for document in CORPUS for line in document]
SMALL = PrepareSettings(processes=1, shard_megabytes=0.002, words="characters", lines=True)
BLOCKS = SMALL.model_copy(update={"lines": False})


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(prepare_module, "say", found.append)
    return found


def warnings(said):
    return [line for line in said if line.startswith("warning")]


def lined(path, count=MANY_LINES, start=0):
    path.write_text("".join(f"The {i} line.\n" for i in range(start, start + count)), "utf-8")
    return path


def test_each_line_is_a_document(tmp_path, tokenizer, said):
    path = write_corpus(tmp_path / "c.txt")
    manifest = prepare([path], tokenizer, tmp_path / "out", SMALL)
    assert read_back(tmp_path / "out") == expected(LINES, tokenizer)
    assert (manifest.documents, manifest.empty, manifest.lines) == (len(LINES), 0, True)
    assert not warnings(said)


def test_workers_and_restarts_change_no_byte_of_them(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    two = SMALL.model_copy(update={"processes": 2})
    prepare([path], tokenizer, tmp_path / "one", SMALL)
    prepare([path], tokenizer, tmp_path / "two", two)
    (tmp_path / "two" / "manifest.json").unlink()
    (tmp_path / "two/shards/00001/ids.npy").unlink()
    prepare([path], tokenizer, tmp_path / "two", two)
    assert same_bytes(tmp_path / "one", tmp_path / "two")


def test_lines_are_part_of_what_a_folder_is(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    prepare([path], tokenizer, tmp_path / "out", BLOCKS)
    with pytest.raises(UserError, match="lines was False, now True"):
        prepare([path], tokenizer, tmp_path / "out", SMALL)


def test_rows_of_other_files_are_documents_as_ever(tmp_path, tokenizer):
    path = tmp_path / "c.csv"
    path.write_text('text\n"One line.\nAnd another."\nMore.\n', "utf-8")
    assert prepare([path], tokenizer, tmp_path / "out", SMALL).documents == 2


def test_a_file_without_blank_lines_is_named(tmp_path, tokenizer, said):
    files = [lined(tmp_path / "a.txt"), lined(tmp_path / "b.txt", start=1000)]
    prepare(files, tokenizer, tmp_path / "out", BLOCKS)
    (warning,) = warnings(said)
    assert f"{files[0]} (and 1 more)" in warning and "--lines" in warning


def test_a_file_that_is_divided_before_any_blank_line_is_named(
    tmp_path, tokenizer, said, monkeypatch
):
    monkeypatch.setattr(documents_module, "DOCUMENT_LIMIT", 15 * MANY_LINES)
    path = lined(tmp_path / "a.txt", 3 * MANY_LINES)
    path.write_text(path.read_text("utf-8") + "\nThe end.\n", "utf-8")
    assert prepare([path], tokenizer, tmp_path / "out", BLOCKS).divided
    assert len(warnings(said)) == 1


@pytest.mark.parametrize("lines", [MANY_LINES - 1, MANY_LINES])
def test_a_short_file_or_one_with_a_blank_line_is_not(tmp_path, tokenizer, said, lines):
    path = lined(tmp_path / "a.txt", lines)
    if lines == MANY_LINES:
        path.write_text("Title.\n\n" + path.read_text("utf-8"), "utf-8")
    prepare([path], tokenizer, tmp_path / "out", BLOCKS)
    assert not warnings(said)
