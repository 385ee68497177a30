"""Resumed is uninterrupted, bit for bit, wherever and however it was stopped."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from small_run import SETTINGS, small_run, what_it_left
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clozeworks.core.errors import UserError
from clozeworks.core.run import Run
from clozeworks.train import fit, loop, precision, state
from clozeworks.train.fit import Interrupted, took
from clozeworks.train.loop import TrainSettings
from clozeworks.train.optim import Optimizer
from clozeworks.train.precision import native_bf16
from clozeworks.train.state import KEPT, Cursor, latest_cursor, load_latest, save, sweep
from tiny import make_model, make_task

HERE = Path(__file__).parent
BF16 = pytest.param(
    "bf16",
    marks=pytest.mark.skipif(
        not native_bf16(torch.device("cpu")), reason="this processor does not multiply bf16"
    ),
)


class Crash(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What uninterrupted runs leave, by precision."""
    left = {}

    def uninterrupted(precision="fp32"):
        if precision not in left:
            folder = tmp_path_factory.mktemp("straight") / "run"
            small_run(folder, SETTINGS.model_copy(update={"precision": precision}))
            left[precision] = what_it_left(folder)
        return left[precision]

    return uninterrupted


def same(folder, expected):
    files, lines = what_it_left(folder)
    assert lines == expected[1]
    assert files.keys() == expected[0].keys()
    assert files == expected[0]
    steps = [line["step"] for line in lines if "held_out" not in line]
    assert steps == list(range(1, 21))


@pytest.mark.parametrize("precision", ["fp32", BF16])
def test_a_crash_at_any_moment_changes_nothing(precision, straight, tmp_path, monkeypatch):
    settings = SETTINGS.model_copy(update={"precision": precision})
    before, crashes = Optimizer.step, iter([3, 5, 9])
    budget = [next(crashes)]

    def step(self, rate):
        if budget[0] == 0:
            budget[0] = next(crashes, -1)
            raise Crash
        budget[0] -= 1
        return before(self, rate)

    monkeypatch.setattr(Optimizer, "step", step)
    died = 0
    while True:
        try:
            small_run(tmp_path / "run", settings)
            break
        except Crash:
            died += 1
    assert died == 3
    same(tmp_path / "run", straight(precision))


def crash_once_in_step(monkeypatch, number):
    """Let the step of this number, of all that come, crash in the middle; later ones go well."""
    before, left = Optimizer.step, [number]

    def step(self, rate):
        left[0] -= 1
        if left[0] == 0:
            raise Crash
        return before(self, rate)

    monkeypatch.setattr(Optimizer, "step", step)


def test_a_crash_long_after_the_last_checkpoint_changes_nothing(straight, tmp_path, monkeypatch):
    rarely = SETTINGS.model_copy(update={"checkpoint_minutes": 60.0})
    crash_once_in_step(monkeypatch, 13)
    with pytest.raises(Crash):
        small_run(tmp_path / "run", rarely)
    assert latest_cursor(tmp_path / "run" / "checkpoints").step == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") > 10
    small_run(tmp_path / "run", rarely)
    same(tmp_path / "run", straight())


def test_tensorboard_draws_every_step_once(tmp_path, monkeypatch):
    rarely = SETTINGS.model_copy(update={"checkpoint_minutes": 60.0})
    crash_once_in_step(monkeypatch, 13)
    with pytest.raises(Crash):
        small_run(tmp_path / "run", rarely)
    small_run(tmp_path / "run", rarely)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"scalars": 0}).Reload()
    points = {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert points["train/mlm"] == list(range(1, 21))
    assert points["held out/mlm"] == list(range(2, 21, 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(number, straight, tmp_path):
    calls = []

    def at_each_judgement():
        calls.append(number)
        if len(calls) == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="give the same command again to continue") as stop:
        small_run(tmp_path / "run", each_judgement=at_each_judgement)
    assert signal.getsignal(number) is before
    assert isinstance(stop.value, KeyboardInterrupt)
    assert "after step 4 of 20" in str(stop.value)
    assert latest_cursor(tmp_path / "run" / "checkpoints").step == 4
    assert not (tmp_path / "run" / "bundle").exists()
    small_run(tmp_path / "run")
    same(tmp_path / "run", straight())


def test_a_finished_run_given_again_changes_nothing(straight, tmp_path):
    first = small_run(tmp_path / "run")
    again = small_run(tmp_path / "run")
    assert again.judged == first.judged
    assert (again.cursor.step, again.cursor.tokens) == (20, first.cursor.tokens)
    assert took(first.cursor).startswith("20 steps, ")
    same(tmp_path / "run", straight())


def killed(folder, kills, *kind):
    """Run in processes that are killed so many times; how many died before one finished."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(HERE / "killed.py"), str(folder), "0", str(kills), *kind]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_kill_9_at_random_moments_changes_nothing(straight, tmp_path):
    assert killed(tmp_path / "killed" / "run", 6) >= 3
    same(tmp_path / "killed" / "run", straight())


@pytest.mark.slow
def test_fifty_kills_leave_the_bytes_of_an_undisturbed_pretraining(tmp_path):
    """Half of them inside a save, at each of its stages; the run beside it nobody touches."""
    runs = [tmp_path / "killed" / "run", tmp_path / "undisturbed" / "run"]
    assert killed(runs[0], 50, "pretrain") == 50
    assert what_it_left(runs[0]) == what_it_left(runs[1])
    for name in ("best", "checkpoints/step-00000500"):
        ours, theirs = ({p.name: p.read_bytes() for p in (run / name).iterdir()} for run in runs)
        for files in (ours, theirs):
            files.pop("cursor.json", None)  # which knows the time it took
        assert ours == theirs != {}


# === Another machine ===


@pytest.mark.parametrize("begun", ["bf16", "fp32"])
def test_a_run_goes_on_in_the_number_format_it_began_in(begun, straight, tmp_path, monkeypatch):
    """Whatever the machine it goes on with would have taken."""
    auto = SETTINGS.model_copy(update={"precision": "auto"})
    calls, said = [], []

    def stop():
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fit, "say", said.append)
    monkeypatch.setattr(precision, "native_bf16", lambda device: begun == "bf16")
    with pytest.raises(Interrupted):
        small_run(tmp_path / "run", auto, stop)
    monkeypatch.setattr(precision, "native_bf16", lambda device: begun != "bf16")
    assert small_run(tmp_path / "run", auto).cursor.precision == begun
    assert sum(f"computes in {begun}, as it began" in line for line in said) == 1
    same(tmp_path / "run", straight(begun))


# === Minutes ===


def test_minutes_become_steps_once(tmp_path, monkeypatch):
    measured = []

    def seconds(*given):
        measured.append(given)
        return 0.5

    monkeypatch.setattr(fit, "seconds_per_step", seconds)
    settings = SETTINGS.model_copy(update={"duration": "0.2 minutes"})
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        small_run(tmp_path / "run", settings, stop)
    assert small_run(tmp_path / "run", settings).cursor.total == 24
    assert len(measured) == 1


def test_a_measured_run_is_the_run_of_as_many_steps(tmp_path, monkeypatch):
    clock = count(0, 1.0)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(fit, "count_steps", lambda duration, stream, seconds: 6)
    for name, duration in (("timed", "9 minutes"), ("counted", "6 steps")):
        small_run(tmp_path / name, SETTINGS.model_copy(update={"duration": duration}))
    assert what_it_left(tmp_path / "timed") == what_it_left(tmp_path / "counted")


# === Folders ===


def test_a_folder_of_another_run_is_refused_by_the_setting(tmp_path):
    short = SETTINGS.model_copy(update={"duration": "2 steps"})
    small_run(tmp_path / "run", short)
    other = short.model_copy(update={"lr": 3e-4})
    with pytest.raises(UserError, match=r"different run \(recipe.lr was 0.001, now 0.0003\)"):
        small_run(tmp_path / "run", other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty; choose another --out"):
        small_run(tmp_path / "full", short)


def checkpoint(folder, step, seed=0):
    optimizer = Optimizer(make_model(make_task("mlm"), seed=seed), torch.float32)
    save(folder, Cursor(total=9, step=step), optimizer.state())
    return optimizer


def test_only_the_last_checkpoints_are_kept(tmp_path):
    for step in range(5):
        checkpoint(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    assert KEPT == 2
    assert latest_cursor(tmp_path / "absent") is None
    assert load_latest(tmp_path / "absent", checkpoint(tmp_path, 5)) is None


def test_a_save_killed_half_way_leaves_the_older_one(tmp_path, monkeypatch):
    older = checkpoint(tmp_path, 1)

    def die(path, values):
        path.write_bytes(b"half a checkpoint")
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_tensors", die)
        with pytest.raises(Crash):
            checkpoint(tmp_path, 2, seed=1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.99.tmp")  # kill -9
    fresh = Optimizer(make_model(make_task("mlm"), seed=2), torch.float32)
    sweep(tmp_path)
    assert load_latest(tmp_path, fresh).step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    for a, b in zip(fresh.masters, older.masters, strict=True):
        assert torch.equal(a, b)


def flipped(content, place):
    """The bytes but for one bit."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-100])),
        ("state.safetensors", lambda p: p.write_bytes(b"")),
        ("state.safetensors", lambda p: p.unlink()),
        ("state.safetensors", lambda p: p.write_bytes(flipped(p.read_bytes(), -9))),
        ("cursor.json", lambda p: p.write_text('{"total": 9, "st')),
        ("cursor.json", lambda p: p.write_text('{"totl": 9}')),
        ("cursor.json", lambda p: p.write_text("[]")),
        ("cursor.json", lambda p: p.unlink()),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_remedy(name, damage, tmp_path):
    for step in (1, 2):
        checkpoint(tmp_path, step)
    damage(tmp_path / "step-00000002" / name)
    fresh = Optimizer(make_model(make_task("mlm")), torch.float32)
    with pytest.raises(UserError, match=r"step-00000002 is damaged .*remove it to continue") as no:
        load_latest(tmp_path, fresh)
    assert "\n" not in str(no.value)
    shutil.rmtree(tmp_path / "step-00000002")
    assert load_latest(tmp_path, fresh).step == 1


def test_a_checkpoint_of_an_older_version_opens(tmp_path):
    older = checkpoint(tmp_path, 1)
    path = tmp_path / "step-00000001" / "cursor.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({k: values[k] for k in values.keys() - {"sha256", "precision"}}))
    fresh = Optimizer(make_model(make_task("mlm"), seed=2), torch.float32)
    assert load_latest(tmp_path, fresh).precision is None
    assert all(torch.equal(a, b) for a, b in zip(fresh.masters, older.masters, strict=True))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint(tmp_path, 1)
    other = Optimizer(make_model(make_task("classify")), torch.float32)
    with pytest.raises(UserError, match="damaged"):
        load_latest(tmp_path, other)


def test_all_checkpoints_gone_the_run_begins_again(straight, tmp_path):
    small_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    small_run(tmp_path / "run")
    same(tmp_path / "run", straight())


def test_a_full_disk_is_explained_and_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    checkpoint(tmp_path, 1)

    def full(path, values):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "write_tensors", full)
    with pytest.raises(UserError, match=r"cannot write .*step-00000002: the disk is full"):
        checkpoint(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_run_killed_at_its_very_start_can_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(json, "dump", lambda *given, **named: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        Run.start(tmp_path / "run", "pretrain", TrainSettings(), {})
    monkeypatch.undo()
    assert (tmp_path / "run" / "recipe.toml").exists()
    assert not Run.start(tmp_path / "run", "pretrain", TrainSettings(), {}).resumed
    assert Run.start(tmp_path / "run", "pretrain", TrainSettings(), {}).resumed
