"""Laws of replaced tokens: what is put where, what it is called, and who learns from it."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from clozeworks import tasks
from clozeworks.core.bundle import GENERATOR, Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.core.records import Sequence
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.tasks.base import Draw
from tiny import (
    DRAW,
    TOKENIZER,
    VOCABULARY,
    gap,
    make_config,
    make_examples,
    make_groups,
    make_model,
    make_task,
)

SPECIAL = torch.tensor(sorted(VOCABULARY.special))


def begun(groups=None, settings=None, draw=DRAW, change=lambda model: None):
    """Task, model, the batch that is marked, and the one that the discriminator reads."""
    task = tasks.create("rtd", settings or {}, VOCABULARY)
    model = make_model(task)
    change(model)
    batch = task.collate(make_groups() if groups is None else groups, draw)
    with torch.no_grad():
        return task, model, batch, task.begin(model, batch)[0]


def originals(groups):
    return torch.from_numpy(np.concatenate([s.ids for g in groups for s in g.sequences]))


def always(token, by=1e4):
    """A change that makes the generator want to put one token everywhere."""

    def change(model):
        with torch.no_grad():
            model.generator.heads["mlm"].bias[token] = by

    return change


# === What is put where ===


def test_a_hidden_token_is_replaced_and_every_ordinary_one_is_judged():
    groups = make_groups()
    before = originals(groups)
    task, _, masked, read = begun(groups)
    hidden, ordinary = masked.targets["mlm_rows"], ~torch.isin(before, SPECIAL)
    assert (masked.input_ids[hidden] == VOCABULARY.mask).all()
    assert len(hidden) == pytest.approx(0.15 * int(ordinary.sum()), abs=len(groups))
    assert read.targets["rtd_rows"].tolist() == torch.nonzero(ordinary).flatten().tolist()
    assert not torch.isin(read.input_ids[ordinary], SPECIAL).any()
    changed = read.input_ids != before
    assert torch.equal(read.targets["rtd_replaced"].bool(), changed[ordinary])
    assert 0 < int(changed.sum()) <= len(hidden)
    assert not changed[np.setdiff1d(np.arange(len(before)), hidden)].any()
    assert task.counts(masked) == {"mlm": len(hidden), "rtd": int(ordinary.sum())}


def test_a_token_that_is_put_back_counts_as_the_original():
    where, is_ = VOCABULARY.drawable[:2]
    ids = np.array([VOCABULARY.cls, *[where, is_] * 20, VOCABULARY.sep])
    groups = [Group(0, [Sequence(ids, np.zeros(len(ids), dtype=np.int64))])]
    _, _, masked, read = begun(groups, {"rate": 0.5}, change=always(int(where)))
    hidden = masked.targets["mlm_rows"]
    assert (read.input_ids[hidden] == where).all()
    truth = torch.from_numpy(ids)[hidden]
    assert {int(where), int(is_)} <= set(truth.tolist())
    assert torch.equal(read.targets["rtd_replaced"][hidden - 1].bool(), truth != where)


def test_no_special_token_is_put_anywhere():
    for token in (VOCABULARY.sep, VOCABULARY.mask, VOCABULARY.unknown):
        _, _, masked, read = begun(change=always(token, by=15.0))
        assert not torch.isin(read.input_ids[masked.targets["mlm_rows"]], SPECIAL).any()


def test_the_masking_is_that_of_mlm_with_its_settings():
    groups = make_groups()
    wanted = {"rate": 0.3, "masked": 0.5, "random": 0.2}
    masked = begun(groups, wanted)[2]
    alone = tasks.create("mlm", wanted, VOCABULARY).collate(groups, DRAW)
    assert torch.equal(masked.input_ids, alone.input_ids)
    for name, tensor in alone.targets.items():
        assert torch.equal(masked.targets[name], tensor)


def test_draws_depend_on_seed_epoch_and_place_and_not_on_company():
    groups = make_groups([40] * 6)

    def put(some, draw=DRAW):
        return begun(some, draw=draw)[3].input_ids.split(40)

    together = put(groups)
    for group, ids in zip(groups, together, strict=True):
        assert torch.equal(ids, put([group])[0])
    assert torch.equal(put(groups[::-1])[0], together[-1])
    same = [Group(i, groups[0].sequences) for i in range(2)]
    one, other = put(same)
    assert not torch.equal(one, other)
    for draw in (Draw(DRAW.seed, 1), Draw(DRAW.seed + 1, 0)):
        assert not torch.equal(put(groups, draw)[0], together[0])


def test_a_sequence_of_specials_alone_costs_nothing():
    bare = Sequence(np.array([VOCABULARY.cls, VOCABULARY.sep]), np.zeros(2, dtype=np.int64))
    task, model, batch, _ = begun([Group(0, [bare])])
    assert task.counts(batch) == {"mlm": 0, "rtd": 0}
    losses = task.loss(model, batch, DRAW)
    assert {name: float(loss.detach()) for name, loss in losses.items()} == {"mlm": 0, "rtd": 0}
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# === Who learns from what ===


@pytest.mark.parametrize("term", ["mlm", "rtd"])
def test_each_loss_teaches_its_own_model_and_the_shared_embeddings(term):
    task = make_task("rtd")
    model = make_model(task)
    task.loss(model, task.collate(make_groups(), DRAW), DRAW)[term].backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    generators = {n for n in moved if n.startswith("generator.")}
    shared = {n for n in moved if n.startswith("encoder.embeddings.")}
    assert {f"encoder.embeddings.{part}.weight" for part in ("tokens", "positions")} <= shared
    others = moved - generators - shared
    assert bool(generators) == (term == "mlm")
    assert bool(others) == (term == "rtd")


def test_weights_are_the_papers_unless_others_are_given():
    assert make_task("rtd").weights == {"mlm": 1, "rtd": 50}
    assert tasks.create("rtd", {}, VOCABULARY, weights={"rtd": 20}).weights["rtd"] == 20


# === Saved, opened, asked ===


@pytest.fixture
def written(tmp_path):
    """A model with its generator, and the folder they were written to."""
    task = make_task("rtd")
    model = make_model(task, make_config(task))
    card = Card(task="rtd", settings=task.settings, tokenizer=TOKENIZER.hash)
    return model, write_bundle(tmp_path / "bundle", model, TOKENIZER, card)


def opened_there(kind, folder):
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not told[trouble], trouble
    return model.eval()


def test_both_models_open_in_transformers_whole(written):
    model, folder = written
    batch = pack(make_groups([50]))
    given = {"input_ids": batch.input_ids[None], "token_type_ids": batch.segments[None]}
    theirs = opened_there(ElectraForPreTraining, folder)
    x = model.encoder.encode(model.encoder.embed(batch), batch).x
    assert gap(model.heads["rtd"](x)[None], theirs(**given).logits) < 1e-5
    generator, head = model.generator, model.generator.heads["mlm"]
    theirs = opened_there(ElectraForMaskedLM, folder / GENERATOR)
    x = generator.encoder.encode(generator.encoder.embed(batch), batch).x
    logits = head(x) @ generator.encoder.embeddings.tokens.weight.t() + head.bias
    assert gap(logits[None], theirs(**given).logits) < 1e-5


def test_both_models_come_back_to_be_trained_on(written):
    model, folder = written
    again, fresh = open_model(open_bundle(folder), make_task("rtd"), seed=9, to_train=True)
    assert fresh == []
    for (there, ours), (here, found) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert there == here and torch.equal(ours, found)
    tables = [m.encoder.embeddings.tokens for m in (again, again.generator)]
    assert tables[0] is tables[1]


def test_without_a_generator_or_with_another_size_it_begins_anew(written):
    model, folder = written
    larger = tasks.create("rtd", {"generator": 0.5}, VOCABULARY)
    again, fresh = open_model(open_bundle(folder), larger, to_train=True)
    assert fresh == ["generator"]
    assert torch.equal(
        again.encoder.embeddings.tokens.weight, model.encoder.embeddings.tokens.weight
    )
    shutil.rmtree(folder / GENERATOR)
    assert open_model(open_bundle(folder), make_task("rtd"), to_train=True).fresh == ["generator"]


def test_the_generator_is_a_model_that_fills_blanks(written):
    _, folder = written
    engine = Engine.open(folder / GENERATOR, torch.device("cpu"), torch.float32)
    (found,) = engine.predict([engine.task.Example(text="where is my [MASK]")])
    assert len(found.fillings[0]) == 5


def test_the_judge_needs_no_generator_and_is_fine_tuned_like_any_other(written):
    _, folder = written
    examples = make_examples(make_task("rtd"), 8)
    engine = Engine.open(folder, torch.device("cpu"), torch.float32)
    expected = list(engine.predict(examples))
    assert engine.model.generator is None
    shutil.rmtree(folder / GENERATOR)
    engine = Engine.open(folder, torch.device("cpu"), torch.float32)
    assert list(engine.predict(examples)) == expected
    tuned = open_model(open_bundle(folder), make_task("classify"), to_train=True)
    assert tuned.fresh == ["heads.classify", "pooler"]


def test_each_ordinary_token_is_answered_in_order():
    task = make_task("rtd")
    engine = Engine(make_model(task), task, TOKENIZER)
    texts = ["where is my parcel", "我要退款", "☃", "late ☃ lost"]
    found = list(engine.predict(task.Example(text=text) for text in texts))
    named = [[answer.token for answer in prediction.tokens] for prediction in found]
    assert named == [texts[0].split(), list(texts[1]), [], ["late", "lost"]]
    assert all(0 <= answer.probability <= 1 for p in found for answer in p.tokens)


def test_a_family_without_a_class_for_it_says_which_have_one(tmp_path):
    task = make_task("rtd")
    with pytest.raises(UserError, match=r"no bert model has heads for rtd .*electra, lstm"):
        write_bundle(tmp_path / "bundle", make_model(task), TOKENIZER, Card())
    values = {"family": "transformer", "embedding_size": None, "embedding_norm": False}
    model = make_model(task, make_config(task).model_copy(update=values))
    folder = write_bundle(tmp_path / "own", model, TOKENIZER, Card(task="rtd"))
    assert json.loads((folder / GENERATOR / "config.json").read_text())["hidden_size"] == 8
    assert open_model(open_bundle(folder), task, to_train=True).fresh == []
