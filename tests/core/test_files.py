"""Laws of files: read with positions, written whole or not at all."""

import errno
import gzip
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core import files
from clozeworks.core.errors import UserError
from clozeworks.core.files import (
    ABANDONED,
    digest,
    existing,
    open_binary,
    read_lines,
    write_file,
    write_folder,
)

LINES = ["first", "", "第二行 with 中文", "last"]


def raise_oserror(code):
    def raising(*given, **named):
        raise OSError(code, os.strerror(code))

    return raising


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# === Reading ===


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16", "big5"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_come_back_without_their_ends(encoding, end, tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(end.join(LINES).encode(encoding))
    assert list(read_lines(path, encoding)) == LINES
    path.write_bytes((end.join(LINES) + end).encode(encoding))
    assert list(read_lines(path, encoding)) == LINES


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "x.txt"
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "gb18030"):
        path.write_bytes("\ufeff甲\n乙".encode(encoding))
        assert list(read_lines(path, encoding)) == ["甲", "乙"]
    path.write_bytes(b"\xef\xbb\xbfab\xff\n")
    with pytest.raises(UserError, match="byte 5 "):
        list(read_lines(path))


@pytest.mark.parametrize(
    ("text", "encoding", "remedy"),
    [
        ("国家", "gb18030", "try --encoding gb18030"),
        ("café au lait", "cp1252", "try --encoding cp1252"),
        ("caf\x81", "latin-1", "name its own with --encoding"),
    ],
)
def test_an_encoding_is_named_only_where_the_line_reads_so(text, encoding, remedy, tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding) + b"\n")
    with pytest.raises(UserError, match=f"is not utf-8; {remedy}"):
        list(read_lines(path))


@pytest.mark.parametrize(("suffix", "packer"), [(".gz", gzip), (".xz", lzma)])
def test_packed_files_are_read_through_and_cut_ones_explained(suffix, packer, tmp_path):
    path = tmp_path / f"x.txt{suffix}"
    whole = packer.compress("\n".join(f"{i} 行" for i in range(5000)).encode())
    path.write_bytes(whole)
    assert sum(1 for _ in read_lines(path)) == 5000
    for kept in (len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"cut short or damaged.*copy it again"):
            list(read_lines(path))
    path.with_suffix(suffix.upper()).write_bytes(whole)
    assert sum(1 for _ in read_lines(path.with_suffix(suffix.upper()))) == 5000
    path.write_bytes(b"this is no packed file")
    with pytest.raises(UserError, match="damaged"):
        list(read_lines(path))
    path.write_bytes(whole[:12] + b"\xff" * 50 + whole[62:])
    with pytest.raises(UserError, match=r"damaged|not utf-8"):
        list(read_lines(path))
    path.write_bytes(packer.compress("中文\n".encode("utf-16") * 999)[:-9])
    with pytest.raises(UserError, match="cut short or damaged"):
        list(read_lines(path, "utf-16"))


@given(st.lists(st.text(alphabet="ab中文", max_size=8), max_size=6), st.integers(0, 3))
def test_the_byte_of_an_invalid_character_is_named(before, inside):
    head = "".join(f"{line}\n" for line in before) + "字" * inside
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.txt"
        path.write_bytes(head.encode() + b"\xb9\xfa\n")
        with pytest.raises(UserError, match=r"try --encoding") as refusal:
            list(read_lines(path))
        assert f"byte {len(head.encode())} (0xb9) is not utf-8" in str(refusal.value)


def test_what_is_no_text_is_explained(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("中文\nab\0c".encode())
    with pytest.raises(UserError, match=r"NUL at byte 9.*utf-16"):
        list(read_lines(path))
    path.write_text("中文", "utf-8")
    for encoding in ("utf8-sgi", "utf-16-xe"):
        with pytest.raises(UserError, match=f"encoding '{encoding}' is not known"):
            list(read_lines(path, encoding))
    path.write_bytes("中文".encode("utf-16")[:-1])
    with pytest.raises(UserError, match="is not utf-16"):
        list(read_lines(path, "utf-16"))
    path.write_text("中", "utf-8")
    with pytest.raises(UserError, match=r"byte 2 .* is not gb18030; try --encoding utf-8"):
        list(read_lines(path, "gb18030"))


def test_what_is_not_there_has_neighbours(tmp_path):
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"did you mean 'train.jsonl'"):
        existing(tmp_path / "trian.jsonl")
    with pytest.raises(UserError, match="nor does its folder"):
        existing(tmp_path / "absent" / "x")
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        open_binary(tmp_path)


def test_a_digest_is_of_the_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"d" * (3 << 20))
    assert digest(one) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(one, other) != digest(other, one)
    with pytest.raises(UserError, match="does not exist"):
        digest(tmp_path / "absent")


# === Writing ===


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with write_file(path) as stream:
        stream.write("中文\r\n")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == "中文\r\n".encode()
    with write_file(path, "wb") as stream:
        stream.write(b"\0")
    assert path.read_bytes() == b"\0"
    assert names_in(path.parent) == ["x.txt"]


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with path.open() as reader:
        with write_file(path) as stream:
            stream.write("newer")
        assert reader.read() == "old"
    assert path.read_text() == "newer"


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyError), write_file(path) as stream:
        stream.write("new")
        raise KeyError
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["x.txt"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the folder is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_refusing_disk_is_explained_and_nothing_is_left(code, remedy, tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", raise_oserror(code))
    explained = pytest.raises(UserError, match=rf"cannot write .*x\.txt: {remedy}")
    with explained, write_file(tmp_path / "x.txt") as stream:
        stream.write("new")
    explained = pytest.raises(UserError, match=rf"cannot write .*folder: {remedy}")
    with explained, write_folder(tmp_path / "folder") as aside:
        (aside / "x").write_text("new")
    assert names_in(tmp_path) == []


def test_a_disk_that_fills_while_writing_is_explained(tmp_path):
    with pytest.raises(UserError, match="the disk is full"), write_file(tmp_path / "x") as stream:
        stream.write("half")
        raise_oserror(errno.ENOSPC)()
    with pytest.raises(UserError, match="the disk is full"), write_folder(tmp_path / "y") as aside:
        (aside / "one").write_text("half")
        raise_oserror(errno.ENOSPC)()
    assert names_in(tmp_path) == []


def test_a_path_that_cannot_be_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    explained = pytest.raises(UserError, match=r"is a file, not a folder|File exists")
    with explained, write_file(tmp_path / "file" / "x"):
        pass
    explained = pytest.raises(UserError, match="the name is too long")
    with explained, write_file(tmp_path / ("n" * 300)):
        pass


def test_a_folder_appears_whole_and_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "deep" / "folder"
    with write_folder(path) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "x").write_text("1")
        assert not path.exists()
    with pytest.raises(UserError, match="already exists"), write_folder(path):
        pass
    with pytest.raises(KeyError), write_folder(path, replace=True) as aside:
        raise KeyError
    assert (path / "inner" / "x").read_text() == "1"
    with write_folder(path, replace=True) as aside:
        (aside / "y").write_text("2")
    assert [p.name for p in path.iterdir()] == ["y"]
    assert names_in(path.parent) == ["folder"]


def test_what_a_killed_process_of_our_number_left_is_no_hindrance(tmp_path):
    """Containers give every start the same process number."""
    for leftover in (f".folder.{os.getpid()}.tmp", f".folder.{os.getpid()}.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "stale").write_text("x")
    for text in ("1", "2"):
        with write_folder(tmp_path / "folder", replace=True) as aside:
            (aside / "x").write_text(text)
    assert names_in(tmp_path) == ["folder"]
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["x"]


def test_what_nobody_has_written_on_for_a_day_is_removed(tmp_path):
    for name in (".file.7.tmp", ".file.8.tmp", ".other.7.tmp"):
        (tmp_path / name).write_text("half")
    long_ago = time.time() - ABANDONED - 1
    os.utime(tmp_path / ".file.7.tmp", (long_ago, long_ago))
    os.utime(tmp_path / ".other.7.tmp", (long_ago, long_ago))
    with write_file(tmp_path / "file") as out:
        out.write("whole")
    assert names_in(tmp_path) == [".file.8.tmp", ".other.7.tmp", "file"]


KILLED = """
import sys, time
from clozeworks.core.files import write_file, write_folder
for number in range(100000):
    text = str(number) * 20000
    with write_file(sys.argv[1] + "/file") as out:
        out.write(text)
    with write_folder(sys.argv[1] + "/folder", replace=True) as aside:
        (aside / "one").write_text(text)
        (aside / "two").write_text(text)
    print(number, flush=True)
"""


def test_a_process_killed_while_writing_leaves_the_old_or_the_new(tmp_path):
    for delay in (0.0, 0.003, 0.011):
        call = [sys.executable, "-c", KILLED, str(tmp_path)]
        process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "0\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        text = (tmp_path / "file").read_text()
        number = text[: len(text) // 20000]
        assert text == number * 20000
        folder = tmp_path / "folder"
        if not folder.exists():  # a kill between the two renames leaves it under its other name
            with pytest.raises(UserError, match="already exists"), write_folder(folder):
                pass  # the next to write there puts it back first
        assert (folder / "one").read_text() == (folder / "two").read_text()


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    with write_folder(folder) as aside:
        (aside / "one").write_text("old")
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(errno.EACCES, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(UserError, match="permission"), write_folder(folder, replace=True) as aside:
        (aside / "one").write_text("new")
    assert (folder / "one").read_text() == "old" and names_in(tmp_path) == ["folder"]
