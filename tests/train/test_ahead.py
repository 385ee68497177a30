"""Steps made by other processes are those that this one would make, in the same order."""

import multiprocessing
import os
import resource
import tempfile
from functools import partial

import pytest
import torch

from clozeworks.core.errors import UserError
from clozeworks.data.order import ExampleStream
from clozeworks.train import loop
from clozeworks.train.ahead import ahead, made_by
from clozeworks.train.loop import Learner, TrainSettings, train, upcoming
from clozeworks.train.optim import Optimizer
from clozeworks.train.state import Cursor
from tiny import make_groups, make_model, make_task

SETTINGS = TrainSettings(precision="fp32", lr=1e-3, batch=8, seed=3)
LENGTHS = [5, 20, 7, 33, 12, 41, 9, 60, 4, 17, 25, 30, 8, 19, 50, 11, 6, 22, 13, 40]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


def learner_and_stream(settings=SETTINGS, lengths=LENGTHS):
    task = make_task("mlm+nsp")
    model = make_model(task)
    learner = Learner(model, task, settings, Optimizer(model, torch.float32))
    stream = ExampleStream(make_groups(lengths), settings.batch, settings.unit, settings.seed)
    return learner, stream


def described(step):
    batches = step.portion.batches
    ids = [batch.input_ids.tolist() for batch in batches]
    targets = [{name: t.tolist() for name, t in batch.targets.items()} for batch in batches]
    return ids, targets, step.portion.tokens, (step.epoch, step.position, step.of)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_makes_the_same_steps(processes):
    making = partial(upcoming, *learner_and_stream(), Cursor(total=10, step=1, epoch=1, position=2))
    alone = [described(step) for step in making(0, 1)]
    assert len(alone) == 9 and len({epoch for *_, (epoch, _, _) in alone}) == 4
    assert [described(step) for step in made_by(processes, making)] == alone


def test_a_run_is_the_same_whoever_makes_its_steps(monkeypatch):
    found = []
    for source in (ahead, lambda making, device: made_by(2, making)):
        monkeypatch.setattr(loop, "ahead", source)
        learner, stream = learner_and_stream()
        cursor = Cursor(total=7)
        losses = [event.losses for event in train(learner, stream, cursor)]
        found.append((losses, cursor.epoch, cursor.position, cursor.tokens))
    assert found[0] == found[1]


def test_what_goes_wrong_in_a_process_is_told_here():
    def making(first, every):
        raise UserError("this row is damaged")
        yield

    with pytest.raises(UserError) as caught:
        next(made_by(1, making))
    assert str(caught.value) == "this row is damaged"


def test_where_shared_memory_is_full_the_run_ends_with_a_word(monkeypatch):
    def full(tensor):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"^a step of .* could not be shared .No space left"):
        next(made_by(1, partial(upcoming, *learner_and_stream(), Cursor(total=2))))


@pytest.mark.parametrize("name", ["nowhere", "a" * 100])
def test_where_processes_could_not_be_heard_the_run_ends_with_a_word(name, tmp_path, monkeypatch):
    """Their sockets lie in the folder of temporary files, and a socket's path has 107 bytes."""
    place = tmp_path / name
    if name != "nowhere":
        place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: str(place))
    with pytest.raises(UserError, match=f"/{name}: .* cannot be heard .* by TMPDIR"):
        next(made_by(1, partial(upcoming, *learner_and_stream(), Cursor(total=2))))


def test_a_step_of_many_passes_needs_few_open_files():
    """A tensor on its way between processes is an open file, and a process may have 1,024."""
    settings = SETTINGS.model_copy(update={"batch": 200, "micro_tokens": 64})
    making = partial(upcoming, *learner_and_stream(settings, LENGTHS * 20), Cursor(total=6))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    try:
        steps = list(made_by(2, making))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert min(len(step.portion.batches) for step in steps) > 50


def test_no_signal_to_the_group_of_this_process_reaches_them():
    source = made_by(2, partial(upcoming, *learner_and_stream(), Cursor(total=30)))
    for _ in range(2):  # one from each
        next(source)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    assert os.getpgrp() not in {os.getpgid(worker.pid) for worker in workers}


def test_whoever_wants_no_more_steps_leaves_no_process_behind():
    source = made_by(2, partial(upcoming, *learner_and_stream(), Cursor(total=30)))
    next(source)
    assert multiprocessing.active_children()
    source.close()
    assert not multiprocessing.active_children()


def test_a_cpu_makes_its_own_steps():
    next(ahead(partial(upcoming, *learner_and_stream(), Cursor(total=2)), torch.device("cpu")))
    assert not multiprocessing.active_children()
