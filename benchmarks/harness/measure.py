"""How a benchmark measures: data found, fresh processes, samples that outlive Ctrl-C, results."""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clozeworks.core.files import digest, write_file
from clozeworks.core.run import environment

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("CLOZEWORKS_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / "benchmarks" / "cache"
STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""
PATIENCE = 60
"""Seconds a process has to end in after it was asked to."""

KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""What Clozeworks bounds when it is imported, and what libraries hold without it."""

Sample = dict[str, Any]


def data(place: str) -> Path:
    """A file of the public data; leaves with a message if it is absent."""
    path = DATA / place
    if not path.exists():
        sys.exit(f"{path} is absent; set CLOZEWORKS_DATA to the folder of public data")
    return path


def need(*modules: str) -> None:
    """Leave with a message unless the peers are installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit(f"{', '.join(absent)} not installed; run `make bench-setup`")


def threads() -> int:
    """Cores this process may use: every contender computes with as many threads."""
    return len(os.sched_getaffinity(0))


def as_without_us() -> None:
    """Let this process hold as many kernels as torch does by itself; before its first product."""
    os.environ.update(dict.fromkeys(KERNEL_CACHES, "1024"))


def apart(*command: str | Path) -> Sample:
    """Run Python with these arguments in a fresh process.

    Returns the JSON object on its last line of stdout, if there is one, with `wall` (seconds) and
    `peak_mb` (its own peak resident memory; this process must stay smaller than that). Leaves with
    the end of its stderr if it fails.
    """
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads()), "TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=out,
            stderr=errors,
            env=environ,
            start_new_session=True,  # Ctrl-C reaches it through `_stop`, once
        )
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            _stop(child)
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        out.seek(0)
        errors.seek(0)
        if child.returncode:
            sys.exit(f"{command} left with code {child.returncode}:\n{errors.read()[-3000:]}")
        last = (out.read().splitlines() or [""])[-1]
    found: Sample = json.loads(last) if last.startswith("{") else {}
    return {**found, "wall": wall, "peak_mb": usage.ru_maxrss * 1024 / 1e6}


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, so that a training run may save itself; then make it."""
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class Kept:
    """Samples on disk by name, so that an interrupted benchmark goes on where it stopped.

    Those of other numbers of threads are kept apart.
    """

    def __init__(self, folder: str) -> None:
        self.folder = CACHE / folder / f"threads-{threads()}"

    def get(self, name: str, make: Callable[[], Sample]) -> Sample:
        """The sample kept under this name, or a new one, then kept."""
        path = self.folder / f"{name}.json"
        if path.exists():
            sample: Sample = json.loads(path.read_text("utf-8"))
            return sample
        sample = make()
        with write_file(path) as stream:
            json.dump(sample, stream, indent=2)
        return sample

    def clear(self) -> None:
        """Forget them: the benchmark is done, and the next one measures anew."""
        shutil.rmtree(self.folder, ignore_errors=True)


def code_version() -> str:
    """A short digest of the package and the benchmarks: samples of other code do not mix."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    return digest(*sorted(files))[:12]


def interleaved(
    kept: Kept, contenders: Sequence[str], rounds: int, run: Callable[[str], Sample]
) -> dict[str, list[Sample]]:
    """Let the contenders take turns, round after round, so that a slow minute hits them all."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders:
            sample = kept.get(f"{name}-{number}", partial(run, name))
            samples[name].append(sample)
            print(f"round {number + 1} of {rounds}: {name} {brief(sample)}", flush=True)
    return samples


def brief(sample: Mapping[str, Any]) -> str:
    """One sample in one line."""
    numbers = {key: value for key, value in sample.items() if isinstance(value, int | float)}
    return "  ".join(f"{key} {value:,.5g}" for key, value in numbers.items())


def spread(samples: Sequence[Sample], key: str) -> dict[str, float | None]:
    """Median, mean and standard deviation of one figure."""
    values = [sample[key] for sample in samples]
    return {
        "median": statistics.median(values),
        "mean": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def spreads(samples: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, Any]]:
    """The spread of every number of every contender."""
    return {
        name: {
            key: spread(found, key)
            for key, value in found[0].items()
            if isinstance(value, int | float)
        }
        for name, found in samples.items()
    }


def median(samples: Sequence[Sample], key: str) -> float:
    """The median of one figure."""
    return float(statistics.median(sample[key] for sample in samples))


def table(samples: Mapping[str, Sequence[Sample]], keys: Sequence[str]) -> str:
    """A row for each contender, medians ± standard deviations of the figures."""
    width = max(map(len, samples))
    rows = [" " * width + "".join(f"{key:>24}" for key in keys)]
    for name, found in samples.items():
        cells = ""
        for key in keys:
            measured = spread(found, key) if key in found[0] else None
            shown = f"{measured['median']:,.5g}" if measured else "–"
            shown += f" ± {measured['sd']:,.3g}" if measured and measured["sd"] is not None else ""
            cells += f"{shown:>24}"
        rows.append(f"{name:{width}}{cells}")
    return "\n".join(rows)


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine, and when it was measured on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return {
        **environment(),
        "cpu": sorted(names),
        "threads": threads(),
        "load_before": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "code": code_version(),
    }


def conclude(
    name: str,
    before: Mapping[str, Any],
    samples: Mapping[str, Sequence[Sample]],
    figures: Mapping[str, str],
    notes: Mapping[str, Any],
) -> None:
    """Write benchmarks/results/NAME.json, then print the last line: NAME: key=value …"""
    whole = {
        "machine": before,
        **notes,
        "figures": figures,
        "spreads": spreads(samples),
        "samples": samples,
    }
    with write_file(RESULTS / f"{name}.json") as out:
        out.write(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    print(f"{name}: " + " ".join(f"{key}={value}" for key, value in figures.items()))


def started(options: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Parse the arguments and run; after Ctrl-C or SIGTERM say how to go on."""
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(chosen)
    except KeyboardInterrupt:
        print("stopped; what was measured is kept: give the same command again", file=sys.stderr)
        sys.exit(STOPPED)
