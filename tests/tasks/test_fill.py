"""Laws of filling in and of scoring texts: the model's own probabilities, every token once."""

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForMaskedLM, BertTokenizerFast, pipeline

from clozeworks import api
from clozeworks.core.bundle import Card
from clozeworks.core.errors import UserError
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.tasks import _fill, create
from clozeworks.text.surface import mark_of, put, written
from clozeworks.text.units import token_windows
from tiny import CONFIG, TOKENIZER, VOCABULARY, make_model, make_task

CPU = torch.device("cpu")
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=80,
)
LONG = " ".join(["my order is late please where is the parcel 快递"] * 25)
"""More tokens than the tiny model has positions."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mlm") / "bundle"
    task = make_task("mlm")
    card = Card(task="mlm", settings=task.settings, tokenizer=TOKENIZER.hash)
    return write_bundle(path, make_model(task), TOKENIZER, card)


def opened(folder, **settings):
    return Engine.open(folder, CPU, torch.float32, settings)


def answer(engine, text, candidates=None):
    (found,) = engine.predict([engine.task.Example(text=text, candidates=candidates)])
    return found


# === Beside transformers ===


@pytest.mark.parametrize("text", ["where is my [MASK]", "[MASK] 我要 [MASK] please, [MASK]!"])
def test_fillings_are_those_of_the_fill_mask_pipeline(folder, text):
    theirs = pipeline("fill-mask", str(folder), top_k=7)(text)
    theirs = theirs if isinstance(theirs[0], list) else [theirs]
    ours = answer(opened(folder, top=7), text).fillings
    assert [[f.token for f in hole] for hole in ours] == [
        [one["token_str"] for one in hole] for hole in theirs
    ]
    for hole, other in zip(ours, theirs, strict=True):
        assert [f.probability for f in hole] == pytest.approx([o["score"] for o in other], rel=1e-4)


def test_candidates_are_those_of_the_pipeline_however_they_are_written(folder):
    theirs = pipeline("fill-mask", str(folder))("where is my [MASK]", targets=["late", "退", "##s"])
    ours = answer(opened(folder), "where is my [MASK]", ["Late", "退", "##s", "late"])
    assert [f.token for f in ours.fillings[0]] == [one["token_str"] for one in theirs]
    assert [f.probability for f in ours.fillings[0]] == pytest.approx(
        [one["score"] for one in theirs], rel=1e-4
    )


def by_hand(folder, text, hidden):
    """The log-probabilities of transformers' model, `hidden(ids, i)` masked for token i."""
    model = BertForMaskedLM.from_pretrained(folder).eval()
    ids = BertTokenizerFast.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    logs = []
    for i in range(1, ids.shape[1] - 1):
        masked = ids.clone()
        masked[0, hidden(ids[0].tolist(), i)] = VOCABULARY.mask
        with torch.no_grad():
            logs.append(float(model(masked).logits[0, i].log_softmax(-1)[ids[0, i]]))
    return logs


def rest_of_word(ids, i):
    last = i
    while VOCABULARY.pieces[ids[last + 1]].startswith("##"):
        last += 1
    return list(range(i, last + 1))


@pytest.mark.parametrize(
    ("scoring", "hidden"), [("token", lambda ids, i: [i]), ("within_word", rest_of_word)]
)
def test_a_text_is_as_likely_as_its_tokens_hidden_one_by_one(folder, scoring, hidden):
    text = "refunds, ordered lately, 我要退款"
    wanted = by_hand(folder, text, hidden)
    found = answer(opened(folder, scoring=scoring), text)
    assert [t.log_probability for t in found.tokens] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert found.log_likelihood == pytest.approx(sum(wanted), rel=1e-5)
    assert found.perplexity == pytest.approx(exp(-sum(wanted) / len(wanted)), rel=1e-5)
    assert [text[t.start : t.end].lower() for t in found.tokens] == [
        t.token.removeprefix("##") for t in found.tokens
    ]


def test_hiding_the_rest_of_the_word_differs_where_words_have_pieces(folder):
    one, other = (answer(opened(folder, scoring=s), "parcels") for s in ("token", "within_word"))
    assert one.log_likelihood != other.log_likelihood
    assert one.tokens[-1] == other.tokens[-1]


# === Windows and memory ===


@given(ANY_TEXT, st.sampled_from([8, 12, 30]))
def test_each_token_is_asked_about_once_where_it_is_farthest_inside(text, length):
    whole = TOKENIZER.encode(text)
    (one,) = token_windows(text, whole, TOKENIZER)
    assert np.array_equal(one.ids, whole.ids)
    found = token_windows(text, whole, TOKENIZER, length)
    units = [tuple(u) for s in found for u in s.units.tolist()]
    assert units == [tuple(u) for u in one.units.tolist()]
    assert [int(i) for s in found for i in s.ids[s.rows]] == one.ids[one.rows].tolist()
    for sequence in found:
        assert len(sequence) <= length and len(sequence.words) == len(sequence)
        inner = length >= 12 and len(found) > 1 and len(sequence.rows) > 0
        if inner and sequence is not found[0]:
            assert sequence.rows[0] > 1
        if inner and sequence is not found[-1]:
            assert sequence.rows[-1] < len(sequence) - 2


def test_texts_over_the_positions_are_read_in_windows(folder):
    engine = opened(folder)
    found = answer(engine, LONG)
    assert len(found.tokens) == len(TOKENIZER.encode(LONG)) - 2 > CONFIG.max_positions
    assert all(LONG[t.start : t.end] == t.token for t in found.tokens)
    filled = answer(engine, f"[MASK] {LONG} [MASK] {LONG}")
    assert len(filled.fillings) == 2 and len(filled.text) > 2 * len(LONG)
    assert engine.truncated == 0


def test_how_many_copies_are_read_at_once_changes_nothing(folder, monkeypatch):
    text = "my orders are late, please! 退款在哪里"
    engine = opened(folder)
    wanted = answer(engine, text)
    monkeypatch.setattr(_fill, "COPY_TOKENS", 25)
    monkeypatch.setattr(_fill, "ROWS_AT_ONCE", 1)
    found = answer(engine, text)
    assert [t.log_probability for t in found.tokens] == pytest.approx(
        [t.log_probability for t in wanted.tokens], rel=1e-4, abs=1e-5
    )


def test_copies_in_memory_are_bounded(monkeypatch):
    sizes = []
    packed = _fill.pack

    def counted(groups):
        batch = packed(groups)
        sizes.append(batch.num_tokens)
        return batch

    monkeypatch.setattr(_fill, "pack", counted)
    monkeypatch.setattr(_fill, "COPY_TOKENS", 200)
    task = make_task("mlm")
    answer(Engine(make_model(task), task, TOKENIZER), LONG[:400])
    assert len(sizes) > 10 and max(sizes) <= 200


# === Text ===


@settings(deadline=None, max_examples=60)
@given(st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_tokens_stand_in_the_text_and_filling_changes_nothing_else(texts):
    task = make_task("mlm")
    engine = Engine(make_model(task), task, TOKENIZER)
    rows = [task.Example(text=text) for text in texts]
    for row, found in zip(rows, engine.predict(rows), strict=True):
        holes = row.text.count("[MASK]")
        assert len(found.fillings) == holes
        places = [(t.start, t.end) for t in found.tokens]
        assert places == sorted(places) and all(0 <= a < b <= len(row.text) for a, b in places)
        assert (found.perplexity is None) == (found.log_likelihood is None)
    for left, right in zip(texts, reversed(texts), strict=True):
        row = task.Example(text=f"{left} [MASK]{right}")
        (found,) = engine.predict([row])
        if "[MASK]" in left + right:
            continue
        kept = found.text.removesuffix(right)
        assert found.text.endswith(right)
        assert kept.startswith(left.rstrip())


def test_pieces_are_written_as_a_person_would():
    assert mark_of(TOKENIZER.pieces) == "##" and mark_of(["Ġa", "b"]) == "Ġ"
    assert put("play [MASK] on", [(5, 11)], ["##ing"], "##") == "playing on"
    assert put("北京[MASK]。", [(2, 8)], ["市"], "##") == "北京市。"
    assert put("it is <mask>.", [(5, 12)], ["Ġcafé".replace("é", "Ã©")], "Ġ") == "it is café."
    assert put("play <mask>", [(4, 11)], ["ing"], "Ġ") == "playing"
    assert written("##", "##") == (False, "##")


def test_a_piece_without_a_place_in_the_vocabulary_is_not_scored(folder):
    found = answer(opened(folder), "where 猫 is")
    assert [t.log_probability is None for t in found.tokens] == [False, True, False]
    assert answer(opened(folder), "猫").perplexity is None
    assert answer(opened(folder), "").tokens == []


# === What is refused, and the verbs ===


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("orders", r"candidate 'orders' is 2 pieces \(order ##s\).*write 2 of them"),
        ("猫", "candidate '猫' has no piece in the vocabulary; leave it out"),
    ],
)
def test_candidates_that_no_mask_can_be_are_refused(folder, word, message):
    with pytest.raises(UserError, match=message):
        answer(opened(folder), "where is my [MASK]", [word])


def test_settings_of_a_prediction_go_before_those_of_training(folder, tmp_path):
    joint = create("mlm+nsp", {}, VOCABULARY)
    card = Card(task="mlm+nsp", settings=joint.settings, tokenizer=TOKENIZER.hash)
    both = write_bundle(tmp_path / "both", make_model(joint), TOKENIZER, card)
    for place in (folder, both):
        assert len(answer(opened(place, top=2), "my [MASK]").fillings[0]) == 2
    with pytest.raises(UserError, match="unknown key 'tip'; did you mean 'top'"):
        opened(folder, tip=2)


def test_evaluate_reports_the_perplexity_of_all_tokens(folder, tmp_path):
    texts = ["where is my order", "我要退款 please", "lost"]
    data = tmp_path / "texts.txt"
    data.write_text("\n".join(texts), "utf-8")
    recipe = {"model": folder, "data": data, "precision": "fp32", "device": "cpu"}
    for language in ("en", "zh"):
        out = tmp_path / language
        judged = api.evaluate(api.EvaluateRecipe(**recipe, out=out, language=language))
    found = judged.evaluation
    each = [answer(opened(folder), text) for text in texts]
    total = sum(one.log_likelihood for one in each)
    count = sum(len(one.tokens) for one in each)
    assert (found.tokens, found.rows, found.unknown) == (count, 3, 0)
    assert found.perplexity.estimate == pytest.approx(exp(-total / count))
    assert "<svg" in judged.report.read_text("utf-8")
    data.write_text("where is [MASK]\n", "utf-8")
    with pytest.raises(UserError, match=r"row 1: a \[MASK\]: texts are judged whole"):
        api.evaluate(api.EvaluateRecipe(**recipe, out=tmp_path / "x"))
