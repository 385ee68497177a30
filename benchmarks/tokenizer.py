"""Tokenizer training: seconds, memory, equal bytes; encoding speed beside transformers.

    python benchmarks/tokenizer.py [--quick]

Each corpus is learned from twice, in fresh processes with other hash seeds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from clozeworks.core.files import digest, read_lines, write_file
from clozeworks.core.log import silence
from clozeworks.core.run import environment
from clozeworks.text.audit import audit
from clozeworks.text.load import load_tokenizer
from clozeworks.text.sentences import sentence_spans
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.train import TokenizerSettings, train_tokenizer
from harness.measure import RESULTS, data, need

RESULT = RESULTS / "tokenizer.json"
CORPORA = ("wiki_en", "wiki_zh")
HELD_OUT = 200
"""Every line with this number's multiple is kept from training and used to judge."""


def corpus(name: str, limit: int | None, *, held_out: bool) -> Iterator[str]:
    """The lines to train on, or those kept from training."""
    lines = islice(read_lines(data(f"{name}/{name}.txt.xz")), limit)
    return (line for i, line in enumerate(lines) if (i % HELD_OUT == 0) == held_out)


def train_here(name: str, limit: int | None, vocab_size: int, out: Path) -> None:
    """Train in this process and print what it took: run in a fresh process of its own."""
    start = time.perf_counter()
    with silence():
        tokenizer = train_tokenizer(
            lambda: corpus(name, limit, held_out=False), TokenizerSettings(vocab_size=vocab_size)
        )
    seconds = time.perf_counter() - start
    tokenizer.save(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def train_apart(name: str, quick: bool, hash_seed: int, out: Path) -> dict[str, Any]:
    """Train in a fresh process with its own hash seed; its figures and the digest of its files."""
    command = [sys.executable, __file__, "--train", name, "--out", str(out)]
    done = subprocess.run(
        command + ["--quick"] * quick,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures | {"digest": digest(*sorted(out.iterdir()))}


def rates(calls: dict[str, Callable[[], Any]], size: float, rounds: int) -> dict[str, float]:
    """MB/s of each call: the median over rounds in which they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: size / 1e6 / statistics.median(taken) for name, taken in seconds.items()}


def speeds(tokenizer: Tokenizer, folder: Path, lines: list[str], rounds: int) -> dict[str, float]:
    """Encoding to 128 tokens with offsets, bare ids, sentence splitting: ours and transformers."""
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(folder)
    ids = peer(lines, add_special_tokens=False)["input_ids"]
    assert [found.tolist() for found in tokenizer.tokenize(lines)] == ids, "ids differ from peer"
    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: tokenizer.encode_batch(lines, None, 128),
        "encode_hf": lambda: peer(
            lines, truncation=True, max_length=128, return_offsets_mapping=True
        ),
        "ids": lambda: tokenizer.tokenize(lines),
        "ids_hf": lambda: peer(lines, add_special_tokens=False),
        "sentences": lambda: [sentence_spans(line) for line in lines],
    }
    return rates(calls, sum(len(line.encode()) for line in lines), rounds)


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Everything about one corpus."""
    limit, rounds = (20_000, 3) if quick else (None, 5)
    with tempfile.TemporaryDirectory() as place:
        runs = [train_apart(name, quick, seed, Path(place) / str(seed)) for seed in (1, 2)]
        tokenizer = load_tokenizer(Path(place) / "1")
        fit = audit(tokenizer, corpus(name, limit, held_out=True))
        lines = list(islice(corpus(name, limit, held_out=False), 2_000 if quick else 10_000))
        fast = speeds(tokenizer, Path(place) / "1", lines, rounds)
    return {
        "pieces": len(tokenizer.pieces),
        "seconds": max(run["seconds"] for run in runs),
        "peak_gb": max(run["peak_bytes"] for run in runs) / 1e9,
        "deterministic": runs[0]["digest"] == runs[1]["digest"],
        "unknown_rate": fit.unknown_rate,
        "coverage": fit.character_coverage,
        "tokens_per_word": fit.tokens_per_word,
        **{f"{what}_mb_per_s": rate for what, rate in fast.items()},
        "encode_vs_hf": fast["encode"] / fast["encode_hf"],
        "ids_vs_hf": fast["ids"] / fast["ids_hf"],
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row a figure, one column a corpus."""
    rows = [f"{'':22}" + "".join(f"{name:>12}" for name in results)]
    for key in next(iter(results.values())):
        cells = (found[key] for found in results.values())
        shown = (f"{cell:>12.4g}" if isinstance(cell, float) else f"{cell!s:>12}" for cell in cells)
        rows.append(f"{key:22}" + "".join(shown))
    return "\n".join(rows)


def main() -> None:
    """Measure both corpora, print the table, write the JSON, end with one line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="20,000 lines, 8,000 pieces")
    options.add_argument("--train", choices=CORPORA, help=argparse.SUPPRESS)
    options.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.train:
        limit, size = (20_000, 8_000) if chosen.quick else (None, 30_000)
        train_here(chosen.train, limit, size, chosen.out)
        return
    need("transformers")
    for name in CORPORA:
        data(f"{name}/{name}.txt.xz")
    results = {name: measure(name, chosen.quick) for name in CORPORA}
    whole = {"quick": chosen.quick, "results": results, "environment": environment()}
    with write_file(RESULT) as out:
        out.write(json.dumps(whole, indent=2) + "\n")
    print(table(results))
    english, chinese = results.values()
    print(
        f"tokenizer: seconds={english['seconds']:.1f} peak_gb={english['peak_gb']:.2f} "
        f"seconds_zh={chinese['seconds']:.1f} "
        f"deterministic={all(found['deterministic'] for found in results.values())} "
        f"unknown={english['unknown_rate']:.5f} unknown_zh={chinese['unknown_rate']:.5f} "
        f"encode_vs_hf={english['encode_vs_hf']:.2f}"
    )


if __name__ == "__main__":
    main()
