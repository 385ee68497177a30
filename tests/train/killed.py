"""A run that is killed with SIGKILL again and again, at random moments and inside its saves.

As a script: killed.py FOLDER SEED KILLS, on the smallest of runs, or with `pretrain` at the end, on
real pretraining in FOLDER's parent. Prints how many processes died before one finished.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from small_run import small_run

from clozeworks import api
from clozeworks.core import files
from clozeworks.core.log import silence
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.train import state
from tiny import CHINESE, TOKENIZER, WORDS

FOREVER = 10**9


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# === Deaths inside a save: each is a change of what saving does at its `number`-th time ===


def half_the_tensors(number):
    before = state.write_tensors

    def write(path, tensors):
        before(path, tensors)
        if counted(number):
            os.truncate(path, path.stat().st_size // 2)
            die()

    state.write_tensors = write


def no_cursor(number):
    before = state.write_tensors

    def write(path, tensors):
        before(path, tensors)
        if counted(number):
            die()

    state.write_tensors = write


def not_renamed(number):
    before = files._swap

    def swap(aside, path):
        if counted(number):
            die()
        before(aside, path)

    files._swap = swap


def between_two_renames(number):
    """The old folder is out of the way, the new one not yet in its place."""
    before = files._swap

    def swap(aside, path):
        if counted(number):
            if path.exists():
                path.rename(path.with_name(f".{path.name}.{os.getpid()}.old"))
            die()
        before(aside, path)

    files._swap = swap


def just_renamed(number):
    before = files._swap

    def swap(aside, path):
        before(aside, path)
        if counted(number):
            die()

    files._swap = swap


def while_old_ones_go(number):
    before = state.shutil.rmtree

    def rmtree(path, **named):
        if ".step-" in str(path) and path.exists() and counted(number):
            next(path.iterdir()).unlink()
            die()
        before(path, **named)

    state.shutil.rmtree = rmtree


DEATHS = [
    half_the_tensors,
    no_cursor,
    not_renamed,
    between_two_renames,
    just_renamed,
    while_old_ones_go,
]
calls = [0]


def counted(number) -> bool:
    """Whether this is the call that kills."""
    calls[0] += 1
    return calls[0] == number


# === Lives ===


def pretraining(folder: Path) -> None:
    """Real pretraining, on the corpus in the folder's parent."""
    os.chdir(folder.parent)
    train = api.PretrainSettings(
        duration="500 steps",
        batch=600,
        precision="fp32",
        dropout=0.1,
        checkpoint_minutes=1e-3,
        keep_best="total",
    )
    recipe = {"data": Path("shards"), "out": Path(folder.name), "size": "tiny", "device": "cpu"}
    api.pretrain(api.PretrainRecipe(**recipe, max_length=24, held_out_tokens=200, train=train))


def write_corpus(place: Path) -> None:
    """A few documents in two languages, as shards."""
    place.mkdir()
    words = [*WORDS, *CHINESE]
    sentences = [" ".join(words[(i * j) % len(words)] for j in range(3, 11)) for i in range(400)]
    blocks = ["\n".join(f"{s}." for s in sentences[i : i + 8]) for i in range(0, 400, 8)]
    (place / "corpus.txt").write_text("\n\n".join(blocks), "utf-8")
    prepare([place / "corpus.txt"], TOKENIZER, place / "shards", PrepareSettings(processes=1))


def in_a_child(live, folder: Path, death=None, number: int = 0) -> int:
    """Start a life in another process, and give its number."""
    child = os.fork()
    if child == 0:
        if death is not None:
            death(number)
        code = 1
        try:
            with silence():
                live(folder)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(code)
    return child


def undisturbed(folder: Path) -> Path:
    """Where the same run is that nobody kills: beside the folder's parent, under the same name."""
    return folder.parent.with_name("undisturbed") / folder.name


def kill_until_done(live, folder: Path, seed: int, most: int) -> int:
    """Run in children that die, every second one inside a save, until one finishes."""
    began = time.monotonic()
    os.waitpid(in_a_child(live, undisturbed(folder)), 0)
    span = 2 * (time.monotonic() - began) / most
    chance = random.Random(seed)
    for killed in range(most + 1):
        last = killed == most
        death = DEATHS[killed // 2 % len(DEATHS)] if killed % 2 and not last else None
        child = in_a_child(live, folder, death, chance.randint(1, 3))
        if not last and death is None:
            time.sleep(chance.uniform(0, span))
            os.kill(child, signal.SIGKILL)
        left = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if left == 0:
            return killed
        if left != -signal.SIGKILL:
            raise SystemExit(f"a run that was killed {killed} times cannot go on")
    raise AssertionError("a run that nobody killed did not finish")


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    real = sys.argv[4:] == ["pretrain"]
    for folder in (place, undisturbed(place)) if real else ():
        write_corpus(folder.parent)
    print(kill_until_done(pretraining if real else small_run, place, *map(int, sys.argv[2:4])))
