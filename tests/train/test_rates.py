"""Learning rates are those that suited, and stay what somebody named."""

import pytest

import clozeworks
from clozeworks import tasks
from clozeworks.train import rates
from clozeworks.train.loop import TrainSettings
from clozeworks.train.rates import finetuning_rate, pretraining_rate, rated


def test_pretraining_rates_are_those_that_suited():
    assert pretraining_rate(128, muon=False) == pretraining_rate(256, muon=False) == 1e-3
    assert pretraining_rate(768, muon=False) == pytest.approx(1e-4, rel=0.15)
    assert pretraining_rate(256, muon=True) == 2e-3


def test_finetuning_rates_are_those_that_suited():
    assert finetuning_rate(768) == 3e-5
    assert finetuning_rate(384) == 1.2e-4
    assert finetuning_rate(256) == 2.7e-4
    assert finetuning_rate(128) == finetuning_rate(64) == 5e-4
    assert finetuning_rate(384, tasks.TASKS.get("embed").pace) == 4e-5


def recipe(**train):
    return clozeworks.PretrainRecipe(data="shards", out="run", train=train)


def test_a_rate_is_filled_in_only_where_none_is_named(monkeypatch):
    said = []
    monkeypatch.setattr(rates, "say", said.append)
    assert rated(recipe(lr=1e-2), 3e-4, 256).train.lr == 1e-2
    assert not said
    filled = rated(recipe(batch=64), 3e-4, 256)
    assert filled.train.lr == filled.train.peak == 3e-4 and filled.train.batch == 64
    assert "0.0003" in said[0]


def test_without_a_rate_there_is_no_peak():
    with pytest.raises(ValueError, match="no learning rate"):
        _ = TrainSettings().peak
