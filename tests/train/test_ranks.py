"""Laws of several processes: they are as one; go on from one another; leave together."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_run import LENGTHS, SETTINGS, WINDOW, small_run, what_it_left, windows_of
from together import DONE, REFUSED, STOPPED

from clozeworks import cli
from clozeworks.core.errors import UserError
from clozeworks.data.order import ExampleStream
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.data.shards import Shards
from clozeworks.train.distributed import Team, gathered
from clozeworks.train.loop import Learner, portion_of
from clozeworks.train.optim import Optimizer
from clozeworks.train.portion import slices
from clozeworks.train.state import Cursor, latest_cursor
from tiny import LETTERS, TOKENIZER, WORDS, gap, make_groups, make_model, make_task

HERE = Path(__file__).parent
PLAIN = {"dropout": 0.0, "duration": "5 steps", "micro_tokens": 10_000}
WAYS = {"ddp": {"parallel": "ddp"}, "fsdp": {"parallel": "fsdp"}}
CUTS = {
    "whole": {},
    "cut": {"micro_tokens": 70},  # several passes, and not as many in each process
    "scarce": {"batch": 40},  # steps of a single group, so that one process has none
}
CASES = [(way, how, "adamw", "mlm+nsp") for way in WAYS for how in CUTS]
CASES += [(way, "cut", "muon", "mlm+nsp") for way in WAYS]
OTHERS = ["mlm", "nsp", "sop", "mlm+sop", "rtd", "seq2seq", "embed"]
CASES += [(way, "cut", "adamw", name) for way in WAYS for name in OTHERS]
CASES += [("ddp", "whole", "adamw", "embed"), ("ddp", "cut", "adamw", "embed:cosent")]


@pytest.fixture(scope="module")
def together():
    """Run jobs of several processes, in a process that has loaded everything once."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    script = subprocess.Popen(
        [sys.executable, str(HERE / "together.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(folder, processes, settings, orders=(), **more):
        job = {"folder": str(folder), "processes": processes, "settings": settings, "more": more}
        print(json.dumps({**job, "orders": list(orders)}), file=script.stdin, flush=True)
        return json.loads(script.stdout.readline())

    yield run
    script.stdin.close()
    assert script.wait(60) == 0


def weights(folder):
    """Of everything that was trained, a generator too."""
    files = sorted((folder / "bundle").rglob("model.safetensors"))
    return {
        f"{file.parent.name}.{name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def close(folder, other, limit=1e-5):
    """The weights agree to rounding, and so does what was told of every step."""
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    largest = max(t.abs().max() for t in theirs.values())
    for name, tensor in theirs.items():
        # a key's bias has no gradient but rounding, which Adam makes as large as any
        if "key.bias" in name:
            assert (ours[name] - tensor).abs().max() < 0.01 * largest
        else:
            assert gap(ours[name], tensor) < limit, name
    for line, expected in zip(metrics(folder), metrics(other), strict=True):
        assert line.keys() == expected.keys()
        for key in line.keys() & {"mlm", "nsp", "sop", "rtd", "seq2seq", "embed", "norm"}:
            assert line[key] == pytest.approx(expected[key], rel=1e-4)
        for key in line.keys() & {"step", "epoch", "lr", "tokens"}:
            assert line[key] == expected[key]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process comes to, by settings."""
    found = {}

    def run(settings, **more):
        key = json.dumps([{n: v for n, v in settings.items() if n != "parallel"}, more])
        if key not in found:
            found[key] = tmp_path_factory.mktemp("alone") / "run"
            small_run(found[key], SETTINGS.model_copy(update=settings), **more)
        return found[key]

    return run


@pytest.mark.parametrize(("way", "how", "rule", "name"), CASES)
def test_two_processes_are_one(way, how, rule, name, together, alone, tmp_path):
    settings = {**PLAIN, **CUTS[how], "optimizer": rule}
    left = together(tmp_path / "run", 2, {**settings, **WAYS[way]}, name=name)
    assert left == [DONE, DONE]
    limit = 1e-3 if name.startswith("embed") else 1e-5  # of small gradients AdamW makes large steps
    close(tmp_path / "run", alone(settings, name=name), 2e-2 if rule == "muon" else limit)
    passes, groups = zip(*(counted(tmp_path / "run", rank) for rank in range(2)), strict=True)
    assert passes[0] == passes[1]
    assert (max(passes[0]) > 1) == (how == "cut")
    idle = [0 in map(len, step) for step in zip(*groups, strict=True)]
    assert any(idle) == (how == "scarce")


def counted(folder, rank):
    """How many passes, and which groups, each step of a process had."""
    lines = (folder.parent / f"{folder.name}.{rank}.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    return [passes for _, passes, _ in steps], [indices for _, _, indices in steps]


def test_a_run_goes_on_with_more_processes_and_fewer(together, alone, tmp_path):
    """From one to two to three and back, parameters whole or cut, and smaller micro-batches."""
    settings = {**PLAIN, "duration": "20 steps"}
    sittings = [
        (1, {}, (4, 0)),
        (2, {"micro_tokens": 150}, (9, 1)),
        (3, {"parallel": "fsdp", "recompute": True}, (13, 2)),
        (1, {"keep_last": 1}, None),
    ]
    for processes, change, stopped in sittings:
        orders = [(*stopped, "SIGTERM")] if stopped else []
        left = together(tmp_path / "run", processes, {**settings, **change}, orders)
        assert left == [STOPPED if stopped else DONE] * processes
        assert latest_cursor(tmp_path / "run" / "checkpoints").step == (
            stopped[0] + 1 if stopped else 20
        )
    close(tmp_path / "run", alone(settings), 1e-4)
    seen = {}
    for rank in range(3):
        for line in (tmp_path / f"run.{rank}.jsonl").read_text().splitlines():
            step, _, indices = json.loads(line)
            seen.setdefault(step // 10, []).extend(indices)
    assert seen.keys() == {0, 1}
    for indices in seen.values():  # every group once an epoch
        assert sorted(indices) == list(range(len(LENGTHS)))


def write_shards(folder):
    """Fifty documents, of one sentence to nine."""
    texts = [
        "\n".join(f"{LETTERS[n % 26]} {WORDS[n % 11]} {WORDS[i]} please." for i in range(1 + n % 9))
        for n in range(50)
    ]
    (folder / "text.txt").write_text("\n\n".join(texts), "utf-8")
    prepare([folder / "text.txt"], TOKENIZER, folder / "shards", PrepareSettings(processes=1))
    return folder / "shards"


def test_every_document_is_read_once_an_epoch_whoever_reads_it(together, alone, tmp_path):
    """From one process to two and back, in the middle of epochs."""
    more = {"name": "mlm", "shards": str(write_shards(tmp_path))}
    settings = {**PLAIN, "duration": "2 epochs"}
    stream = windows_of(more["shards"], SETTINGS.model_copy(update=settings))
    steps = [len(stream.steps(epoch)) for epoch in range(2)]
    stops = [steps[0] // 2, steps[0] + steps[1] // 3]
    for processes, stop in ((1, [stops[0]]), (2, [stops[1]]), (1, [])):
        orders = [(step, processes - 1, "SIGTERM") for step in stop]
        change = {"parallel": "fsdp"} if processes == 2 else {}
        left = together(tmp_path / "run", processes, {**settings, **change}, orders, **more)
        assert left == [STOPPED if stop else DONE] * processes
    close(tmp_path / "run", alone(settings, **more), 1e-4)
    read = {}
    for rank in range(2):
        for line in (tmp_path / f"run.{rank}.jsonl").read_text().splitlines():
            step, _, indices = json.loads(line)
            read.setdefault(int(step >= steps[0]), []).extend(indices)
    corpus = Shards.open(more["shards"])
    bounds = corpus.sentences[corpus.documents]
    assert len(bounds) == 51 and max(np.diff(bounds)) > WINDOW
    for epoch, indices in read.items():
        times = np.zeros(corpus.manifest.tokens, dtype=int)
        for start, stop in stream.plan(epoch).first[indices]:
            times[start:stop] += 1
        for start, stop in pairwise(bounds):
            assert set(times[start:stop]) == {1}
    assert read.keys() == {0, 1}


@pytest.mark.parametrize(("way", "processes"), [("ddp", 3), ("fsdp", 2)])
def test_a_process_killed_takes_the_others_along_and_changes_nothing(
    way, processes, together, tmp_path
):
    settings = {**WAYS[way], "duration": "10 steps", "micro_tokens": 10_000, "precision": "fp32"}
    if way == "fsdp":
        settings |= {"optimizer": "muon"}
    assert together(tmp_path / "whole" / "run", processes, settings) == [DONE] * processes
    again = tmp_path / "killed" / "run"
    left = together(again, processes, settings, [(6, 1, "SIGKILL")])
    assert left == [REFUSED, -9] + [REFUSED] * (processes - 2)
    assert "another of the processes has left" in (again.parent / "run.0.said").read_text()
    assert not (again / "bundle").exists()
    assert 0 < latest_cursor(again / "checkpoints").step <= 6
    assert together(again, processes, settings) == [DONE] * processes
    assert what_it_left(again) == what_it_left(tmp_path / "whole" / "run")


@pytest.mark.parametrize("way", WAYS)
def test_in_bf16_they_learn_the_same_but_for_its_rounding(way, together, alone, tmp_path):
    settings = {**PLAIN, "precision": "bf16"}
    assert together(tmp_path / "run", 2, {**settings, **WAYS[way]}) == [DONE, DONE]
    for line, expected in zip(metrics(tmp_path / "run"), metrics(alone(settings)), strict=True):
        for key in line.keys() & {"mlm", "nsp"}:
            assert line[key] == pytest.approx(expected[key], rel=0.01)
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "run").values())


def test_an_error_of_the_first_is_everyones(together, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("x")
    assert together(tmp_path / "run", 2, PLAIN) == [REFUSED, REFUSED]
    said = {(tmp_path / f"run.{rank}.said").read_text() for rank in range(2)}
    assert said == {f"{tmp_path / 'run'} is not empty; choose another --out, or remove it"}
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_processes_that_were_cut_keep_the_best_and_judge_it_whole(together, tmp_path):
    settings = {**PLAIN, "parallel": "fsdp", "duration": "4 steps", "keep_best": "total"}
    assert together(tmp_path / "run", 2, settings) == [DONE, DONE]
    cursor = latest_cursor(tmp_path / "run" / "checkpoints")
    judged = {
        line["step"]: line["held_out"] for line in metrics(tmp_path / "run") if "held_out" in line
    }
    totals = [found["mlm"] + found["nsp"] for found in judged.values()]
    assert cursor.best == min(totals)
    best, whole = (
        load_file(tmp_path / "run" / name / "model.safetensors") for name in ("best", "bundle")
    )
    assert best.keys() == whole.keys()
    assert all(tensor.dtype == torch.float32 for tensor in best.values())


def test_processes_that_diverge_leave_what_they_knew_whole(together, tmp_path):
    settings = {**PLAIN, "parallel": "fsdp", "lr": 1e6, "clip": 0.0, "duration": "30 steps"}
    assert together(tmp_path / "run", 2, {**settings, "checkpoint_minutes": 1e-9}) == [REFUSED] * 2
    said = {(tmp_path / f"run.{rank}.said").read_text() for rank in range(2)}
    assert len(said) == 1 and f"is in {tmp_path / 'run' / 'rescued'}" in said.pop()
    step = latest_cursor(tmp_path / "run" / "checkpoints").step
    state = load_file(tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "state.safetensors")
    rescued = load_file(tmp_path / "run" / "rescued" / "model.safetensors")
    table = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(rescued[table], state["master.encoder.embeddings.tokens.weight"])


# === Who does what of a step ===


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 8), st.integers(1, 500)
)
def test_a_step_is_sliced_into_even_parts_that_lose_nothing(lengths, size, micro_tokens):
    lengths = np.array(lengths)
    found, passes = [], set()
    for rank in range(size):
        mine, most = slices(lengths, micro_tokens, Team(rank, size))
        passes.add(most)
        assert len(mine) <= most
        taken = [int(i) for part in mine for i in part]
        assert lengths[taken].sum() <= lengths.sum() / size + lengths.max()
        assert all(len(p) == 1 or lengths[p].sum() <= micro_tokens for p in mine)
        found += taken
    assert found == list(range(len(lengths)))
    assert len(passes) == 1


@pytest.mark.parametrize("name", ["mlm", "nsp", "mlm+nsp", "classify"])
def test_a_pass_that_keeps_company_gives_gradients_that_are_zero(name):
    task = make_task(name)
    model = make_model(task)
    stream = ExampleStream(
        make_groups([40, 9], classes=3 if name == "classify" else 2), 40, "tokens", 0
    )
    optimizer = Optimizer(model, torch.float32)
    both = [Learner(model, task, SETTINGS, optimizer, Team(rank, 2)) for rank in range(2)]
    step = next(indices for indices in stream.steps(0) if len(indices) == 1)
    portions = [portion_of(learner, stream, Cursor(total=1), step) for learner in both]
    assert sorted(portion.counted for portion in portions) == [0, 1]
    portion = next(portion for portion in portions if portion.counted == 0)
    assert len(portion.batches) == 1
    added = both[0].learn(portion, dict.fromkeys(task.counts(portion.batches[0]), 1.0))
    assert added.abs().max() == 0
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() == 0


# === The command ===


def test_only_training_has_several_processes(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    said = []
    monkeypatch.setattr(cli, "say", said.append)
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "corpus.txt", "--tokenizer", "t", "--out", "shards"])
    assert stop.value.code == 2
    assert said == [
        "error: `prepare` runs in one process; leave torchrun out (choices: pretrain, finetune)"
    ]


def test_a_gpu_is_not_shared(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, message in (
        ("cuda", "2 processes on a machine with 1 GPUs"),
        ("cuda:0", "one GPU for several processes; use cuda"),
    ):
        with pytest.raises(UserError, match=message), gathered(torch.device(device)):
            pass
