"""The model that comes with the package: small, whole, opened by both, and what no name means."""

import re

import torch

from clozeworks import api
from clozeworks.api.model import load
from clozeworks.interop.hub import MODELS, SHIPPED, local, origin
from clozeworks.tasks.mlm import MlmExample
from clozeworks.text.load import load_tokenizer

FOLDER = MODELS / SHIPPED
MOST = 16_000_000
"""Bytes on disk."""
BLANKS = {
    "the united states of [MASK].": "america",
    "she won the gold [MASK] at the olympic games.": "medal",
    "the second world [MASK] ended in 1945.": "war",
    "the film was directed [MASK] john smith.": "by",
    "他毕业于北京大[MASK]。": "学",
    "中华人民共和[MASK]": "国",
    "香[MASK]特别行政区": "港",
}


def test_it_is_small_and_tells_of_itself():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST
    card = (FOLDER / "README.md").read_text("utf-8")
    assert "license: cc-by-sa-3.0" in card and "## Limits" in card
    written = "".join(path.read_text("utf-8") for path in files if path.suffix in (".json", ".md"))
    assert not re.search(r'"/\w', written), "a place on the machine that made it"


def test_its_name_means_it_unless_a_model_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local(SHIPPED) == FOLDER and origin(SHIPPED) == "clozeworks-mini"
    (tmp_path / SHIPPED).mkdir()
    assert local(SHIPPED) == FOLDER
    (tmp_path / SHIPPED / "config.json").write_text("{}")
    assert local(SHIPPED) == SHIPPED


def test_finetune_begins_with_it():
    recipe = api.FinetuneRecipe(task="classify", data="rows.csv", out="run")
    assert local(recipe.model) == FOLDER


def test_it_knows_both_languages():
    """Nearly every character of either, and what stands in a blank that its text fills."""
    tokenizer = load_tokenizer(FOLDER)
    for text in ("The kettle leaks, and nobody answers.", "水壶漏水，没有人回答。"):
        (ids,) = tokenizer.tokenize([text])
        assert tokenizer.vocabulary.unknown not in ids.tolist()
    engine = load(SHIPPED, "cpu", "fp32")
    answers = engine.predict([MlmExample(text=text) for text in BLANKS])
    for (text, wanted), answer in zip(BLANKS.items(), answers, strict=True):
        assert wanted in [filling.token for filling in answer.fillings[0]], text


def test_transformers_opens_it_and_fills_the_same_blanks():
    from transformers import AutoTokenizer, BertForPreTraining

    model = BertForPreTraining.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    engine = load(SHIPPED, "cpu", "fp32")
    for text, answer in zip(
        BLANKS, engine.predict([MlmExample(text=t) for t in BLANKS]), strict=True
    ):
        batch = tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).prediction_logits[0]
        blank = batch["input_ids"][0] == tokenizer.mask_token_id
        best = logits[blank][0].topk(5).indices
        ours = [filling.token for filling in answer.fillings[0]]
        assert tokenizer.convert_ids_to_tokens(best) == ours
