"""A small corpus and a few labelled rows, for tests of the verbs."""

import json
import random

import pytest

from clozeworks import api

WORDS = ["lamp", "kettle", "parcel", "late", "bright", "灯", "快递", "很", "好", "the"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Shards of a small corpus, and a few labelled rows."""
    folder = tmp_path_factory.mktemp("desk")
    chance = random.Random(0)
    texts = [[" ".join(chance.choices(WORDS, k=6)) + "." for _ in range(9)] for _ in range(60)]
    (folder / "corpus.txt").write_text("\n\n".join(map("\n".join, texts)), "utf-8")
    rows = [{"text": texts[i][0], "label": "ab"[i % 2]} for i in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    files, size = [folder / "corpus.txt"], {"vocab_size": 55}
    api.tokenizer(api.TokenizerRecipe(files=files, out=folder / "tokenizer", settings=size))
    recipe = {"tokenizer": folder / "tokenizer", "out": folder / "shards"}
    api.prepare(api.PrepareRecipe(files=files, **recipe))
    return folder
