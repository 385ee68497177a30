"""A gigabyte through `prepare`: its memory, and what a kill in the middle changes (nothing).

    python benchmarks/long/prepare_gb.py         (--megabytes 1000, --out runs/long/prepare_gb)

The corpus is wiki_en and wiki_zh over and over, each copy of a document varied (its lines turned
by the number of the copy, one left out, a line of its own before them) and one in twenty the same
as before, letter for letter. It is prepared undisturbed; then anew, killed with -9 when a third of
the shards are there, and begun again. Memory is the peak of the resident sizes of all processes.
Resumable: the corpus, and each of the two, once done, are kept until the end.
"""

import argparse
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from clozeworks.core.files import digest, write_file, write_folder  # noqa: E402
from harness.measure import DATA, RESULTS, machine  # noqa: E402
from prepare import PREPARE, resident  # noqa: E402

CORPORA = ("wiki_en/wiki_en.txt.xz", "wiki_zh/wiki_zh.txt.xz")
VOCABULARY = DATA / "vocab/bert-base-chinese-vocab.txt"
RESULT = RESULTS / "long_prepare_gb.json"
MOST_MB = 1500
"""Memory that all processes together may take."""
FILE_MB = 100
"""Size of one file of the corpus."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("runs/long/prepare_gb"))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    before = machine()
    home = options.out / f"{options.megabytes}-mb"
    files = corpus(home / "corpus", options.megabytes)
    whole, killed = home / "whole", home / "killed"

    def undisturbed() -> dict[str, Any]:
        shutil.rmtree(whole, ignore_errors=True)
        return measured(files, whole, options.processes)

    def disturbed() -> dict[str, Any]:
        shutil.rmtree(killed, ignore_errors=True)
        third = max(1, len(list((whole / "shards").iterdir())) // 3)
        first = measured(files, killed, options.processes, kill_at=third)
        again = measured(files, killed, options.processes)
        peak = max(first["peak_mb"], again["peak_mb"])
        return {**again, "peak_mb": peak, "killed_after_shards": first["shards"]}

    rows = {
        "whole": once(home / "whole.json", undisturbed),
        "killed": once(home / "killed.json", disturbed),
    }
    identical = contents(whole) == contents(killed)
    conclude(rows, identical, {"machine": before, "processes": options.processes})
    shutil.rmtree(home)


def corpus(folder: Path, megabytes: int) -> list[Path]:
    """The files of the corpus, made unless they are there."""
    if not folder.exists():
        texts = varied([documents(name, megabytes * 1_000_000 // 20) for name in CORPORA])
        with write_folder(folder) as aside:
            for start in range(0, megabytes, FILE_MB):
                size = min(FILE_MB, megabytes - start)
                with (aside / f"part{start // FILE_MB:03d}.txt").open("wb") as stream:
                    while stream.tell() < size * 1e6:
                        stream.write(next(texts).encode() + b"\n\n")
    return sorted(folder.glob("*.txt"))


def documents(name: str, limit: int) -> list[str]:
    """The first documents of a corpus; few where little is asked for, so that copies are needed."""
    with lzma.open(DATA / name, "rt", encoding="utf-8") as stream:
        return stream.read(limit).strip().split("\n\n")


def varied(sources: list[list[str]]) -> Iterator[str]:
    """Documents without end, English and Chinese by turns: a function of the corpora alone."""
    for copy in count():
        for place in range(max(map(len, sources))):
            for own in sources:
                if place < len(own):
                    yield variation(own[place], copy, place)


def variation(document: str, copy: int, place: int) -> str:
    """One copy of a document; of the first copy, and of every twentieth document, the text."""
    if copy == 0 or place % 20 == 0:
        return document
    lines = document.split("\n")
    turn = copy % len(lines)
    turned = [*lines[turn:], *lines[:turn]]
    if len(turned) > 2:
        del turned[place % len(turned)]
    return "\n".join([f"{copy}. {lines[0]} {place}", *turned])


def measured(files: list[Path], out: Path, processes: int, kill_at: int = 0) -> dict[str, Any]:
    """Prepare in a fresh process; its seconds and peak memory. Killed when so many shards exist."""
    command = [sys.executable, "-c", PREPARE, str(VOCABULARY), str(out), str(processes)]
    began, peak = time.perf_counter(), 0
    child = subprocess.Popen([*command, *map(str, files)], stdout=subprocess.PIPE, text=True)
    while child.poll() is None:
        peak = max(peak, resident(child.pid))
        if kill_at and len(list(out.glob("shards/[0-9]*"))) >= kill_at:
            child.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    shards = len(list(out.glob("shards/[0-9]*")))
    if child.returncode != (-signal.SIGKILL if kill_at else 0):
        sys.exit(f"prepare ended with exit code {child.returncode}")
    seconds = time.perf_counter() - began
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    return {"seconds": seconds, "peak_mb": peak / 1e6, "shards": shards, "text_mb": megabytes}


def once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, kept in a file, so that a run that is stopped goes on after it."""
    if not path.exists():
        row = make()
        with write_file(path) as stream:
            json.dump(row, stream)
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest(path) for path in files}


def conclude(rows: dict[str, dict[str, Any]], identical: bool, notes: dict[str, Any]) -> None:
    """Write the results, then print the last line."""
    for name, row in rows.items():
        text, seconds, peak = (row[key] for key in ("text_mb", "seconds", "peak_mb"))
        print(f"{name:<8} {text:,.0f} MB of text  {seconds:,.1f} s  {peak:,.0f} MB of memory")
    peak = max(row["peak_mb"] for row in rows.values())
    with write_file(RESULT) as stream:
        stream.write(json.dumps({**notes, "rows": rows, "identical": identical}, indent=2) + "\n")
    print(
        f"long_prepare_gb: text_mb={rows['whole']['text_mb']:.0f} peak_mb={peak:.0f} "
        f"within={'yes' if peak < MOST_MB else 'no'} seconds={rows['whole']['seconds']:.0f} "
        f"killed_after_shards={rows['killed']['killed_after_shards']} "
        f"identical={'yes' if identical else 'no'}"
    )


if __name__ == "__main__":
    main()
