"""Checkpoints: weights, moments and a cursor, enough to go on as if never stopped."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clozeworks.core.errors import UserError
from clozeworks.core.files import digest, explained, write_folder
from clozeworks.interop.tensors import write_tensors
from clozeworks.train.optim import Optimizer
from clozeworks.train.precision import Precision

STATE, CURSOR = "state.safetensors", "cursor.json"
DIGEST = "sha256"
"""The hash of the state, beside the cursor's own values; older checkpoints have none."""
KEPT = 2
"""Checkpoints kept of themselves: the last, and one before it."""


@dataclass
class Cursor:
    """How far a run is. Everything else a step needs is a function of these and the seed."""

    total: int
    """Steps of the whole run; found once, before the first."""
    step: int = 0
    """Steps done."""
    epoch: int = 0
    """The epoch the next step is of."""
    position: int = 0
    """Its place among the epoch's steps."""
    tokens: int = 0
    """Tokens seen."""
    seconds: float = 0.0
    """Time spent in steps, over all sittings."""
    best: float | None = None
    """The best judgement so far, where the best model is kept."""
    best_by: str | None = None
    """The number it was judged by."""
    best_step: int = 0
    """The step it was made at."""
    precision: Precision | None = None
    """The number format the run computes in; None in checkpoints of older versions."""


def save(folder: Path, cursor: Cursor, state: Mapping[str, Tensor], keep: int = KEPT) -> Path:
    """Write one checkpoint, whole or not at all; then drop the oldest but `keep`.

    It holds whole tensors, so that any number of processes can take it up.
    """
    path = folder / f"step-{cursor.step:08d}"
    if not path.exists():
        with write_folder(path) as aside:
            write_tensors(aside / STATE, state)
            values = asdict(cursor) | {DIGEST: digest(aside / STATE)}
            (aside / CURSOR).write_text(json.dumps(values), "utf-8")
    for old in _all(folder)[:-keep]:
        gone = old.with_name(f".{old.name}.old.tmp")  # half a checkpoint must not look like one
        with explained(old):
            old.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    return path


def sweep(folder: Path) -> None:
    """Remove what killed saves left behind; nobody may be saving there."""
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def load_latest(folder: Path, optimizer: Optimizer) -> Cursor | None:
    """Take up the newest checkpoint, or answer None where there is none.

    Raises UserError if the checkpoint is damaged: nothing is taken up then.
    """
    found = _all(folder)
    if not found:
        return None
    with _damage_explained(found[-1]):
        cursor, expected = _read(found[-1])
        if expected not in (None, digest(found[-1] / STATE)):
            raise ValueError(f"the bytes of {STATE} are not what was written")
        optimizer.load(load_file(found[-1] / STATE), cursor.step)
    return cursor


def latest_cursor(folder: Path) -> Cursor | None:
    """How far the newest checkpoint is, or None where there is none."""
    found = _all(folder)
    if not found:
        return None
    with _damage_explained(found[-1]):
        return _read(found[-1])[0]


def _read(path: Path) -> tuple[Cursor, str | None]:
    """A checkpoint's cursor, and the hash of its state where it is known."""
    values = dict(json.loads((path / CURSOR).read_bytes()))
    expected = values.pop(DIGEST, None)
    return Cursor(**values), expected


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint raises into a UserError with the remedy."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"checkpoint {path} is damaged ({reason}); remove it to continue from the one before"
        ) from error


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", p.name))
