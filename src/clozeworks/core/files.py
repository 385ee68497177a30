"""Files read with clear errors and written whole or not at all."""

import contextlib
import errno
import glob
import gzip
import hashlib
import io
import lzma
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from clozeworks.core.errors import UserError, suggestion

Line = TypeVar("Line", str, bytes)

MARK = "\ufeff"
"""The byte-order mark, which may stand before a text and is none of it."""
LIKELY = ("utf-8", "gb18030", "cp1252")
"""Encodings that a file may have where it has not the one that was named."""
AS_UTF8 = "save it as UTF-8"
"""The remedy for a file that is always read as UTF-8."""

ABANDONED = 24 * 3600
"""Seconds after which a file that nobody goes on writing aside was left by a killed process."""

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EROFS: "the folder is read-only; choose another one",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "this is a folder, a file was expected",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextlib.contextmanager
def explained(path: Path, verb: str = "write") -> Iterator[None]:
    """Turn an OSError about `path` into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0, error.strerror or str(error))
        raise UserError(f"cannot {verb} {path}: {remedy}") from error


def existing(path: str | Path, what: str = "file") -> Path:
    """Return `path` if it is there; otherwise raise UserError naming its nearest neighbours."""
    path = Path(path)
    if path.exists():
        return path
    if path.parent.is_dir():
        names = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
        raise UserError(f"{what} {path} does not exist{suggestion(path.name, names)}")
    raise UserError(f"{what} {path} does not exist, nor does its folder {path.parent}")


def open_binary(path: str | Path) -> IO[bytes]:
    """Open a file for reading, unpacking .gz and .xz by their names."""
    path = existing(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    with explained(path, "read"):
        packed = path.suffix.lower()
        if packed == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if packed == ".xz":
            return cast(IO[bytes], lzma.open(path, "rb"))
        return path.open("rb")


def read_lines(
    path: str | Path, encoding: str = "utf-8", remedy: str | None = None, *, ends: bool = False
) -> Iterator[str]:
    """Yield the lines of a text file without their line ends, a byte-order mark removed.

    With `ends` as they are, which counts where a text goes on over several lines.

    Raises UserError with the byte position where the bytes are not `encoding`, or where a NUL shows
    that the file is not text (or is UTF-16: give `encoding="utf-16"`). The error says to do
    `remedy`; without one, to name another --encoding.
    """
    path = Path(path)
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        lines = _wide_lines(path, encoding)
    else:
        lines = _narrow_lines(path, encoding, remedy)
    yield from lines if ends else (line.rstrip("\r\n") for line in lines)


def _narrow_lines(path: Path, encoding: str, remedy: str | None) -> Iterator[str]:
    """Lines of an encoding in which a line end is one byte."""
    position = 0
    with open_binary(path) as raw:
        for data in sound_lines(raw, path):
            yield _decoded(data, path, position, encoding, remedy)
            position += len(data)


def _wide_lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines of an encoding in which a line end is more than one byte."""
    try:
        with (
            open_binary(path) as raw,
            io.TextIOWrapper(raw, encoding=encoding, newline="\n") as text,
        ):
            for number, line in enumerate(sound_lines(text, path)):
                yield line if number else line.removeprefix(MARK)
    except UnicodeError as error:
        raise UserError(f"{path} is not {encoding}: {error}") from error
    except LookupError as error:
        raise _unknown(encoding) from error


def sound_lines(lines: Iterable[Line], path: Path) -> Iterator[Line]:
    """The lines of a stream; raises UserError where a packed file is damaged."""
    try:
        yield from lines
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is cut short or damaged: {error}; copy it again") from error


def _decoded(line: bytes, path: Path, position: int, encoding: str, remedy: str | None) -> str:
    if b"\x00" in line:
        at = position + line.index(b"\x00")
        then = remedy or "try --encoding utf-16"
        raise UserError(f"{path}: NUL at byte {at}: not a text file, or UTF-16 (then {then})")
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError as error:
        at = position + error.start
        raise UserError(
            f"{path}: byte {at} (0x{line[error.start]:02x}) is not {encoding}; "
            f"{remedy or _likelier(line, encoding)}"
        ) from error
    except UnicodeError as error:  # a codec that is no character encoding, such as punycode
        raise UserError(f"{path} cannot be read as {encoding!r}: {error}") from error
    except LookupError as error:
        raise _unknown(encoding) from error
    return text if position else text.removeprefix(MARK)


def _likelier(line: bytes, encoding: str) -> str:
    """The remedy for a line of another encoding: the flag with one in which it can be read."""
    other = next((name for name in LIKELY if name != encoding and _reads(line, name)), None)
    return f"try --encoding {other}" if other else "name its own with --encoding"


def _reads(line: bytes, encoding: str) -> bool:
    """Whether a line can be read so."""
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _unknown(encoding: str) -> UserError:
    return UserError(
        f"encoding {encoding!r} is not known (for example: utf-8, gb18030, big5, utf-16)"
    )


@contextlib.contextmanager
def write_file(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing aside; on success sync it and rename it into place, else remove it.

    Text is UTF-8 with "\\n" line ends. Raises UserError on a full disk or a folder that refuses.
    """
    path = Path(path)
    aside = _aside(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open(mode, **text) as stream:  # type: ignore[call-overload]
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)
            sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def write_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Fill a folder aside; on success sync every file and rename it to `path`, else remove it.

    An existing `path` is an error unless `replace`; then it is swapped out only at the end.
    """
    path = Path(path)
    with explained(path):
        _recover(path)
    if path.exists() and not replace:
        raise UserError(f"{path} already exists; choose another folder or remove it")
    aside = _aside(path)
    with explained(path):
        try:
            shutil.rmtree(aside, ignore_errors=True)  # of a killed process that had our number
            aside.mkdir(parents=True)
            yield aside
            for file in aside.rglob("*"):
                if file.is_file():
                    _sync(file)
            sync_folder(aside)
            _swap(aside, path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    """Where `path` is written before it is whole; what a killed process left there is removed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _swap(aside: Path, path: Path) -> None:
    if not path.exists():
        aside.rename(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        aside.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _recover(path: Path) -> None:
    """Put back what a process killed between two renames has left beside `path`, or remove it."""
    for old in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.old")):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` last through a power cut, where the system can."""
    with contextlib.suppress(OSError):  # some systems cannot sync a folder
        _sync(path)


def digest(*paths: str | Path) -> str:
    """The SHA-256 of the files' bytes, one after another, in hexadecimal."""
    total = hashlib.sha256()
    for path in paths:
        with existing(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()
