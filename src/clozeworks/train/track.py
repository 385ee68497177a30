"""The trace of a run: one line a step in `metrics.jsonl`, the same numbers for TensorBoard."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from torch.utils.tensorboard import SummaryWriter

from clozeworks.core.files import explained
from clozeworks.train.loop import Event

SELDOM = 10
"""Steps between two points of what steps cost: a point takes time, and these curves are smooth."""


class Track:
    """Writes what happens; a line is flushed with every checkpoint, and at the end."""

    def __init__(self, folder: Path, done: int = 0) -> None:
        """`done`: the steps that count of those already recorded; TensorBoard drops the others."""
        self._folder, self._done = folder, done
        self._lines: IO[str]
        self._board: SummaryWriter

    def __enter__(self) -> Self:
        with explained(self._folder):
            self._lines = (self._folder / "metrics.jsonl").open("a", encoding="utf-8")
            place = str(self._folder / "tensorboard")
            self._board = SummaryWriter(place, purge_step=self._done + 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with explained(self._folder):
            self._lines.close()
            self._board.close()

    def step(self, event: Event) -> None:
        """Record one step."""
        values = asdict(event)
        losses, step, reading = (values.pop(name) for name in ("losses", "step", "reading"))
        with explained(self._folder):
            self._lines.write(json.dumps({"step": step, **losses, **values, **reading}) + "\n")
            self._write(step, {**losses, "lr": event.lr, "norm": event.norm}, "train")
            if step % SELDOM == 0:
                cost = {"tokens_per_second": event.tokens / event.seconds, **reading}
                self._write(step, {n: v for n, v in cost.items() if v is not None}, "cost")

    def judgement(self, step: int, judged: Mapping[str, float]) -> None:
        """Record a judgement on held-out data."""
        if judged:
            with explained(self._folder):
                self._lines.write(json.dumps({"step": step, "held_out": dict(judged)}) + "\n")
                self._write(step, judged, "held out")

    def _write(self, step: int, values: Mapping[str, float], group: str) -> None:
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def flush(self) -> None:
        """Make everything so far last."""
        with explained(self._folder):
            self._lines.flush()
            self._board.flush()
