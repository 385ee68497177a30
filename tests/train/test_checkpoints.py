"""Laws of what is kept: the last checkpoints, and the model of the best judgement."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_run import SETTINGS, small_run, what_it_left

from clozeworks.core.bundle import open_bundle
from clozeworks.core.errors import UserError
from clozeworks.core.run import Run
from clozeworks.data.order import ExampleStream
from clozeworks.interop.huggingface import open_model
from clozeworks.model.encoder import Encoder
from clozeworks.train.best import improves, merit
from clozeworks.train.fit import Fit
from clozeworks.train.loop import held_out_losses
from clozeworks.train.optim import Optimizer
from clozeworks.train.state import latest_cursor
from tiny import CONFIG, make_groups, make_task


def settings_with(**values):
    return SETTINGS.model_copy(update=values)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_checkpoints_are_kept(keep, tmp_path):
    small_run(tmp_path / "run", settings_with(keep_last=keep, checkpoint_minutes=1e-9))
    steps = [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())]
    assert steps == [f"step-{step:08d}" for step in range(21 - keep, 21)]


@pytest.mark.parametrize(("by", "terms"), [("total", ["mlm", "nsp"]), ("nsp", ["nsp"])])
def test_the_best_model_is_a_bundle_that_is_judged_as_it_was(by, terms, tmp_path):
    # a rate this high ends worse than it was on the way
    small_run(tmp_path / "run", settings_with(keep_best=by, lr=0.03, schedule="constant"))
    cursor = latest_cursor(tmp_path / "run" / "checkpoints")
    _, lines = what_it_left(tmp_path / "run")
    judged = {
        line["step"]: sum(line["held_out"][t] for t in terms)
        for line in lines
        if "held_out" in line
    }
    assert cursor.best_step == min(judged, key=judged.get) < cursor.total
    assert cursor.best == judged[cursor.best_step]
    task = make_task("mlm+nsp")
    best = open_model(open_bundle(tmp_path / "run" / "best"), task, seed=0).model
    held_out = ExampleStream(make_groups([30, 20], seed=5), 400, "tokens", 0)
    found = held_out_losses(best, task, held_out, 150)
    assert sum(found[t] for t in terms) == pytest.approx(cursor.best, rel=1e-6)


def test_without_the_wish_there_is_no_best(tmp_path):
    small_run(tmp_path / "run", settings_with(duration="3 steps"))
    assert not (tmp_path / "run" / "best").exists()


def test_the_best_of_a_bf16_model_has_the_weights_of_its_masters(tmp_path, monkeypatch):
    masters = {}
    before = Optimizer.exact

    def exact(self):
        masters.update(zip(self.names, (m.clone() for m in self.masters), strict=True))
        return before(self)

    monkeypatch.setattr(Optimizer, "exact", exact)
    small_run(tmp_path / "run", settings_with(precision="bf16", keep_best="mlm"))
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    tokens = best["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(tokens, masters["encoder.embeddings.tokens.weight"])
    assert not torch.equal(tokens, tokens.bfloat16().float())


def test_keeping_the_best_changes_nothing_else(tmp_path):
    for name, by in (("with", "total"), ("without", None)):
        small_run(tmp_path / name, settings_with(precision="bf16", keep_best=by))
    assert what_it_left(tmp_path / "with") == what_it_left(tmp_path / "without")


def test_a_number_that_is_not_judged_is_refused_and_the_work_is_not_lost(tmp_path):
    settings = settings_with(keep_best="accuracy", duration="4 steps", checkpoint_minutes=1e-9)
    with pytest.raises(UserError, match=r"keep_best 'accuracy' is not known.*total, mlm, nsp"):
        small_run(tmp_path / "run", settings)
    assert small_run(tmp_path / "run", settings_with(duration="4 steps")).cursor.step == 4


def test_a_total_needs_losses(tmp_path):
    task = make_task("mlm")
    settings = settings_with(keep_best="total", duration="2 steps")
    stream = ExampleStream(make_groups(), settings.batch, settings.unit, 0)
    run = Run.start(tmp_path / "run", "pretrain", settings, {})
    model = task.build(Encoder(CONFIG))
    fit = Fit(model, task, stream, settings, run, lambda live: {"accuracy": 0.5})
    with pytest.raises(UserError, match=r"there are none here \(choices: accuracy\)"):
        fit()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.booleans())
def test_the_best_is_the_first_of_the_extremes(values, less):
    best, place = None, -1
    for i, value in enumerate(values):
        if improves(value, best, less):
            best, place = value, i
    assert best == (min(values) if less else max(values))
    assert place == values.index(best)
    assert not improves(math.nan, None, less) and not improves(math.nan, best, less)


def test_less_of_a_loss_is_better_and_more_of_anything_else():
    judged = {"mlm": 3.0, "nsp": 0.5, "nsp_accuracy": 0.8, "general/mlm": 4.0}
    weights = {"mlm": 1.0, "nsp": 1.0}
    assert merit(judged, {"mlm": 1.0, "nsp": 50.0}, "total") == (28.0, True)
    assert merit(judged, weights, "general/mlm") == (4.0, True)
    assert merit(judged, weights, "probe_accuracy") is None, "not every judgement has it"
    assert merit(judged, weights, "total") == (3.5, True)
    assert merit(judged, weights, "nsp") == (0.5, True)
    assert merit(judged, weights, "nsp_accuracy") == (0.8, False)
