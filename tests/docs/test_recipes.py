"""Every recipe that ships can be read, and names what the benchmark it is for needs."""

from pathlib import Path

import pytest

from clozeworks.core.config import read_toml, validated
from clozeworks.model.families import sized
from clozeworks.train.loop import TrainSettings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_read(path):
    values = read_toml(path)
    for name in ("lstm", "bert"):
        validated(TrainSettings, values[name], str(path))
    sized("lstm", values["size"], 100, embedding_size=values["vectors"]["vector_size"])
    assert {"corpus", "train", "test", "seeds"} <= values.keys()
