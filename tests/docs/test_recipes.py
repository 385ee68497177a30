"""Every recipe that ships can be read, and names what the benchmark it is for needs."""

import json
import runpy
from pathlib import Path

import pytest

from clozeworks import tasks
from clozeworks.api.pretrain import PretrainRecipe
from clozeworks.core.config import read_toml, validated
from clozeworks.data.prepare import PrepareSettings
from clozeworks.model.families import FAMILIES, check_class, sized
from clozeworks.model.heads import encoder_of
from clozeworks.text.train import TokenizerSettings
from clozeworks.train.loop import TrainSettings
from tiny import VOCABULARY

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
MOST_BYTES = 15_500_000
"""Of the shipped encoder's weights in bf16: with its tokenizer it stays below 16 MB."""


def test_every_recipe_is_read_by_a_test():
    names = {path.name for path in RECIPES.glob("*.toml")}
    assert names == {"lstm_en.toml", "lstm_zh.toml", "clozeworks_mini.toml"}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("lstm_*.toml")), ids=lambda path: path.name)
def test_a_recipe_is_read(path):
    values = read_toml(path)
    for name in ("lstm", "bert"):
        validated(TrainSettings, values[name], str(path))
    sized("lstm", values["size"], 100, embedding_size=values["vectors"]["vector_size"])
    assert {"corpus", "train", "test", "seeds"} <= values.keys()


@pytest.fixture
def long(monkeypatch):
    """Names of a file of benchmarks/long."""
    for folder in ("benchmarks", "benchmarks/long"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    return lambda name: runpy.run_path(str(ROOT / f"benchmarks/long/{name}.py"), run_name=name)


def pretraining(phase):
    """A phase as the recipe it becomes, its task made."""
    values = {**phase.recipe, "train": {**phase.train, "duration": "1 steps"}}
    recipe = PretrainRecipe.model_validate({"data": "shards", "out": "run", **values})
    return recipe, tasks.create(recipe.task, recipe.settings, VOCABULARY)


def test_the_encoders_recipe_is_read(long):
    """Each phase is a pretraining; none reads shorter texts than the one before."""
    names = long("encoder")
    recipe = read_toml(RECIPES / "clozeworks_mini.toml")
    assert names["settings_of"](recipe) == PrepareSettings(words="jieba")
    assert validated(TokenizerSettings, recipe["tokenizer"], "recipe").vocab_size == 16_000
    phases = [names["phase_of"](recipe, kind, 3) for kind in ("short", "trunk", "cooldown")]
    assert [positions for _, positions in phases] == [32, 128, 512]
    for phase, positions in phases:
        made, task = pretraining(phase)
        assert made.max_length == positions and made.train.seed == 3
        assert made.train.optimizer == "muon" and task.needs_words
    assert pretraining(phases[1][0])[0].train.schedule == "constant"
    decays = [names["phase_of"](recipe, "trunk", leg)[0].train.get("decay") for leg in (1, 3, 4, 9)]
    assert decays == [0.3] * 4


def test_a_leg_reads_the_text_in_an_order_of_its_own_and_a_shorter_trunk_leaves_no_trace(
    long, tmp_path
):
    names = long("encoder")
    recipe = read_toml(RECIPES / "clozeworks_mini.toml")
    seeds = [names["phase_of"](recipe, "trunk", leg)[0].train["seed"] for leg in (1, 2, 3)]
    assert seeds == [1, 2, 3]
    ledger = names["Ledger"]("test_encoder", tmp_path)
    ledger.path.write_text(
        "".join(
            json.dumps({"kind": "run", "name": name, "tokens": 9}) + "\n"
            for name in ("short", "leg-1", "cooldown-1", "leg-2", "leg-2", "cooldown-2")
        )
    )
    through = [row["name"] for row in names["curve"](ledger, 2)]
    assert through == ["short", "leg-1", "leg-2", "cooldown-2"]


def test_the_encoder_is_small_enough():
    recipe = read_toml(RECIPES / "clozeworks_mini.toml")
    shared, size = recipe["shared"], recipe["tokenizer"]["vocab_size"]
    task = tasks.create("mlm+nsp", {}, VOCABULARY)
    model = task.build(encoder_of(sized(shared["family"], shared["size"], size)))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 2) == 7.54, "the recipe's comment says so"
    assert 2 * count < MOST_BYTES


def test_every_trial_of_recipes_is_a_pretraining(long):
    names = long("recipes")
    trials = {**names["MAIN"]["zh"], **names["ABLATIONS"]}
    seen = set()
    for trial in trials.values():
        made = {name: pretraining(phase)[0] for name, phase in trial.phases.items()}
        for phase in trial.phases.values():  # measured by itself, each begins a fresh encoder
            recipe, task = pretraining(phase)
            config = sized(recipe.family, recipe.size, VOCABULARY.size, **recipe.encoder)
            model = task.build(encoder_of(config))
            family = FAMILIES.get(recipe.family)()
            check_class(family, frozenset(model.heads), tasks.TASKS.names())
        assert sum(phase.share for phase in trial.phases.values()) == 1
        seen.add(str(made))
    assert len(seen) == len(trials), "two trials are the same"
