"""Seconds and memory of `prepare` on wiki_en, once, twice and four times over.

The copies are made different by a numbered first line in each document, so that none is left out
as a duplicate. Every run is a fresh process; memory is the peak of the resident sizes of that
process and its children, added up (pages they share count once for each).

    python benchmarks/prepare.py [--quick] [--processes N]
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clozeworks.core.files import write_file
from harness.measure import RESULTS, data, machine

CORPUS = "wiki_en/wiki_en.txt.xz"
VOCABULARY = "vocab/bert-base-uncased-vocab.txt"
RESULT = RESULTS / "prepare.json"
PAGE = os.sysconf("SC_PAGE_SIZE")

PREPARE = """
import sys
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.text.load import load_tokenizer
vocabulary, out, processes, *files = sys.argv[1:]
manifest = prepare(files, load_tokenizer(vocabulary), out, PrepareSettings(processes=processes))
print(manifest.documents, manifest.sentences, manifest.tokens)
"""


def write_copies(folder: Path, count: int, limit: int) -> list[Path]:
    """Distinct copies of the corpus, each of at most `limit` characters, as plain text."""
    with lzma.open(data(CORPUS), "rt", encoding="utf-8") as source:
        documents = source.read(limit).strip().split("\n\n")
    paths = [folder / f"copy{number}.txt" for number in range(count)]
    for number, path in enumerate(paths):
        with path.open("w", encoding="utf-8") as out:
            out.writelines(f"Copy {number}.\n{document}\n\n" for document in documents)
    return paths


def resident(process: int) -> int:
    """Bytes in memory of a process and all its descendants; 0 once it is gone."""
    folder = Path(f"/proc/{process}")
    try:
        total = int((folder / "statm").read_text().split()[1]) * PAGE
        tasks = [task / "children" for task in (folder / "task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except (OSError, ValueError):
        return 0
    return total + sum(map(resident, children))


def measure(files: list[Path], out: Path, processes: int) -> dict[str, float]:
    """Prepare the files in a fresh process; its seconds, peak megabytes and counts."""
    command = [sys.executable, "-c", PREPARE, str(data(VOCABULARY)), str(out), str(processes)]
    start = time.perf_counter()
    child = subprocess.Popen([*command, *map(str, files)], stdout=subprocess.PIPE, text=True)
    peak = 0
    while child.poll() is None:
        peak = max(peak, resident(child.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    assert child.stdout is not None
    if child.returncode:
        sys.exit(f"prepare failed with exit code {child.returncode}")
    documents, sentences, tokens = map(int, child.stdout.read().split())
    return {
        "text_mb": sum(file.stat().st_size for file in files) / 1e6,
        "documents": documents,
        "sentences": sentences,
        "tokens": tokens,
        "seconds": seconds,
        "mb_per_second": sum(file.stat().st_size for file in files) / 1e6 / seconds,
        "peak_mb": peak / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 MB instead of 50 MB")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    for place in (CORPUS, VOCABULARY):
        data(place)
    before, rows = machine(), {}
    print("corpus  text MB  documents      tokens  seconds   MB/s  peak MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_copies(folder, 4, 10_000_000 if options.quick else -1)
        for copies in (1, 2, 4):
            row = measure(files[:copies], folder / f"out{copies}", options.processes)
            rows[f"{copies}x"] = row
            print(
                f"{copies}x      {row['text_mb']:>7.1f} {row['documents']:>10,} "
                f"{row['tokens']:>11,} {row['seconds']:>8.1f} {row['mb_per_second']:>6.2f} "
                f"{row['peak_mb']:>8.0f}",
                flush=True,
            )
    told = {"quick": options.quick, "processes": options.processes, "machine": before}
    with write_file(RESULT) as stream:
        stream.write(json.dumps({**told, "rows": rows}, indent=2) + "\n")
    once, four = rows["1x"], rows["4x"]
    print(
        f"prepare: seconds={once['seconds']:.1f} peak_mb={once['peak_mb']:.0f} "
        f"growth_4x={four['peak_mb'] / once['peak_mb']:.2f} seconds_4x={four['seconds']:.1f}"
    )


if __name__ == "__main__":
    main()
