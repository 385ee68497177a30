"""Shards: the one form of tokenised text on disk, and its manifest."""

import json
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from clozeworks.core.bundle import read_json
from clozeworks.core.config import Settings, validated
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest, existing, write_file, write_folder
from clozeworks.core.records import Bools, Ints
from clozeworks.text.scripts import Script

MANIFEST = "manifest.json"
PLAN = "plan.json"
LEFT_OUT = "left_out.jsonl"
"""The first documents left out for each reason, where there are any."""
REMEDY = "remove the folder and prepare the corpus again"
OPEN_FILES = 128
"""Files of shards mapped into memory at once; each is held open."""

N = TypeVar("N", bound=np.generic)


class Origin(Settings):
    """One file a corpus was read from."""

    name: str
    sha256: str


class Plan(Settings):
    """What decides every byte of the shards; another plan needs another folder."""

    words: str | None = None
    """The segmenter that found the bounds of words; None where there are none."""
    format: Literal[1, 2] = 1
    """Version of the folder's form; 2 has `words`."""
    tokenizer: str
    """Hash of the tokenizer, which is saved beside the shards."""
    sources: list[Origin]
    """The files, in order."""
    column: str
    """The column of the text, where the files have columns."""
    shard_megabytes: float
    """Text of one shard."""
    min_characters: int = 0
    """Documents with fewer characters are left out."""
    scripts: list[Script] = []
    """Documents in other scripts are left out; where it is empty, none."""
    script_share: float = 0.5
    """Share of a document's letters that must be of those scripts."""
    encoding: str | None = None
    """The files' encoding; None in folders that were prepared before it was written down."""
    form: str | None = None
    """The files' form, or "by name"; None in folders prepared before it was written down."""
    lines: bool = False
    """Whether each line of a text file is a document."""


class Shard(Settings):
    """One shard: what it was made from and what it must hold."""

    name: str
    source: str
    """SHA-256 of the text it was made from."""
    tokenizer: str
    documents: int
    sentences: int
    tokens: int
    unknown: int
    """Tokens that are the unknown token."""
    bytes: dict[str, int]
    """Size of each file."""
    sha256: dict[str, str]
    """Hash of each file."""


class Manifest(Plan):
    """The contents of `manifest.json`, written last: its presence makes the folder whole."""

    dtype: Literal["uint16", "uint32"]
    documents: int
    sentences: int
    tokens: int
    unknown: int
    """Tokens that are the unknown token."""
    duplicates: int
    """Documents left out because the same text came before."""
    empty: int
    """Documents left out because they hold no token."""
    short: int = 0
    """Documents left out because they have too few characters."""
    other_scripts: int = 0
    """Documents left out because they are written in another script."""
    divided: int
    """Places where a document too long for a shard was divided in two."""
    characters: dict[str, int] = {}
    """Characters of the documents that were `kept`, and of those left out, by the name of the field
    that counts them."""
    shards: list[Shard]


class Shards:
    """A folder of tokenised text, mapped into memory as it is read.

    sentences [S + 1] int64: the token at which each sentence starts, and the end. documents
    [D + 1] int64: the sentence at which each document starts, and the end. No document crosses
    from one shard into the next.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._starts = _running([shard.tokens for shard in manifest.shards]).tolist()
        self._mapped: dict[tuple[int, str], npt.NDArray[np.unsignedinteger]] = {}
        self.sentences = self._joined("sentences", [s.tokens for s in manifest.shards])
        self.documents = self._joined("documents", [s.sentences for s in manifest.shards])

    @classmethod
    def open(cls, folder: str | Path) -> "Shards":
        """Open a folder that `prepare` wrote; raises UserError if a file is missing or cut short"""
        folder = existing(folder, "folder of shards")
        if not (folder / MANIFEST).exists():
            if (folder / PLAN).exists():
                raise UserError(f"{folder} is not finished; run the same `prepare` again")
            raise UserError(f"{folder} holds no shards; make them with `clozeworks prepare`")
        manifest = read_record(Manifest, folder / MANIFEST)
        for shard in manifest.shards:
            check_sizes(folder / "shards" / shard.name, shard)
        existing(folder / "tokenizer" / "tokenizer.json")
        return cls(folder, manifest)

    def verify(self) -> None:
        """Read every byte once; raises UserError naming a file that is not what was written."""
        for shard in self.manifest.shards:
            check_hashes(self.folder / "shards" / shard.name, shard)

    @property
    def vocabulary_hash(self) -> str:
        """Hash of the tokenizer the ids belong to."""
        return self.manifest.tokenizer

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer the ids belong to is saved."""
        return self.folder / "tokenizer"

    def take(self, start: int, stop: int) -> Ints:
        """Token ids from `start` to `stop`, counted over all shards, int64 [stop - start]."""
        parts = [self._map(s, "ids")[begin:end] for s, begin, end in self._ranges(start, stop)]
        return _as_one(parts, np.int64)

    def word_starts(self, start: int, stop: int) -> Bools:
        """Which tokens from `start` to `stop` begin a word, bool [stop - start].

        Only where the manifest says `words`.
        """
        parts = []
        for shard, begin, end in self._ranges(start, stop):
            stored = self._map(shard, "words")[begin // 8 : -(-end // 8)]
            bits = np.unpackbits(stored, bitorder="little")
            parts.append(bits[begin % 8 : begin % 8 + end - begin])
        return _as_one(parts, np.bool_)

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """A range of tokens as ranges within shards: (shard, start, stop)."""
        if not 0 <= start <= stop <= self.manifest.tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.manifest.tokens}")
        shard = bisect_right(self._starts, start) - 1
        while start < stop:
            first, end = self._starts[shard], self._starts[shard + 1]
            yield shard, start - first, min(stop, end) - first
            start, shard = min(stop, end), shard + 1

    def _map(self, shard: int, name: str) -> npt.NDArray[np.unsignedinteger]:
        if (shard, name) not in self._mapped:
            if len(self._mapped) >= OPEN_FILES:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[shard, name] = self._load(shard, name, mmap_mode="r")
        return self._mapped[shard, name]

    def _load(
        self, shard: int, name: str, mmap_mode: Literal["r"] | None = None
    ) -> npt.NDArray[np.unsignedinteger]:
        path = self.folder / "shards" / self.manifest.shards[shard].name / f"{name}.npy"
        try:
            # as a plain array: cutting a memmap costs three times as much
            return np.asarray(np.load(path, mmap_mode=mmap_mode))
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); {REMEDY}") from error

    def _joined(self, name: str, totals: list[int]) -> Ints:
        """The shards' offsets of one kind as one array of offsets."""
        bases = _running(totals)
        parts = [self._load(i, name)[:-1] + bases[i] for i in range(len(totals))]
        return np.concatenate([*parts, bases[-1:]], dtype=np.int64)


def _as_one(parts: list[npt.NDArray[np.unsignedinteger]], dtype: type[N]) -> npt.NDArray[N]:
    """The parts of a range as one array; nearly every range is of one part."""
    if len(parts) == 1:
        return parts[0].astype(dtype)
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _running(totals: list[int]) -> Ints:
    return np.concatenate([[0], np.cumsum(totals)]).astype(np.int64)


def write_shard(path: Path, arrays: dict[str, npt.NDArray[np.generic]], shard: Shard) -> Shard:
    """Write a shard's arrays and its record as one folder; returns the record with its sizes."""
    with write_folder(path, replace=True) as aside:
        for name, array in arrays.items():
            _save(aside / f"{name}.npy", array)
        files = [aside / f"{name}.npy" for name in arrays]
        sizes = {file.name: file.stat().st_size for file in files}
        hashes = {file.name: digest(file) for file in files}
        shard = shard.model_copy(update={"bytes": sizes, "sha256": hashes})
        (aside / "shard.json").write_text(shard.model_dump_json(), "utf-8")
    return shard


def _save(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write one array as .npy; unlike `np.save`, a full disk raises the system's own error."""
    with path.open("wb") as out:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(out, header)
        out.write(array.data)


def finished_shard(path: Path, source: str, tokenizer: str) -> Shard | None:
    """The record of a whole shard already made from this text and tokenizer, else None."""
    try:
        shard = read_record(Shard, path / "shard.json")
        check_sizes(path, shard)
        check_hashes(path, shard)
    except UserError:
        return None
    return shard if (shard.source, shard.tokenizer) == (source, tokenizer) else None


def check_sizes(path: Path, shard: Shard) -> None:
    """Raise UserError naming a file of the shard that is missing or has another size."""
    for name, size in shard.bytes.items():
        file = path / name
        if not file.exists():
            raise UserError(f"{file} is missing; {REMEDY}")
        if (found := file.stat().st_size) != size:
            raise UserError(f"{file} is damaged: {found:,} bytes, not {size:,}; {REMEDY}")


def check_hashes(path: Path, shard: Shard) -> None:
    """Raise UserError naming a file of the shard in which something changed."""
    for name, expected in shard.sha256.items():
        if digest(path / name) != expected:
            raise UserError(
                f"{path / name} is damaged: its bytes are not what was written; {REMEDY}"
            )


R = TypeVar("R", bound=Settings)


def read_record(kind: type[R], path: Path) -> R:
    """A plan, shard or manifest read back; raises UserError if its file is damaged."""
    return validated(kind, read_json(path, REMEDY), str(path))


def write_record(path: Path, record: Settings) -> None:
    """Write a plan or manifest as JSON for people and programs."""
    with write_file(path) as out:
        json.dump(record.model_dump(mode="json"), out, indent=2, ensure_ascii=False)
        out.write("\n")
