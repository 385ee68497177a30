"""`prepare`: corpus files in, a folder of shards out; takes up where it was killed."""

import codecs
import contextlib
import json
import lzma
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

from pydantic import Field

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import (
    digest,
    existing,
    explained,
    open_binary,
    write_file,
    write_folder,
)
from clozeworks.core.log import Meter, say
from clozeworks.core.run import LOCK, alone_in
from clozeworks.data.documents import MANY_LINES, Documents, LeftOut, Wanted
from clozeworks.data.shards import (
    LEFT_OUT,
    MANIFEST,
    PLAN,
    Manifest,
    Origin,
    Plan,
    Shard,
    Shards,
    finished_shard,
    read_record,
    write_record,
)
from clozeworks.data.sources.base import PACKED, format_of
from clozeworks.data.workers import Job, Workers, cores, id_type, make_shard, packed
from clozeworks.text.alphabet import is_chinese
from clozeworks.text.scripts import Script
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.tokenizer import Tokenizer


class PrepareSettings(Settings):
    """How a corpus becomes shards."""

    column: str = "text"
    """The column that holds the text, in files that have columns."""
    encoding: str = "utf-8"
    """The files' encoding, for example gb18030."""
    format: str | None = None
    """The files' form (csv, excel, jsonl, parquet, text); by default as their names say."""
    lines: bool = False
    """Each line of a text file is a document; else blank lines lie between documents."""
    processes: int | None = Field(default=None, ge=1)
    """Processes to use; by default one for each core. The result does not depend on it."""
    shard_megabytes: float = Field(default=8, gt=0)
    """Text of one shard: also about a tenth of the memory that each process takes."""
    words: str = "auto"
    """How Chinese is cut into words, for masking whole ones: jieba, characters (each is a word),
    auto for jieba where it is installed, or none to write no bounds of words."""
    min_characters: int = Field(default=0, ge=0)
    """Documents with fewer characters are left out, and counted; 0 keeps them all."""
    scripts: list[Script] = []
    """Keep only documents in these scripts (han, latin); by default all are kept."""
    script_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a document's letters that must be of those scripts."""

    @property
    def wanted(self) -> Wanted:
        """Which documents are kept."""
        return Wanted(self.min_characters, self.scripts, self.script_share)


OWN = (PLAN, "tokenizer", "shards", LEFT_OUT, MANIFEST)
"""Everything `prepare` writes into a folder, by name."""
UNTOLD = {"encoding", "form"}
"""What the plans of folders that were prepared earlier do not tell."""


class _Unreadable(UserError):
    """A corpus file that cannot be read to its end: what was made from it is of no use."""


def prepare(
    files: Sequence[str | Path], tokenizer: Tokenizer, out: str | Path, settings: PrepareSettings
) -> Manifest:
    """Write the corpus as a folder of shards, and return its manifest.

    Text files hold one document a block, with blank lines between, or with `lines` one a line;
    other files one a row. Called again after it was killed, it keeps the shards that are whole.
    Raises UserError if `out` holds something else, a file cannot be read (then nothing is left
    behind), or there is no text.
    """
    out = Path(out)
    paths = [existing(file) for file in files]
    plan = _plan(paths, tokenizer, settings)
    _claim(out, plan)
    if not (out / MANIFEST).exists():
        with alone_in(out):
            made = _whole(paths, plan, tokenizer, out, settings)
            (out / LOCK).unlink(missing_ok=True)  # from now on the manifest keeps others from it
            return made
    return Shards.open(out).manifest


def _whole(
    paths: list[Path], plan: Plan, tokenizer: Tokenizer, out: Path, settings: PrepareSettings
) -> Manifest:
    """The manifest of a folder that is ours, once it is whole."""
    if (out / MANIFEST).exists():
        return Shards.open(out).manifest
    _sweep(out)
    if not (out / "tokenizer").exists():
        with write_folder(out / "tokenizer") as aside:
            tokenizer.save(aside)
    total = _megabytes(paths, settings.format)
    if (settings.words, plan.words) == ("auto", "characters") and _knows_chinese(tokenizer):
        say("jieba is not installed: every Chinese character counts as a word ([zh] installs it)")
    try:
        with explained(out), Meter("prepare", total, "MB") as meter:
            manifest, documents = _prepare(paths, plan, tokenizer, out, settings, meter)
    except _Unreadable:
        _undo(out)
        raise
    _write_left_out(out / LEFT_OUT, documents.left_out)
    write_record(out / MANIFEST, manifest)
    _say(manifest)
    _say_unbroken(documents.unbroken)
    return manifest


def _plan(paths: Sequence[Path], tokenizer: Tokenizer, settings: PrepareSettings) -> Plan:
    if not paths:
        raise UserError("no corpus file is named")
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path} is a folder; name the files in it, for example {path}/*.txt")
    segmenter = pick_segmenter(settings.words)
    with explained(paths[0], "read"):
        sources = [Origin(name=path.name, sha256=digest(path)) for path in paths]
    return Plan(
        tokenizer=tokenizer.hash,
        sources=sources,
        column=settings.column,
        shard_megabytes=settings.shard_megabytes,
        words=None if segmenter is None else segmenter.identity,
        format=1 if segmenter is None else 2,
        min_characters=settings.min_characters,
        scripts=settings.scripts,
        script_share=settings.script_share,
        encoding=_canonical(settings.encoding),
        form=settings.format or "by name",
        lines=settings.lines,
    )


def _canonical(encoding: str) -> str:
    """One name for an encoding that has several; an unknown one is refused when it is used."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return encoding


def _knows_chinese(tokenizer: Tokenizer) -> bool:
    return any(is_chinese(piece) for piece in tokenizer.pieces if len(piece) == 1)


def _claim(out: Path, plan: Plan) -> None:
    """Make the folder, or see that it is to hold the same."""
    if (out / PLAN).exists():
        _refuse_if_other(out, read_record(Plan, out / PLAN), plan)
    else:
        with explained(out):
            if out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
                raise UserError(f"{out} is not empty; choose another --out, or remove it")
            out.mkdir(parents=True, exist_ok=True)
        write_record(out / PLAN, plan)


def _refuse_if_other(out: Path, there: Plan, here: Plan) -> None:
    differ = [
        f"{name} was {_shown(was)}, now {_shown(now)}"
        for name in Plan.model_fields
        if (was := getattr(there, name)) != (now := getattr(here, name))
        and not (was is None and name in UNTOLD)
    ]
    if differ:
        raise UserError(
            f"{out} holds shards of another corpus ({'; '.join(differ)}); choose another --out, "
            "or remove that folder"
        )


def _shown(value: object) -> str:
    if not isinstance(value, list):
        return repr(value)
    parts = (f"{s.name} ({s.sha256[:8]})" if isinstance(s, Origin) else str(s) for s in value)
    return ", ".join(parts) or "none"


def _sweep(out: Path) -> None:
    """Remove what a killed process was writing."""
    for name in OWN:
        _remove(out.glob(f".{name}.*.tmp"))
    _remove(chain(out.glob("shards/.*.tmp"), out.glob("shards/.*.old")))


def _undo(out: Path) -> None:
    """Remove what was written, and the folder unless it held something before."""
    _sweep(out)
    _remove(out / name for name in (*OWN, LOCK))
    with contextlib.suppress(OSError):  # something else is in it, or it is the current one
        out.rmdir()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _prepare(
    paths: Sequence[Path],
    plan: Plan,
    tokenizer: Tokenizer,
    out: Path,
    settings: PrepareSettings,
    meter: Meter,
) -> tuple[Manifest, Documents]:
    documents = Documents(
        paths,
        settings.column,
        settings.encoding,
        settings.format,
        settings.wanted,
        settings.lines,
    )
    shards: dict[str, Shard] = {}
    jobs = _unfinished(_jobs(documents, settings.shard_megabytes), out, plan, shards, meter)
    for job, shard in _made(jobs, tokenizer, out, settings):
        shards[job.name] = shard
        meter.advance(job.megabytes)
    ordered = [shards[name] for name in sorted(shards)]
    kept = sum(shard.documents for shard in ordered)
    if not kept:
        raise _Unreadable(_nothing(paths, documents))
    manifest = Manifest(
        **plan.model_dump(),
        dtype=id_type(tokenizer).name,
        documents=kept,
        sentences=sum(shard.sentences for shard in ordered),
        tokens=sum(shard.tokens for shard in ordered),
        unknown=sum(shard.unknown for shard in ordered),
        duplicates=documents.count["duplicates"],
        empty=documents.count["empty"] + documents.count["kept"] - kept,
        short=documents.count["short"],
        other_scripts=documents.count["other_scripts"],
        divided=documents.divided,
        characters=dict(sorted(documents.characters.items())),
        shards=ordered,
    )
    return manifest, documents


def _nothing(paths: Sequence[Path], documents: Documents) -> str:
    """Why no document is left, in words."""
    names = ", ".join(map(str, paths))
    if unwanted := documents.count["short"] + documents.count["other_scripts"]:
        return (
            f"{names}: no document is left: all {unwanted:,} that hold text are too short or in "
            "another script; lower --min-characters, or change --scripts"
        )
    return f"{names}: no text found"


def _write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """Show the first documents left out for each reason, a line each; no file where none was."""
    if not left_out:
        path.unlink(missing_ok=True)
        return
    with write_file(path) as out:
        out.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in left_out)


def _jobs(documents: Documents, shard_megabytes: float) -> Iterator[Job]:
    """The documents in shards; a shard ends with the document that fills it."""
    held: list[bytes] = []
    size = number = before = 0
    try:
        for document in documents:
            held.append(packed(document))
            size += len(held[-1])
            if size >= shard_megabytes * 1e6:
                yield Job.of(number, held, (documents.bytes_read - before) / 1e6)
                held, size, number, before = [], 0, number + 1, documents.bytes_read
    except UserError as error:
        raise _Unreadable(str(error)) from error
    if held:
        yield Job.of(number, held, (documents.bytes_read - before) / 1e6)


def _unfinished(
    jobs: Iterable[Job], out: Path, plan: Plan, shards: dict[str, Shard], meter: Meter
) -> Iterator[Job]:
    """The jobs whose shards are not there yet; the shards that are go into `shards`."""
    for job in jobs:
        shard = finished_shard(out / "shards" / job.name, job.source, plan.tokenizer)
        if shard is None:
            yield job
        else:
            shards[job.name] = shard
            meter.advance(job.megabytes)


def _made(
    jobs: Iterator[Job], tokenizer: Tokenizer, out: Path, settings: PrepareSettings
) -> Iterator[tuple[Job, Shard]]:
    """Each job with its shard; a single job, or a single process, needs no other process."""
    folder, processes = out / "shards", settings.processes or cores()
    first = list(islice(jobs, 2))
    if processes == 1 or len(first) < 2:
        segmenter = pick_segmenter(settings.words)
        for job in chain(first, jobs):
            yield job, make_shard(job, tokenizer, folder, segmenter)
        return
    with Workers(out / "tokenizer", folder, processes, settings.words) as workers:
        yield from workers.make(chain(first, jobs))


def _megabytes(paths: Sequence[Path], format: str | None) -> float | None:
    """The text to read, unpacked; None where a file's size does not tell."""
    if not {format or format_of(path) for path in paths} <= {"text", "jsonl", "csv"}:
        return None
    return sum(map(_unpacked_size, paths)) / 1e6


def _unpacked_size(path: Path) -> int:
    if path.suffix.lower() not in PACKED:
        return path.stat().st_size
    try:
        with open_binary(path) as stream:
            return sum(map(len, iter(lambda: stream.read(1 << 20), b"")))
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise UserError(f"{path} is cut short or damaged: {error}; copy it again") from error


def _say(manifest: Manifest) -> None:
    """Say what was kept of a corpus, and what was not and why."""
    characters = manifest.characters
    say(
        f"kept: {manifest.documents:,} documents, {manifest.sentences:,} sentences, "
        f"{characters.get('kept', 0):,} characters, {manifest.tokens:,} tokens "
        f"({manifest.unknown / manifest.tokens:.3%} unknown)"
    )
    reasons = {
        "duplicates": "the same text came before",
        "empty": "they hold no text",
        "short": f"they have fewer than {manifest.min_characters:,} characters",
        "other_scripts": f"under {manifest.script_share:.0%} of their letters are "
        + " or ".join(manifest.scripts),
    }
    for name, reason in reasons.items():
        if count := getattr(manifest, name):
            say(f"left out: {count:,} documents, {characters.get(name, 0):,} characters: {reason}")
    if manifest.divided:
        say(f"documents over a million characters were divided in {manifest.divided:,} places")


def _say_unbroken(files: Sequence[Path]) -> None:
    """Warn of text files that look like one document a line but were read as one document."""
    if files:
        others = f" (and {len(files) - 1:,} more)" if len(files) > 1 else ""
        say(
            f"warning: {files[0]}{others}: {MANY_LINES} lines or more without a blank one between "
            "them are one document; if each line is one, prepare again with --lines, into another "
            "--out"
        )
