"""Laws of putting candidates in order: whatever order they come in, drawn ones by the draw."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from clozeworks import tasks
from clozeworks.core.bundle import Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.tasks.base import Draw
from tiny import DRAW, TOKENIZER, VOCABULARY, gap, groups_from, make_examples, make_model, make_task

TEXTS = ["late parcel", "我要退款", "where is my order", "lost", "a", "the refund is late"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8), st.randoms())
def test_candidates_are_sorted_by_score_stably_and_none_is_lost(candidates, random):
    task, model = make_task("rerank"), make_model(make_task("rerank"))
    engine = Engine(model, task, TOKENIZER)
    row = task.Example(query="where is my parcel", candidates=candidates)
    (found,) = engine.predict([row])
    assert sorted(r.index for r in found.ranked) == list(range(len(candidates)))
    for r in found.ranked:
        assert r.text == candidates[r.index]
    keys = [(-r.score, r.index) for r in found.ranked]
    assert keys == sorted(keys)
    turned = list(candidates)
    random.shuffle(turned)
    (other,) = engine.predict([row.model_copy(update={"candidates": turned})])
    assert [r.text for r in other.ranked] == [r.text for r in found.ranked]


def test_the_listwise_loss_is_the_cross_entropy_over_the_candidates_of_a_query():
    task = make_task("rerank")
    rows, model = make_examples(task, 9), make_model(task)
    rows.append(rows[0].model_copy(update={"relevant": []}))
    batch = task.collate(groups_from(task, rows), DRAW)
    total = 0.0
    for row, parts in Engine(model, task, TOKENIZER).parts(rows[:9]):
        shares = torch.tensor(task.target(row))
        total += F.cross_entropy(torch.tensor(task.scored(parts)), shares / shares.sum())
    assert gap(task.loss(model, batch, DRAW)["rerank"].double(), total) < 1e-5
    assert task.counts(batch) == {"rerank": 9.0}  # a query with nothing relevant teaches nothing


def test_the_pointwise_loss_is_that_of_each_candidate_by_itself():
    made = {"loss": "pointwise", "relevant_form": "grades", "dropout": 0.0}
    task = tasks.create("rerank", made, VOCABULARY)
    rows = [
        task.Example(query="lost", candidates=TEXTS[:3], relevant=["0", "3", "1.5"]),
        task.Example(query="late", candidates=TEXTS, relevant=["0"] * 6),
    ]
    model = make_model(task)
    batch = task.collate(groups_from(task, rows), DRAW)
    wanted = torch.tensor([0, 1, 0.5] + [0] * 6, dtype=torch.float64)
    found = [task.scored(parts) for _, parts in Engine(model, task, TOKENIZER).parts(rows)]
    scores = torch.from_numpy(np.concatenate(found))
    total = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum")
    assert gap(task.loss(model, batch, DRAW)["rerank"].double(), total) < 1e-5
    assert task.counts(batch) == {"rerank": 9.0}


def test_what_is_cut_of_a_query_is_counted_once():
    task = make_task("rerank")
    row = task.Example(query="where is my parcel " * 5, candidates=TEXTS, relevant=TEXTS[:1])
    (sequences,) = task.features([row], TOKENIZER)
    assert sum(s.truncated for s in sequences) == 20 - 16


@given(st.integers(0, 99), st.integers(2, 6), st.sets(st.integers(0, 9), min_size=1), st.integers())
@settings(deadline=None)
def test_drawn_candidates_are_as_many_as_asked_and_hold_something_right_and_wrong(
    seed, most, right, index
):
    task = tasks.create("rerank", {"drawn": most}, VOCABULARY)
    candidates = [f"late {letter}" for letter in "abcdefghij"]
    row = task.Example(query="late", candidates=candidates, relevant=[candidates[i] for i in right])
    (sequences,) = task.features([row], TOKENIZER)
    group = Group(abs(index) % 1000, sequences, task.target(row))
    batch, again = (task.collate([group], Draw(seed, 1)) for _ in range(2))
    assert torch.equal(batch.input_ids, again.input_ids)
    shares = batch.targets["shares"]
    assert len(shares) == most == len(batch.firsts)
    assert (shares > 0).any() and ((shares == 0).any() or len(right) == 10)
    assert int((shares > 0).sum()) == min(len(right), max(most - 1, most - (10 - len(right))))
    owners = batch.targets["owners"].tolist()
    for sequence, owner, share in zip(batch.sequences, owners, shares.tolist(), strict=True):
        whole = next(i for i, s in enumerate(sequences) if np.array_equal(s.ids, sequence.ids))
        assert owner == sequence.text and (whole in right) == (share > 0)
    others = [task.collate([group], Draw(seed, epoch)).input_ids.tolist() for epoch in range(12)]
    assert most == 10 or len({tuple(ids) for ids in others}) > 1


def test_a_long_candidate_is_read_to_its_end_in_windows():
    task, model = make_task("rerank"), make_model(make_task("rerank"))
    long = " ".join(["order"] * 60 + ["refund"])
    row = task.Example(query="refund", candidates=[long, "late"])
    (sequences,) = task.features([row], TOKENIZER)
    own = [s for s in sequences if s.text == 0]
    assert len(own) > 1 and not any(s.truncated for s in sequences)
    assert TOKENIZER.vocabulary.pieces.index("refund") in own[-1].ids[3:]
    ((_, parts),) = Engine(model, task, TOKENIZER).parts([row])
    assert task.scored(parts)[0] == max(p["score"] for p in parts if p["alternative"] == 0)


def written(tmp_path, model, task):
    write_bundle(tmp_path, model, TOKENIZER, Card(task="rerank", settings=task.settings))
    return tmp_path


def test_the_folder_opens_as_a_classifier_of_one_logit_and_is_learned_on_from(tmp_path):
    task = make_task("rerank")
    model = make_model(task)
    folder = written(tmp_path, model, task)
    theirs, said = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.num_labels == 1 and type(theirs).__name__.startswith("BertForSequence")
    row = task.Example(query="late", candidates=["where is my order"])
    (ours,) = Engine(model, task, TOKENIZER).predict([row])
    whole = TOKENIZER.encode("late", "where is my order")
    ids, segments = torch.from_numpy(whole.ids)[None], torch.from_numpy(whole.segments)[None]
    out = theirs.eval()(ids, token_type_ids=segments).logits[0, 0].detach()
    assert ours.ranked[0].score == pytest.approx(float(out), rel=1e-4)
    (folder / "clozeworks.json").unlink()  # as a cross-encoder from elsewhere
    assert open_model(open_bundle(folder), make_task("rerank")).fresh == []


def test_the_folder_is_a_cross_encoder_of_sentence_transformers(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    task = make_task("rerank")
    model = make_model(task)
    folder = written(tmp_path, model, task)
    pairs = [("late", text) for text in TEXTS]
    theirs = library.CrossEncoder(str(folder), device="cpu")
    found = theirs.predict(pairs, activation_fn=torch.nn.Identity())
    row = task.Example(query="late", candidates=TEXTS)
    (ours,) = Engine(model, task, TOKENIZER).predict([row])
    for r in ours.ranked:
        assert r.score == pytest.approx(float(found[r.index]), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("form", "relevant", "grades"),
    [
        ("text", "lost", [0, 0, 0, 1, 0, 0]),
        ("text", ["lost", "a"], [0, 0, 0, 1, 1, 0]),
        ("text", [], [0] * 6),
        ("0", ["0", "5"], [1, 0, 0, 0, 0, 1]),
        ("1", ["1"], [1, 0, 0, 0, 0, 0]),
        ("grades", ["0", "2", "0.5", "0", "0", "1"], [0, 2, 0.5, 0, 0, 1]),
    ],
)
def test_what_is_relevant_is_named_as_is_said(form, relevant, grades):
    task = tasks.create("rerank", {"relevant_form": form}, VOCABULARY)
    assert (
        task.target(task.Example(query="q", candidates=TEXTS, relevant=relevant)).tolist() == grades
    )


@pytest.mark.parametrize(
    ("form", "relevant", "message"),
    [
        ("text", ["order"], "relevant: 'order' is none of 6"),
        ("0", ["6"], "relevant: '6' names none of 6, which are called 0 to 5"),
        ("0", ["0", "1", "0"], "relevant: '0' is there twice; .* choose grades as relevant_form"),
        ("grades", ["1", "0"], "relevant: 2 grades for 6 candidates"),
        ("grades", ["1", "x", "0", "0", "0", "0"], "relevant: grade 'x' is no number"),
        ("grades", ["-1", "0", "0", "0", "0", "0"], "must be finite and not below 0"),
        ("grades", ["nan", "0", "0", "0", "0", "0"], "must be finite"),
    ],
)
def test_what_names_no_candidate_is_refused(form, relevant, message):
    task = tasks.create("rerank", {"relevant_form": form}, VOCABULARY)
    with pytest.raises(UserError, match=message):
        task.check(task.Example(query="q", candidates=TEXTS, relevant=relevant))


def test_rows_from_which_nothing_can_be_learned_are_refused():
    task = make_task("rerank")
    row = task.Example(query="q", candidates=TEXTS, relevant=[])
    with pytest.raises(UserError, match="no candidate of all rows is relevant"):
        task.labels_in([row])
    with pytest.raises(UserError, match="every candidate of all rows is relevant"):
        task.labels_in([row.model_copy(update={"relevant": TEXTS})])
    with pytest.raises(ValueError, match="nothing to put in order"):
        task.Example(query="q", candidates=[])
