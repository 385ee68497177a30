"""A fresh encoder begins at the loss of guessing by frequency, not at that of guessing blindly."""

import math
import random

import numpy as np
import pytest

from clozeworks import api
from clozeworks.api.pretrain import begin_with_frequencies, frequencies, unigram_loss
from clozeworks.core.errors import UserError
from clozeworks.data.order import ShardStream
from clozeworks.data.shards import Shards
from clozeworks.model.encoder import Encoder, initialise
from clozeworks.tasks import create
from clozeworks.text.load import load_tokenizer
from clozeworks.train.loop import held_out_losses
from tiny import CONFIG

WORDS = ["lamp", "kettle", "parcel", "late", "bright", "灯", "快递", "很", "好", "the"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A small corpus in which a few words make up most of the text."""
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(0)
    weights = [2.0**-i for i in range(len(WORDS))]
    lines = [" ".join(chance.choices(WORDS, weights, k=30)) + ".\n\n" for _ in range(60)]
    (folder / "corpus.txt").write_text("".join(lines), "utf-8")
    files = [folder / "corpus.txt"]
    size = {"vocab_size": 55}
    api.tokenizer(api.TokenizerRecipe(files=files, out=folder / "tokenizer", settings=size))
    recipe = api.PrepareRecipe(files=files, tokenizer=folder / "tokenizer", out=folder / "shards")
    api.prepare(recipe)
    return Shards.open(folder / "shards")


def test_what_the_tokenizer_decides_no_recipe_may(shards, tmp_path):
    given = {"data": shards.folder, "out": tmp_path / "run", "encoder": {"vocab_size": 3}}
    with pytest.raises(UserError, match="vocab_size = 3: the tokenizer decides it"):
        api.pretrain(api.PretrainRecipe(**given))
    assert not (tmp_path / "run").exists()


def test_frequencies_are_a_distribution_in_which_nothing_is_impossible(shards):
    vocabulary = load_tokenizer(shards.tokenizer_folder).vocabulary
    documents = np.arange(len(shards.documents) - 1)
    chances = frequencies(shards, documents, vocabulary.size)
    assert chances.min() > 0
    assert math.isclose(chances.sum(), 1.0)
    everything = shards.take(0, shards.manifest.tokens)
    counts = np.bincount(everything, minlength=vocabulary.size)
    assert np.argmax(counts) == np.argmax(chances)
    entropy = -(counts / counts.sum() * np.log(chances)).sum()
    assert math.isclose(unigram_loss(shards, documents, chances), entropy)


def test_a_fresh_model_starts_near_the_loss_of_guessing_by_frequency(shards):
    vocabulary = load_tokenizer(shards.tokenizer_folder).vocabulary
    documents = np.arange(len(shards.documents) - 1)
    chances = frequencies(shards, documents, vocabulary.size)
    task = create("mlm", {}, vocabulary)
    stream = ShardStream(shards, documents, vocabulary, 64, pairs="none", tokens=512, seed=0)

    def first_loss(informed):
        config = CONFIG.model_copy(update={"vocab_size": vocabulary.size})
        model = task.build(Encoder(config))
        initialise(model, config.init_std, seed=0)
        if informed:
            begin_with_frequencies(model, chances)
        return held_out_losses(model, task, stream, 4096)["mlm"]

    guessed = unigram_loss(shards, documents, chances)
    assert abs(first_loss(informed=True) - guessed) < 0.1
    assert first_loss(informed=False) > guessed + 1
