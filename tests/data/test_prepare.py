"""Laws of prepare: shards say what the text says, whatever made them and whenever it was killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.core.run import alone_in
from clozeworks.data import documents as documents_module
from clozeworks.data.documents import Documents, Seen
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.data.shards import Shards
from clozeworks.data.workers import Job, Workers, make_shard, packed
from clozeworks.text.sentences import sentence_spans
from clozeworks.text.tokenizer import SPECIAL, Tokenizer

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = PrepareSettings(processes=1, shard_megabytes=0.002, words="characters")
CORPUS = [
    [f"Title {i}", f"The {i} first. And a second one!", f"第{i}句很好。他说：“再见。”走了。"]
    for i in range(120)
]


def make_tokenizer(size=0):
    letters = [chr(c) for c in range(33, 127)] + list("第句很好他说再见走了：。“”")
    padding = [f"[unused{i}]" for i in range(size)]
    return Tokenizer.of([*SPECIAL, *letters, *(f"##{c}" for c in letters if c.isascii()), *padding])


def write_corpus(path, documents=CORPUS):
    path.write_text("\n\n".join("\n".join(lines) for lines in documents) + "\n", "utf-8")
    return path


def expected(documents, tokenizer):
    """The ids of each sentence of each document, the short way."""
    return [
        [tokenizer.tokenize([line[a:b]])[0].tolist() for line in d for a, b in sentence_spans(line)]
        for d in documents
    ]


def read_back(folder):
    shards = Shards.open(folder)
    sentences = [
        shards.take(a, b).tolist()
        for a, b in zip(shards.sentences, shards.sentences[1:], strict=False)
    ]
    bounds = zip(shards.documents, shards.documents[1:], strict=False)
    return [sentences[a:b] for a, b in bounds]


def contents(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def same_bytes(one, other):
    return contents(one) == contents(other)


def test_shards_hold_every_sentence_of_every_document(tmp_path, tokenizer):
    manifest = prepare([write_corpus(tmp_path / "c.txt")], tokenizer, tmp_path / "out", SMALL)
    assert len(manifest.shards) > 3
    assert read_back(tmp_path / "out") == expected(CORPUS, tokenizer)
    assert manifest.documents == len(CORPUS)
    shards = Shards.open(tmp_path / "out")
    assert shards.vocabulary_hash == tokenizer.hash
    assert len(shards.take(0, manifest.tokens)) == manifest.tokens == shards.sentences[-1]
    assert shards.take(5, 5).dtype == np.int64
    with pytest.raises(IndexError):
        shards.take(0, manifest.tokens + 1)


def test_the_number_of_processes_changes_no_byte(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    prepare([path], tokenizer, tmp_path / "one", SMALL)
    prepare([path], tokenizer, tmp_path / "two", SMALL.model_copy(update={"processes": 2}))
    assert same_bytes(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(("size", "dtype"), [(0, "uint16"), (1 << 16, "uint32")])
def test_ids_take_the_smallest_type(tmp_path, size, dtype):
    tokenizer = make_tokenizer(size)
    path = write_corpus(tmp_path / "c.txt", CORPUS[:2])
    assert prepare([path], tokenizer, tmp_path / "out", SMALL).dtype == dtype
    assert np.load(tmp_path / "out/shards/00000/ids.npy", mmap_mode="r").dtype == dtype
    assert read_back(tmp_path / "out") == expected(CORPUS[:2], tokenizer)


def test_repeated_and_empty_documents_are_counted(tmp_path, tokenizer):
    documents = [*CORPUS[:5], CORPUS[1], ["\u200b"], CORPUS[3], [*CORPUS[0], "More."]]
    path = write_corpus(tmp_path / "c.txt", documents)
    manifest = prepare([path, path], tokenizer, tmp_path / "out", SMALL)
    assert (manifest.documents, manifest.duplicates, manifest.empty) == (6, 11, 1)
    assert read_back(tmp_path / "out") == expected([*CORPUS[:5], documents[-1]], tokenizer)


def test_rows_of_a_column_are_documents(tmp_path, tokenizer):
    path = tmp_path / "c.jsonl"
    rows = [{"body": "\n\n".join(lines), "id": i} for i, lines in enumerate(CORPUS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    settings = SMALL.model_copy(update={"column": "body"})
    prepare([path], tokenizer, tmp_path / "out", settings)
    assert read_back(tmp_path / "out") == expected(CORPUS, tokenizer)


def test_a_document_without_end_is_divided_not_held(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(documents_module, "DOCUMENT_LIMIT", 1000)
    lines = [f"Line {i} of one document." for i in range(200)]
    path = write_corpus(tmp_path / "c.txt", [lines])
    manifest = prepare([path], tokenizer, tmp_path / "out", SMALL)
    assert manifest.divided == manifest.documents - 1 > 2
    assert [s for d in read_back(tmp_path / "out") for s in d] == expected([lines], tokenizer)[0]


KILLED = """
import sys
from clozeworks.core.run import alone_in
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.text.load import load_tokenizer
prepare([sys.argv[1]], load_tokenizer(sys.argv[2]), sys.argv[3],
        PrepareSettings(processes=int(sys.argv[4]), shard_megabytes=0.002, words="characters"))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_is_uninterrupted(tmp_path, tokenizer, processes):
    documents = [[f"{i} {line}" for line in lines * 4] for i, lines in enumerate(CORPUS)]
    path = write_corpus(tmp_path / "c.txt", documents)
    prepare([path], tokenizer, tmp_path / "whole", SMALL)
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "whole/tokenizer"), str(out)]
    process = subprocess.Popen([*command, str(processes)], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("shards/0*"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # a worker ends with the shard it is writing
    assert not (out / "manifest.json").exists()
    with pytest.raises(UserError, match="is not finished; run the same `prepare` again"):
        Shards.open(out)
    (out / "shards/.00099.1.tmp").mkdir()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("shards/0*/ids.npy")}
    assert len(kept) >= 2
    prepare([path], tokenizer, out, SMALL)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert same_bytes(tmp_path / "whole", out)
    assert not list(out.rglob(".*"))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_shard_is_made_again(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    prepare([path], tokenizer, tmp_path / "whole", SMALL)
    prepare([path], tokenizer, tmp_path / "out", SMALL)
    (tmp_path / "out/manifest.json").unlink()
    os.truncate(tmp_path / "out/shards/00001/ids.npy", 100)
    flip_a_byte(tmp_path / "out/shards/00003/ids.npy")
    record = tmp_path / "out/shards/00002/shard.json"
    record.write_text(record.read_text("utf-8").replace('"source":"', '"source":"0'), "utf-8")
    prepare([path], tokenizer, tmp_path / "out", SMALL)
    assert same_bytes(tmp_path / "whole", tmp_path / "out")


def test_a_finished_folder_is_returned_as_it_is(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    first = prepare([path], tokenizer, tmp_path / "out", SMALL)
    before = (tmp_path / "out/manifest.json").stat().st_mtime_ns
    assert prepare([path], tokenizer, tmp_path / "out", SMALL) == first
    assert (tmp_path / "out/manifest.json").stat().st_mtime_ns == before


def other_reading(encoding):
    return SMALL.model_copy(update={"encoding": encoding, "format": "jsonl"})


def test_two_at_once_are_kept_apart(tmp_path, tokenizer):
    corpus, out = write_corpus(tmp_path / "c.txt"), tmp_path / "s"
    out.mkdir()
    with alone_in(out), pytest.raises(UserError, match="worked on by another process"):
        prepare([corpus], tokenizer, out, SMALL)
    assert prepare([corpus], tokenizer, out, SMALL).documents == len(CORPUS)


def test_everything_that_differs_is_named(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    prepare([path], tokenizer, tmp_path / "out", SMALL)
    other = other_reading("gb18030").model_copy(update={"column": "body", "words": "none"})
    with pytest.raises(UserError) as refused:
        prepare([path], tokenizer, tmp_path / "out", other)
    assert re.findall(r"(\w+) was ", str(refused.value)) == [
        *("words", "format", "column", "encoding", "form")
    ]


def test_a_folder_that_does_not_tell_how_it_was_read_stays_valid(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    made = prepare([path], tokenizer, tmp_path / "out", SMALL)
    for name in ("plan.json", "manifest.json"):
        record = json.loads((tmp_path / "out" / name).read_text("utf-8"))
        del record["encoding"], record["form"]
        (tmp_path / "out" / name).write_text(json.dumps(record), "utf-8")
    old = prepare([path], tokenizer, tmp_path / "out", other_reading("gb18030"))
    assert old == made.model_copy(update={"encoding": None, "form": None})


def test_other_names_of_an_encoding_are_no_other_encoding(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    first = prepare([path], tokenizer, tmp_path / "out", SMALL)
    same = SMALL.model_copy(update={"encoding": "UTF8"})
    assert prepare([path], tokenizer, tmp_path / "out", same) == first


def test_another_corpus_tokenizer_or_setting_is_refused(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    out = tmp_path / "out"
    prepare([path], tokenizer, out, SMALL)
    with pytest.raises(UserError, match=r"another corpus \(tokenizer was"):
        prepare([path], make_tokenizer(3), out, SMALL)
    with pytest.raises(UserError, match=r"shard_megabytes was 0\.002, now 8"):
        prepare([path], tokenizer, out, PrepareSettings(words="characters"))
    write_corpus(path, CORPUS[:9])
    with pytest.raises(UserError, match=r"sources was c\.txt .*remove that folder"):
        prepare([path], tokenizer, out, SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x", "utf-8")
    with pytest.raises(UserError, match="is not empty"):
        prepare([path], tokenizer, tmp_path / "mine", SMALL)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
@pytest.mark.parametrize("name", ["ids", "sentences", "documents", "words"])
def test_opening_names_a_damaged_file(tmp_path, tokenizer, name, damage):
    prepare([write_corpus(tmp_path / "c.txt")], tokenizer, tmp_path / "out", SMALL)
    file = tmp_path / f"out/shards/00001/{name}.npy"
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 3)
    with pytest.raises(UserError, match=rf"00001/{name}\.npy is (missing|damaged)"):
        Shards.open(tmp_path / "out")


@pytest.mark.parametrize("name", ["ids", "sentences", "documents", "words"])
def test_one_changed_byte_is_found(tmp_path, tokenizer, name):
    prepare([write_corpus(tmp_path / "c.txt")], tokenizer, tmp_path / "out", SMALL)
    Shards.open(tmp_path / "out").verify()
    flip_a_byte(tmp_path / f"out/shards/00001/{name}.npy")
    with pytest.raises(UserError, match=rf"00001/{name}\.npy is damaged.*prepare the corpus again"):
        Shards.open(tmp_path / "out").verify()


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_a_cut_record_is_no_dead_end(tmp_path, tokenizer, name):
    path = write_corpus(tmp_path / "c.txt")
    prepare([path], tokenizer, tmp_path / "out", SMALL)
    os.truncate(tmp_path / "out" / name, 20)
    with pytest.raises(UserError, match="remove the folder and prepare the corpus again"):
        prepare([path], tokenizer, tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("name", "tail", "words", "processes"),
    [
        ("c.txt", b"\n\n\xff\xfe", "is not utf-8", 1),
        ("c.txt", b"\n\na\x00b", "NUL at byte", 2),
        ("c.jsonl", b'{"text": "a\\u0000b"}\n', "NUL", 1),
        ("c.jsonl", b'{"text": "a\\ud800b"}\n', r"lone surrogate \(U\+D800\)", 2),
        ("c.jsonl", b'{"body": "x"}\n', "no column 'text'", 1),
        ("c.jsonl", b'{"text": 7}\n', "the text is 7, a int", 1),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing(
    tmp_path, tokenizer, name, tail, words, processes
):
    path = write_corpus(tmp_path / "c.txt")
    if name == "c.jsonl":
        path = tmp_path / name
        lines = [json.dumps({"text": "\n".join(d)}) + "\n" for d in CORPUS]
        path.write_text("".join(lines), "utf-8")
    path.write_bytes(path.read_bytes() + tail)
    settings = SMALL.model_copy(update={"processes": processes})
    with pytest.raises(UserError, match=words):
        prepare([path], tokenizer, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tail", [b"\n\n\xff\xfe", None])
def test_what_a_folder_held_before_stays_whatever_happens(tmp_path, tokenizer, tail):
    path = write_corpus(tmp_path / "c.txt")
    path.write_bytes(b"" if tail is None else path.read_bytes() + tail)
    mine = tmp_path / "out/.git/config"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", "utf-8")
    (tmp_path / "out/.mine.1.tmp").write_text("mine too", "utf-8")
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"no text found|is not utf-8"):
        prepare([path], tokenizer, tmp_path / "out", SMALL)
    assert contents(tmp_path / "out") == before
    prepare([write_corpus(path)], tokenizer, tmp_path / "out", SMALL)
    assert contents(tmp_path / "out").items() >= before.items()


@pytest.mark.parametrize("content", ["", "\n \n\n", "\u200b\n"])
def test_a_corpus_without_text_is_refused(tmp_path, tokenizer, content):
    (tmp_path / "c.txt").write_text(content, "utf-8")
    with pytest.raises(UserError, match="no text found"):
        prepare([tmp_path / "c.txt"], tokenizer, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_cannot_write_says_so(tmp_path, tokenizer):
    path = write_corpus(tmp_path / "c.txt")
    out = tmp_path / "out"
    prepare([path], tokenizer, out, SMALL)
    (out / "manifest.json").unlink()
    (out / "shards").rename(tmp_path / "elsewhere")
    (out / "shards").write_text("a file where a folder should be", "utf-8")
    with pytest.raises(UserError, match="cannot write"):
        prepare([path], tokenizer, out, SMALL.model_copy(update={"processes": 2}))


def test_a_worker_that_dies_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Workers(tmp_path, tmp_path, 2) as workers, pytest.raises(UserError, match="--processes"):
        list(workers.make([Job.of(i, [packed(["a"])], 0) for i in range(3)]))


def test_workers_import_no_torch():
    code = "import sys, clozeworks.data.prepare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_word_of_a_megabyte_is_one_unknown_token(tmp_path, tokenizer):
    shard = make_shard(Job.of(0, [packed(["a", "x" * 1_000_000])], 1), tokenizer, tmp_path)
    assert shard.documents == 1
    assert shard.unknown == shard.tokens - 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=300))
def test_what_was_seen_is_known_however_it_is_kept(numbers):
    before = documents_module.RECENT
    documents_module.RECENT = 4
    try:
        seen, known = Seen(), set()
        for number in numbers:
            assert seen.add(f"文 {number}") == (number not in known)
            known.add(number)
        assert sum(len(part) for part in seen._sorted) + len(seen._recent) == len(known)
    finally:
        documents_module.RECENT = before


def test_text_files_are_documents_between_blank_lines(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("\ufeff\n\n题目\n 第一段。 \r\n\r\n \t\nNext\n\n\n", "utf-8", newline="")
    found = Documents([path], "text", "utf-8", None)
    assert list(found) == [["题目", "第一段。"], ["Next"]]
    assert found.count == {"kept": 2}
