"""What a person sees while work goes on: lines, and progress with rate and time left."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
"""Progress and remarks go to stderr; what a verb answers goes to stdout."""

PLAIN_INTERVAL = 10.0
"""Seconds between two plain progress lines where stderr is not a terminal."""


def follows() -> bool:
    """Whether torchrun started this process beside a first one, which speaks for all of them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"


_quiet = follows()


def say(line: str) -> None:
    """Show one line to the person (on stderr), unless silenced."""
    if not _quiet:
        console.print(line, markup=False)


def counted(number: int, one: str, many: str) -> str:
    """A number with what it counts, as in "1 row is" and "1,204 rows are"."""
    return f"{number:,} {one if number == 1 else many}"


@contextmanager
def silence() -> Iterator[None]:
    """Show nothing inside the block: for tests and for calls from Python."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


class Meter:
    """Progress of one long piece of work: a live bar on a terminal, plain lines elsewhere.

    `total` may be None when nobody knows the end. `unit` is what is counted ("tokens", "rows").
    """

    def __init__(self, title: str, total: float | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._skipped = 0.0
        self.note = ""
        self._start = self._printed = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Meter":
        if console.is_terminal and not _quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[s]}"),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(self.title, total=self.total, s="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            say(f"{self.title}: {self._status(end=True)}")

    def skip(self, amount: float) -> None:
        """Count what was done in an earlier sitting, without letting it into the rate."""
        self.done = self._skipped = amount

    def advance(self, amount: float, note: str = "") -> None:
        """Count `amount` more units done; `note` (a loss, a file) is shown beside the rate."""
        self.done += amount
        self.note = note or self.note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, s=self._status())
        elif time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self._printed = time.monotonic()
            say(f"{self.title}: {self._status()}")

    def _status(self, end: bool = False) -> str:
        spent = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._skipped) / spent
        parts = [
            _count(self.done) + (f" of {_count(self.total)}" if self.total and not end else "")
        ]
        parts[0] += f" {self.unit}"
        parts.append(f"{_count(rate)} {self.unit}/s")
        if end:
            parts.append(f"{clock(spent)} in all")
        elif self.total and rate > 0:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        return ", ".join([*parts, self.note] if self.note else parts)


def _count(value: float) -> str:
    return f"{value:,.1f}" if value < 10 and value != int(value) else f"{value:,.0f}"


def clock(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
