"""A run from the command line, stopped by SIGTERM and given again, ends as it would have."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clozeworks.cli import STOPPED, main
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.train.state import latest_cursor
from tiny import CHINESE, TOKENIZER, WORDS

VERB = [
    *("pretrain", "mlm+nsp", "shards", "--out", "run", "--size", "tiny", "--max-length", "24"),
    *("--held-out-tokens", "200", "--train.duration", "40 steps", "--train.batch", "600"),
    *("--train.precision", "fp32", "--train.dropout", "0.1", "--device", "cpu"),
]
"""Paths are relative, so that Bundles made in two folders can be equal to the byte."""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Three folders with the same shards."""
    text = tmp_path_factory.mktemp("text") / "corpus.txt"
    words = [*WORDS, *CHINESE]
    sentences = [" ".join(words[(i * j) % len(words)] for j in range(3, 11)) for i in range(400)]
    blocks = ["\n".join(f"{s}." for s in sentences[i : i + 8]) for i in range(0, 400, 8)]
    text.write_text("\n\n".join(blocks), "utf-8")
    found = []
    for name in ("straight", "stopped", "shared"):
        found.append(tmp_path_factory.mktemp(name))
        prepare([text], TOKENIZER, found[-1] / "shards", PrepareSettings(processes=1))
    return found


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def started(place, *launcher):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(place)}
    call = [sys.executable, *launcher, "-m", "clozeworks", *VERB]
    return subprocess.Popen(call, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_steps(run: Path, process):
    """Until the run takes steps: its trace is opened once the first checkpoint is saved."""
    limit = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < limit, "the run did not begin"
        time.sleep(0.01)


def test_stopped_and_given_again_is_the_same_bundle(places, monkeypatch):
    straight, stopped, _ = places
    process = started(stopped)
    wait_for_steps(stopped / "run", process)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == STOPPED, said
    assert "Traceback" not in said
    assert "everything is saved in run: give the same command again to continue" in said
    assert not (stopped / "run" / "bundle").exists()
    for place in (straight, stopped):
        monkeypatch.chdir(place)
        main(VERB)
    ours, theirs = (
        {p.name: p.read_bytes() for p in (place / "run" / "bundle").iterdir()}
        for place in (straight, stopped)
    )
    assert ours == theirs
    assert {"config.json", "model.safetensors", "clozeworks.json", "vocab.txt"} <= ours.keys()


def test_two_processes_of_torchrun_stop_together_and_one_goes_on(places, monkeypatch):
    shared = places[2]
    process = started(shared, *TORCHRUN)
    wait_for_steps(shared / "run", process)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("everything is saved in run: give the same command again to continue") == 1
    assert said.count("documents to learn from") == 1
    assert latest_cursor(shared / "run" / "checkpoints").step > 0
    monkeypatch.chdir(shared)
    main(VERB)
    lines = map(json.loads, Path("run/metrics.jsonl").read_text("utf-8").splitlines())
    assert [line["step"] for line in lines if "held_out" not in line] == list(range(1, 41))
    assert (shared / "run" / "bundle" / "model.safetensors").exists()
