"""Laws of runs: one folder, one run; its trace has every step once."""

import json
import subprocess
import sys

import pytest

from clozeworks.core import run as run_module
from clozeworks.core.bundle import open_bundle, read_json
from clozeworks.core.config import Settings, read_toml
from clozeworks.core.errors import UserError
from clozeworks.core.log import Meter, clock
from clozeworks.core.run import Run, alone_in, environment, versions


class Inner(Settings):
    free = frozenset({"pieces"})
    lr: float = 0.1
    pieces: int = 1


class Recipe(Settings):
    """A recipe of a test."""

    data: str = "x"
    train: Inner = Inner()
    labels: list[str] = ["a"]


def start(folder, recipe=None, verb="train", inputs=None):
    return Run.start(folder, verb, recipe or Recipe(), inputs or {"x": "1"})


def test_a_run_is_started_once_and_taken_up_after(tmp_path):
    first = start(tmp_path / "deep" / "run")
    assert not first.resumed and start(first.path).resumed
    assert read_toml(first.path / "recipe.toml")["train"] == {"lr": 0.1, "pieces": 1}
    assert "torch" in read_json(first.path / "environment.json")["versions"]
    assert first.bundle.parent == first.checkpoints.parent == first.path
    (tmp_path / "empty").mkdir()
    assert not start(tmp_path / "empty").resumed


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"recipe": Recipe(train=Inner(lr=0.2))}, "recipe.train.lr was 0.1, now 0.2"),
        ({"recipe": Recipe(labels=["a", "b"])}, "recipe.labels was .*now"),
        ({"verb": "tune"}, "verb was 'train', now 'tune'"),
        ({"inputs": {"x": "2"}}, "inputs.x was '1', now '2'"),
        ({"inputs": {"x": "1", "y": "3"}}, "inputs.y was None, now '3'"),
    ],
)
def test_another_run_is_refused_naming_what_differs(other, message, tmp_path):
    start(tmp_path / "run")
    with pytest.raises(UserError, match=f"holds a different run .*{message}.*another --out"):
        start(tmp_path / "run", **other)


def test_all_that_differs_is_said_at_once(tmp_path):
    start(tmp_path / "run", inputs={"tokenizer": "a" * 64, "x": "1"})
    other = Recipe(data="y" * 200, train=Inner(lr=0.2, pieces=9))
    with pytest.raises(UserError) as refusal:
        start(tmp_path / "run", other, inputs={"tokenizer": "b" * 64, "x": "1"})
    said = str(refusal.value)
    assert "\n" not in said and len(said) < 500
    for part in ("inputs.tokenizer was 'aaa", "now 'bbb", "recipe.data was 'x', now 'yyy", "; "):
        assert part in said
    assert "recipe.train.lr was 0.1, now 0.2" in said
    assert "pieces" not in said and "inputs.x" not in said


def test_how_a_run_is_computed_may_change_while_it_goes_on(tmp_path):
    start(tmp_path / "run")
    assert start(tmp_path / "run", Recipe(train=Inner(pieces=7))).resumed


def test_other_versions_are_said_once_and_written_down(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(run_module, "say", said.append)
    start(tmp_path / "run")
    start(tmp_path / "run")
    assert said == []
    now = versions() | {"torch": "9.9"}
    monkeypatch.setattr(run_module, "versions", lambda: now)
    for _ in range(2):
        assert start(tmp_path / "run").resumed
    assert len(said) == 1 and "goes on with other versions (torch was " in said[0]
    assert ", now 9.9)" in said[0]
    told = read_json(tmp_path / "run" / "environment.json")
    assert told["versions"]["torch"] != "9.9"
    assert [later["versions"] for later in told["later"]] == [now]
    (tmp_path / "run" / "environment.json").unlink()
    assert start(tmp_path / "run").resumed


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("x")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "full", tmp_path / "file"):
        with pytest.raises(UserError, match=r"is not empty|is a file"):
            start(path)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.doc"]
    start(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"verb": ')
    with pytest.raises(UserError, match="damaged"):
        start(tmp_path / "run")


def test_what_is_written_again_is_forgotten(tmp_path):
    run = start(tmp_path / "run")
    run.forget_after(3)
    lines = [{"step": i, "loss": 1.0 / i} for i in range(1, 8)] + [{"step": 2, "held_out": {}}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 8, "lo'
    (run.path / "metrics.jsonl").write_text(text)
    run.forget_after(3)
    kept = [json.loads(x) for x in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [line for line in lines if line["step"] <= 3]
    run.forget_after(0)
    assert (run.path / "metrics.jsonl").read_text() == ""


def test_a_damaged_trace_is_no_hindrance(tmp_path):
    run = start(tmp_path / "run")
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n[3]\n7\n{"step": 2}\n')
    run.forget_after(2)
    assert (run.path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_two_at_once_are_kept_apart(tmp_path):
    run = start(tmp_path / "run")
    with alone_in(run.path):
        busy = pytest.raises(UserError, match=r"worked on by another process.*another --out")
        with busy, alone_in(start(tmp_path / "run").path):
            pass
    with alone_in(start(tmp_path / "run").path):
        pass


def test_the_environment_is_told():
    assert {"python", "torch", "numpy"} <= versions().keys()
    assert {"versions", "system", "command"} <= environment().keys()


def test_json_that_is_no_object_is_refused(tmp_path):
    for text, message in (("[1]", "JSON object, not a list"), ("{", "damaged"), ("", "damaged")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="damaged"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="not a model folder"):
        open_bundle(tmp_path)


def test_core_does_not_load_torch():
    """So that help and errors come at once."""
    modules = ["bundle", "config", "errors", "files", "log", "records", "registry", "run"]
    code = "import sys\n" + "".join(f"import clozeworks.core.{name}\n" for name in modules)
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0


def test_progress_counts_this_sitting_and_says_what_is_left():
    with Meter("training", 100, "steps") as meter:
        meter.skip(40)
        meter.advance(10, "loss 1.0")
        assert meter.done == 50
        status = meter._status()
    assert status.startswith("50 of 100 steps, ")
    assert status.endswith("left, loss 1.0")
    assert [clock(s) for s in (0, 59.4, 185, 7800)] == ["0 s", "59 s", "3 min 05 s", "2 h 10 min"]
