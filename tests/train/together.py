"""Small runs of several processes, one after another; as a script, told what to run on stdin."""

import gc
import json
import os
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path

import torch
from small_run import SETTINGS, small_run
from torch.nn.parallel import DistributedDataParallel

from clozeworks.core.errors import UserError
from clozeworks.core.log import silence
from clozeworks.train import loop
from clozeworks.train.distributed import gathered
from clozeworks.train.fit import Interrupted

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 3
"""How a process leaves."""
PATIENCE = 200
"""Seconds after which processes that wait for one another are killed, so that a test fails."""


def watched(folder: Path, rank: int, orders) -> None:
    """Write down which groups each step counts, and do to this process what is ordered."""
    before = loop.take_step

    def take_step(learner, portion, rate):
        with (folder.parent / f"{folder.name}.{rank}.jsonl").open("a") as out:
            indices = [i for b in portion.batches[: portion.counted] for i in b.index.tolist()]
            print(json.dumps([learner.optimizer.steps, len(portion.batches), indices]), file=out)
        for step, of, number in orders:
            if (step, of) == (learner.optimizer.steps, rank):
                os.kill(os.getpid(), getattr(signal, number))
        return before(learner, portion, rate)

    loop.take_step = take_step


def one(job, rank: int, port: int) -> int:
    """The life of one process of a job."""
    folder, count = Path(job["folder"]), job["processes"]
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    watched(folder, rank, job.get("orders", []))
    settings = SETTINGS.model_copy(update=job.get("settings", {}))
    try:
        with silence(), gathered(torch.device("cpu")) as team:
            small_run(folder, settings, team=team, **job.get("more", {}))
    except Interrupted:
        return FAILED if lingering() else STOPPED
    except UserError as error:
        folder.with_name(f"{folder.name}.{rank}.said").write_text(str(error))
        return REFUSED
    return DONE


def lingering() -> bool:
    """Whether something that an error's frames keep alive holds on to a group that was left."""
    return any(type(thing) is DistributedDataParallel for thing in gc.get_objects())


def run(job) -> list[int]:
    """How each process of a job left: its code, or the signal's number below zero."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["processes"]):
        child = os.fork()
        if child == 0:
            code = FAILED
            try:
                code = one(job, rank, port)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    signal.signal(signal.SIGALRM, lambda *_: [os.kill(child, signal.SIGKILL) for child in children])
    signal.alarm(PATIENCE)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor"):
        import_module(name)  # once here instead of once in every process
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
