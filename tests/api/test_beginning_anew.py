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
from clozeworks.model.encoder import Encoder
from tiny import CONFIG, TOKENIZER, WORDS, make_model, make_task

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


@pytest.mark.parametrize(
    ("task", "config", "layers", "why"),
    [
        (
            "classify",
            {},
            99,
            "a pooler, and 3 layers that no other depth shares; use --reinit 0 to 3",
        ),
        ("tag", {}, 0, "no pooler, and 3 layers that no other depth shares; use --reinit 1 to 3"),
        ("classify", {"groups": 1}, 1, "a pooler, and 0 layers .*; use --reinit 0$"),
        ("tag", {"groups": 1}, 1, "no pooler, and 0 layers .*; leave it out, or use --scratch"),
    ],
)
def test_what_cannot_be_begun_anew_is_told(task, config, layers, why):
    task = make_task(task)
    model = task.build(Encoder(CONFIG.model_copy(update=config)))
    with pytest.raises(UserError, match=f"reinit {layers}: this model has {why}"):
        begin_anew(model, layers, seed=0)


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


def begun_anew(desk, model, monkeypatch, **given):
    """How many layers a fine-tuning of the model begins anew; None: not even the pooler."""
    asked = []
    monkeypatch.setattr(finetune, "begin_anew", lambda model, layers, seed: asked.append(layers))
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
    return asked[0] if asked else None


def test_the_idle_pooler_of_sentence_vectors_is_begun_anew(desk, monkeypatch):
    vectors = desk / "vectors" / "bundle"
    assert begun_anew(desk, vectors, monkeypatch) == 0
    assert begun_anew(desk, vectors, monkeypatch, reinit=1) == 1
    assert begun_anew(desk, vectors, monkeypatch, scratch=True) is None
    assert begun_anew(desk, desk / "bert", monkeypatch) is None
    assert begun_anew(desk, desk / "bert", monkeypatch, reinit=0) == 0
