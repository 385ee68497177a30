"""What is begun from chance is exactly what was asked for; the rest stays what it was."""

import importlib
import json

import pytest
import torch

from clozeworks import api
from clozeworks.api.model import begin_anew
from clozeworks.core.bundle import Card
from clozeworks.core.errors import UserError
from clozeworks.interop.huggingface import write_bundle
from tiny import TOKENIZER, WORDS, make_model, make_task

finetune = importlib.import_module("clozeworks.api.finetune")
ROWS = [{"text": f"{a} {b}", "label": a} for a in WORDS[:2] for b in WORDS[2:9]]


def drawn_anew(layers):
    """The names of the tensors that differ after `begin_anew`."""
    model = make_model(make_task("classify"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    begin_anew(model, layers, seed=7)
    return {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}, before


@pytest.mark.parametrize("layers", [0, 1])
def test_the_pooler_and_the_last_layers_are_drawn_anew(layers):
    changed, before = drawn_anew(layers)
    depth = len(make_model(make_task("classify")).encoder.layers)
    wanted = ["pooler."] + [f"encoder.layers.{depth - 1 - i}." for i in range(layers)]
    assert changed and all(name.startswith(tuple(wanted)) for name in changed)
    matrices = {n for n in before if n.startswith(tuple(wanted)) and before[n].dim() > 1}
    assert matrices <= changed


def test_more_layers_than_there_are_is_told():
    with pytest.raises(UserError, match=r"--reinit \d+ or less"):
        begin_anew(make_model(make_task("classify")), 99, seed=0)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    for name, task in (("bert", "mlm+nsp"), ("sentences", "embed")):
        write_bundle(folder / name, make_model(make_task(task)), TOKENIZER, Card(task=task))
    (folder / "rows-of-vectors.jsonl").write_text(
        "\n".join(json.dumps({"text": row["text"], "positive": row["text"]}) for row in ROWS)
    )
    api.finetune(
        api.FinetuneRecipe(
            task="embed",
            data=folder / "rows-of-vectors.jsonl",
            model=folder / "bert",
            out=folder / "vectors",
            settings={"max_length": 16},
            train={"duration": "1 steps"},
            device="cpu",
        )
    )
    return folder


def told(desk, model, monkeypatch, **given):
    said = []
    monkeypatch.setattr(finetune, "say", said.append)
    api.finetune(
        api.FinetuneRecipe(
            task="classify",
            data=desk / "rows.jsonl",
            model=model,
            out=desk / "runs" / f"{model.name}-{len(list(desk.glob('runs/*')))}",
            train={"duration": "1 steps"},
            device="cpu",
            **given,
        )
    )
    return "\n".join(said)


def test_the_idle_pooler_of_sentence_vectors_is_begun_anew(desk, monkeypatch):
    remark = "took no part in its sentence vectors"
    assert remark in told(desk, desk / "vectors" / "bundle", monkeypatch)
    assert remark not in told(desk, desk / "vectors" / "bundle", monkeypatch, reinit=1)
    assert remark not in told(desk, desk / "bert", monkeypatch)
