"""Runs that hide words: what they need, what they say, and that they go on as if unstopped."""

import json
import random

import pytest

from clozeworks import api
from clozeworks.core.course import Course
from clozeworks.core.errors import UserError
from clozeworks.train.optim import Optimizer
from tiny import CLOCKED

ENGLISH = ["lamp", "kettle", "parcels", "late", "brightness", "the", "unbelievable"]
CHINESE = ["北京大学", "快递", "很好", "我", "今天", "来", "研究生命"]
SMALL = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "inner_size": 32}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A mixed corpus, its tokenizer, and shards with and without bounds of words."""
    folder = tmp_path_factory.mktemp("desk")
    chance = random.Random(0)
    lines = []
    for _ in range(80):
        english = " ".join(chance.choices(ENGLISH, k=14))
        lines.append(f"{english}.\n{''.join(chance.choices(CHINESE, k=9))}。ok，{english}!\n\n")
    (folder / "corpus.txt").write_text("".join(lines), "utf-8")
    (folder / "names.txt").write_text("the lamp\n北京大学\n", "utf-8")
    files = [folder / "corpus.txt"]
    api.tokenizer(
        api.TokenizerRecipe(files=files, out=folder / "tokenizer", settings={"vocab_size": 80})
    )
    for words in ("auto", "none"):
        recipe = {"files": files, "tokenizer": folder / "tokenizer", "out": folder / words}
        api.prepare(api.PrepareRecipe(**recipe, settings={"words": words}))
    return folder


def recipe(desk, out, shards="auto", steps=2, **settings):
    train = {"duration": f"{steps} steps", "batch": 512, "checkpoint_minutes": 1e-6}
    return api.PretrainRecipe(
        **{"data": desk / shards, "out": out, "size": "tiny", "encoder": SMALL},
        **{"task": "mlm+nsp", "train": train, "max_length": 48, "held_out_tokens": 500},
        settings={"mlm": settings},
    )


@pytest.mark.parametrize("unit", ["token", "word", "span", "ngram", "entity"])
def test_a_run_reports_its_masks(desk, tmp_path, unit, monkeypatch):
    said = []
    monkeypatch.setattr("clozeworks.api.masking.say", said.append)
    more = {"names": str(desk / "names.txt")} if unit == "entity" else {}
    api.pretrain(recipe(desk, tmp_path / "run", unit=unit, rate=0.2, **more))
    report = json.loads((tmp_path / "run/masking.json").read_text("utf-8"))
    assert report["asked"] == 0.2
    assert report["rate"] == pytest.approx(0.2, abs=0.02)
    assert report["masked"] == pytest.approx(0.8, abs=0.06)
    assert report["specials_touched"] == 0
    assert report["fewest"] >= 1 and report["end"] is None
    assert report["words_split"] == (None if unit == "token" else 0)
    assert report["scripts"]["latin"]["tokens"] > 500 and report["scripts"]["cjk"]["tokens"] > 500
    assert len(said) == (3 if unit == "entity" else 2)


@pytest.mark.parametrize("unit", ["word", "span", "ngram", "entity"])
def test_shards_without_words_are_refused_before_anything_is_written(desk, tmp_path, unit):
    more = {"names": str(desk / "names.txt")} if unit == "entity" else {}
    with pytest.raises(UserError, match=rf"unit = '{unit}' needs; prepare .* --words auto"):
        api.pretrain(recipe(desk, tmp_path / "run", "none", unit=unit, **more))
    assert not (tmp_path / "run").exists()
    api.pretrain(recipe(desk, tmp_path / "run", "none", steps=1))


def test_other_names_are_another_run(desk, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("北京大学\n", "utf-8")
    asked = recipe(desk, tmp_path / "run", steps=1, unit="entity", names=str(names))
    api.pretrain(asked)
    names.write_text("北京大学\n快递\n", "utf-8")
    with pytest.raises(UserError, match=r"different run \(inputs\.names/names\.txt"):
        api.pretrain(asked)


@pytest.mark.parametrize("changing", [{"rate": "0.4 -> 0.1"}, {"masked": "0.9 -> 0.5"}])
def test_the_end_of_a_course_is_reported_too(desk, tmp_path, changing, monkeypatch):
    said = []
    monkeypatch.setattr("clozeworks.api.masking.say", said.append)
    api.pretrain(recipe(desk, tmp_path / "run", **changing))
    begin = json.loads((tmp_path / "run/masking.json").read_text("utf-8"))
    end = begin.pop("end")
    asked = {"rate": 0.15, "masked": 0.8}
    for at, report in enumerate((begin, end)):
        for name, value in asked.items():
            course = Course.of(changing.get(name, value))
            assert report[name] == pytest.approx(course[at], abs=0.02 if name == "rate" else 0.07)
        assert report["asked"] == pytest.approx(Course.of(changing.get("rate", 0.15))[at])
    assert len(said) == 3 and said[-1].startswith("masks at the end: ")


class Crash(Exception):
    """Stands for whatever ends a process."""


def left(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]
    files = ("bundle/model.safetensors", "masking.json")
    return kept, [(folder / name).read_bytes() for name in files]


def test_masks_on_a_course_go_on_where_a_run_was_stopped(desk, tmp_path, monkeypatch):
    settings = {"unit": "word", "rate": "0.4 -> 0.1", "masked": "0.9 -> 0.7"}
    api.pretrain(recipe(desk, tmp_path / "straight", steps=30, **settings))
    step, budget = Optimizer.step, [17]

    def crash_once(self, rate):
        budget[0] -= 1
        if budget[0] == 0:
            raise Crash
        return step(self, rate)

    monkeypatch.setattr(Optimizer, "step", crash_once)
    with pytest.raises(Crash):
        api.pretrain(recipe(desk, tmp_path / "run", steps=30, **settings))
    api.pretrain(recipe(desk, tmp_path / "run", steps=30, **settings))
    assert left(tmp_path / "run") == left(tmp_path / "straight")


def test_info_says_whether_there_are_words(desk):
    shown = {name: api.info(api.InfoRecipe(path=desk / name))["words"] for name in ("auto", "none")}
    assert shown["auto"].split()[0] in ("jieba", "characters")
    assert "--words auto" in shown["none"]
