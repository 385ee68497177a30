"""Steps made by other processes while a GPU computes; on a CPU both would want the same cores."""

import io
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Listener
from tempfile import gettempdir
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from clozeworks.core.errors import UserError
from clozeworks.data.workers import cores
from clozeworks.train.portion import Portion

PROCESSES = 4
"""Most of them; each makes batches about as fast as a small encoder learns from them."""
EACH = 2
"""Steps that each has ready."""
READY = PROCESSES * EACH
"""Steps at most that are made while the first is learned from."""


@dataclass(frozen=True)
class Step:
    """What a step learns from; once taken, `position` of the epoch's `of` steps are done."""

    portion: Portion
    epoch: int
    position: int
    of: int


Making = Callable[[int, int], Iterator[Step]]
"""Makes every so-maniest step in order, counted from the first argument: (first, every)."""


def ahead(making: Making, device: torch.device) -> Iterator[Step]:
    """Every step in order: made here for a CPU, and by processes in turn for a GPU.

    Those of all that torchrun has started here take up half the cores at most.
    """
    learners = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes = min(PROCESSES, cores() // (2 * learners))
    if device.type == "cpu" or not processes or not hasattr(os, "fork"):
        return making(0, 1)
    return made_by(processes, making)


def made_by(processes: int, making: Making) -> Iterator[Step]:
    """The same steps, each made by one of some forked processes, which take turns.

    Raises the UserError that one of them met, or where none of them could be heard.
    """
    _try_to_listen()
    loader = DataLoader(
        _Steps(making),
        batch_size=None,
        num_workers=processes,
        prefetch_factor=EACH,
        worker_init_fn=_stand_apart,
        multiprocessing_context="fork",
    )
    sent = iter(loader)
    with ThreadPoolExecutor(1) as thread:  # it unpacks a step while the one before is learned from
        coming = thread.submit(_received, sent)
        while (made := coming.result()) is not None:
            coming = thread.submit(_received, sent)
            yield made


def _try_to_listen() -> None:
    """Do once what they will do, in threads of torch's where a failure is waited for in vain."""
    try:
        Listener(family="AF_UNIX").close()
    except OSError as error:
        raise UserError(
            f"{gettempdir()}: processes that make steps ahead cannot be heard through this folder "
            f"({error}); name another, of a short path and with room, by TMPDIR"
        ) from error


class _Steps(IterableDataset[Tensor | str]):
    def __init__(self, making: Making) -> None:
        self._making = making

    def __iter__(self) -> Iterator[Tensor | str]:
        """Every step as `_sent` makes it, and what was wrong, if anything, in words."""
        worker = get_worker_info()
        assert worker is not None
        try:
            for step in self._making(worker.id, worker.num_workers):
                yield _sent(replace(step, portion=_light(step.portion)))
        except UserError as error:
            yield str(error)


def _received(sent: Iterator[Tensor | str]) -> Step | None:
    """The next of what was sent; None after the last. Raises UserError where that is what came."""
    found = next(sent, None)
    if isinstance(found, str):
        raise UserError(found)
    return None if found is None else pickle.loads(found.numpy().data)


def _sent(made: Step) -> Tensor:
    """It as bytes, [N] uint8: a tensor travels by an open file, and a step has hundreds.

    Shared at once: the thread that torch sends it from would meet a lack of room unheard.
    """
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(made)
    flat = torch.frombuffer(stream.getbuffer(), dtype=torch.uint8)
    try:
        shared: Tensor = flat.share_memory_()
    except RuntimeError as error:
        raise UserError(
            f"a step of {len(flat):,} bytes, of which up to {READY} are kept ready, could not be "
            f"shared ({error}); where memory for sharing is full, give more (docker run "
            "--shm-size=1g), or take smaller steps (--train.batch)"
        ) from error
    return shared


class _Pickler(pickle.Pickler):
    """Tensors as arrays, which pickle copies once: a fifth of the time that torch's own way takes,
    where the process that learns has to wait for it."""

    def reducer_override(self, made: Any) -> Any:
        if isinstance(made, Tensor):
            return torch.from_numpy, (made.numpy(),)
        return NotImplemented


def _light(portion: Portion) -> Portion:
    """Without the sequences and their characters, which nothing learns from."""
    return replace(portion, batches=[replace(b, sequences=()) for b in portion.batches])


def _stand_apart(_: int) -> None:
    """Ctrl-C reaches a whole group, and the parent has a step to finish; whom it ends itself, ends.

    So a worker is a group of its own, and the parent's handling of SIGTERM is not for it.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
