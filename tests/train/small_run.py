"""A whole run of a tiny model in a folder; as a script, one that is killed again and again."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from clozeworks.core.bundle import Card
from clozeworks.core.log import silence
from clozeworks.core.run import Run
from clozeworks.data.order import ExampleStream
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.encoder import initialise
from clozeworks.model.heads import encoder_of
from clozeworks.train.fit import Fit, Fitted
from clozeworks.train.loop import TrainSettings, held_out_losses
from tiny import TOKENIZER, make_config, make_groups, make_task

SETTINGS = TrainSettings(
    duration="20 steps",
    lr=1e-3,
    batch=250,
    unit="tokens",
    micro_tokens=120,
    dropout=0.1,
    precision="fp32",
    checkpoint_minutes=5e-4,
)
LENGTHS = [5 + 7 * i % 60 for i in range(60)]


def small_run(
    folder: Path, settings: TrainSettings = SETTINGS, each_judgement=None, name: str = "mlm+nsp"
) -> Fitted:
    """Train (or go on training) in the folder, and write the Bundle."""
    task = make_task(name)
    model = task.build(encoder_of(make_config(task).model_copy(update={"num_layers": 2})))
    task.equip(model)
    initialise(model, 0.02, settings.seed)
    held_out = ExampleStream(make_groups([30, 20], seed=5), 400, "tokens", 0)

    def judge(live):
        if each_judgement is not None:
            each_judgement()
        return held_out_losses(live, task, held_out, 150)

    stream = ExampleStream(make_groups(LENGTHS), settings.batch, settings.unit, settings.seed)
    run = Run.start(folder, "pretrain", settings, {})
    fitted = Fit(model, task, stream, settings, run, judge)()
    write_bundle(run.bundle, model, TOKENIZER, Card(task=task.name, settings=task.settings))
    return fitted


def what_it_left(folder: Path) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """The Bundle's files, and every line of the metrics but for the time it took."""
    bundle = folder / "bundle"
    files = {
        str(p.relative_to(bundle)): p.read_bytes() for p in sorted(bundle.rglob("*")) if p.is_file()
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def in_a_child(folder: Path) -> int:
    """Start the run in another process, and give its number."""
    child = os.fork()
    if child == 0:
        with silence():
            small_run(folder)
        os._exit(0)
    return child


def kill_until_done(folder: Path, seed: int, most: int) -> int:
    """Run in a child that is killed at a random moment, until one finishes; how many died."""
    began = time.monotonic()
    os.waitpid(in_a_child(folder.with_name("timed")), 0)
    whole = time.monotonic() - began
    chance = random.Random(seed)
    for killed in range(most + 1):
        child = in_a_child(folder)
        if killed < most:
            time.sleep(chance.uniform(0, whole / 4))
            os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == 0:
            return killed
    raise SystemExit("a run that nobody killed did not finish")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(kill_until_done(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
