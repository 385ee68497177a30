"""Laws of answering from a text: answers stand in it, windows lose none, scores are the model's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForQuestionAnswering

from clozeworks import tasks
from clozeworks.core.bundle import Calibration, Card
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.tasks.qa import KEPT
from clozeworks.text.units import paired
from tiny import (
    DRAW,
    TOKENIZER,
    VOCABULARY,
    gap,
    groups_from,
    make_examples,
    make_model,
    make_task,
)

ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=80,
)


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT, st.sampled_from([20, 40]))
def test_every_token_of_the_text_is_in_some_window_and_the_question_in_all(question, text, length):
    found = paired(question, text, TOKENIZER, (length, 3, 8))
    (whole,) = paired(question, text, TOKENIZER, (10_000, 3, 8))
    assert {tuple(u) for s in found for u in s.units.tolist()} == set(
        map(tuple, whole.units.tolist())
    )
    head = len(whole) - len(whole.rows) - 1
    for sequence in found:
        assert len(sequence) <= length
        assert np.array_equal(sequence.ids[:head], whole.ids[:head])
        ours = sequence.ids[sequence.rows]
        assert len(ours) == len(sequence.units) and VOCABULARY.sep not in ours
        assert set(sequence.segments[:head]) == {0}
        assert set(sequence.segments[head:]) <= {1}
    full = TOKENIZER.encode(question, text)
    if sum(full.segments == 0) <= 8 + 2:
        assert np.array_equal(whole.ids, full.ids) and np.array_equal(whole.segments, full.segments)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_learned_read_as_an_answer_is_the_answer(seed):
    task = make_task("qa")
    for row in make_examples(task, 3, seed):
        (sequences,) = task.features([row], TOKENIZER)
        batch = task.collate([Group(0, sequences, task.target(row))], DRAW)
        ends = batch.targets["qa_bounds"]
        logits = torch.zeros(int(ends[-1]), 2)
        for place, (first, last) in zip(ends[:-1], batch.targets["qa"], strict=True):
            logits[place + first, 0] += 9
            logits[place + last, 1] += 9
        task.calibration = Calibration(margin=0.0)
        answer = task.join(row, task.decode({"logits": logits}, batch))
        held = [first > 0 for first, _ in batch.targets["qa"].tolist()]
        wanted = row.answers.text[0] if any(held) else None
        # with several windows, those without the answer say so: the best of all is taken
        if wanted is not None and not all(held):
            wanted = answer.candidates[0].text
            assert wanted == row.answers.text[0]
        assert (answer.candidates[0].text if any(held) else answer.answer) == wanted


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=3))
def test_answers_stand_in_the_text(pairs):
    task = make_task("qa")
    rows = [task.Example(context=context, question=question) for context, question in pairs]
    engine = Engine(make_model(task), task, TOKENIZER)
    for row, found in zip(rows, engine.predict(rows), strict=True):
        chances = [c.probability for c in found.candidates]
        assert sum(chances) <= 1 + 1e-9 and chances == sorted(chances, reverse=True)
        for candidate in found.candidates:
            assert candidate.text == row.context[candidate.start : candidate.end]
        if found.answer is not None:
            assert found.answer == row.context[found.start : found.end]


def test_the_loss_is_the_mean_of_both_ends_over_the_tokens_that_may_be_one():
    task = make_task("qa")
    rows = make_examples(task, 9)
    model = make_model(task)
    features = task.features(rows, TOKENIZER)
    groups = [
        Group(i, f, task.target(row)) for i, (f, row) in enumerate(zip(features, rows, strict=True))
    ]
    batch = task.collate(groups, DRAW)
    x = model.encoder.encode(model.encoder.embed(batch), batch).x
    logits = model.heads["qa"](x)
    total = 0.0
    for i, sequence in enumerate(s for group in features for s in group):
        own = logits[batch.firsts[i] + torch.tensor([0, *sequence.rows.tolist()])]
        gold = batch.targets["qa"][i]
        total += (F.cross_entropy(own[:, 0], gold[0]) + F.cross_entropy(own[:, 1], gold[1])) / 2
    assert gap(task.loss(model, batch, DRAW)["qa"], total) < 1e-5
    assert task.counts(batch)["qa"] == len(batch.firsts)


def test_an_answer_whose_place_is_unknown_teaches_nothing():
    task = make_task("qa")
    answers = {"text": ["lamp"], "answer_start": [-1]}
    row = task.Example(context="the order is late", question="what", answers=answers)
    (sequences,) = task.features([row], TOKENIZER)
    batch = task.collate([Group(0, sequences, task.target(row))], DRAW)
    model = make_model(task)
    assert task.counts(batch)["qa"] == 0 and task.loss(model, batch, DRAW)["qa"] == 0


def test_no_answer_may_be_given_before_dev_has_set_the_margin():
    """So that what is judged on the way counts unanswerable questions rightly."""
    rows = [row for seed in range(9) for row in make_examples(make_task("qa"), 2, seed)]
    some = next(row for row in rows if row.answers is not None and row.answers.text)
    nothing = some.answers.model_copy(update={"text": [], "answer_start": []})
    none = some.model_copy(update={"answers": nothing})
    sure = [{"no": 9.0, "spans": [(0.0, 0, 2)], "window": (0, 9)}]
    for learned, answered in (([some], True), ([some, none], False)):
        task = make_task("qa")
        task.look_over(groups_from(task, learned))
        assert (task.join(some, sure).answer is not None) == answered


def test_the_margin_is_the_one_that_pays_most_on_dev():
    task = make_task("qa")
    rows = make_examples(task, 40)
    model = make_model(task)
    answered = list(Engine(model, task, TOKENIZER).parts(rows))
    task.calibration = task.calibrate(*zip(*answered, strict=True))

    def f1():
        return task.metrics([task.join(*pair) for pair in answered], rows)["f1"]

    best, margins = f1(), [task.join(*pair).margin for pair in answered]
    for margin in [min(margins) - 1, *margins]:
        task.calibration = Calibration(margin=margin)
        assert f1() <= best + 1e-9
    some = [(example, parts) for example, parts in answered if example.answers.text]
    assert task.calibrate(*zip(*some, strict=True)).margin is None


def test_of_two_windows_that_show_it_the_one_with_more_around_it_says_what_it_is_worth():
    task = make_task("qa")
    row = task.Example(context="abcdefghijklmnopqrst", question="what")
    edge = {"no": 0.0, "spans": [(8.0, 10, 12), (7.0, 2, 4)], "window": (0, 12)}
    inside = {"no": 0.0, "spans": [(6.0, 10, 12), (5.0, 14, 16)], "window": (6, 20)}
    found = task.join(row, [edge, inside])
    ranked = [(c.start, c.end) for c in found.candidates]
    assert ranked == [(2, 4), (10, 12), (14, 16)]  # by 7, 6 and 5: the 8 at the edge is not heard
    unheard = {**inside, "spans": [(5.0, 14, 16)]}
    assert [c.start for c in task.join(row, [edge, unheard]).candidates] == [2, 14]
    alone = {**edge, "spans": edge["spans"][:1]}
    last = task.join(row, [alone, {**inside, "spans": []}])
    assert last.answer == "kl"  # rather than none


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_every_short_stretch_is_tried_and_listing_fewer_changes_nothing(seed, length, listed):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (12, 2)))
    task = make_task("qa")
    task.config = task.config.model_copy(update={"answer_length": length, "candidates": listed})
    units = np.stack([np.arange(11), np.arange(1, 12)], 1)
    spans = task._best(logits[1:, 0].numpy(), logits[1:, 1].numpy(), units)
    every = {
        (i, j + 1): float(logits[1 + i, 0] + logits[1 + j, 1])
        for i in range(11)
        for j in range(i, min(11, i + length))
    }
    wanted = sorted(every.values(), reverse=True)[:KEPT]
    assert [score for score, *_ in spans] == pytest.approx(wanted)
    assert all(every[start, end] == pytest.approx(score) for score, start, end in spans)
    part = {"no": -9.0, "spans": spans, "window": (0, 11)}
    row = task.Example(context="abcdefghijk", question="what")
    found = task.join(row, [part])
    assert found.answer is not None and len(found.candidates) == min(listed, len(spans))
    task.config = task.config.model_copy(update={"candidates": 20})
    assert task.join(row, [part]).confidence == found.confidence


def test_questions_about_one_text_fall_on_one_side_and_what_is_cut_of_them_is_counted():
    task = make_task("qa")
    first = task.Example(context="the order is late", question="what")
    assert task.key(first) == task.key(first.model_copy(update={"question": "where"}))
    long = first.model_copy(update={"question": "where is my parcel " * 3, "context": "lost " * 40})
    (sequences,) = task.features([long], TOKENIZER)
    assert len(sequences) > 1 and sum(s.truncated for s in sequences) == 12 - 8


@pytest.mark.parametrize(
    ("rules", "chinese", "told"),
    [("squad", 3, True), ("squad", 2, False), ("squad", 0, False), ("cmrc", 4, False)],
)
def test_rules_that_part_words_at_spaces_are_told_where_most_answers_are_chinese(
    rules, chinese, told
):
    task = tasks.create("qa", {"rules": rules}, VOCABULARY)
    there = {"text": ["上海"], "answer_start": [0]}, {"text": ["late"], "answer_start": [2]}
    rows = [
        task.Example(context="上海late", question="what", answers=there[i >= chinese])
        for i in range(4)
    ]
    said = [line for line in task.remarks(rows, [[]] * 4) if "--rules cmrc" in line]
    assert len(said) == told
    assert all(line.startswith(f"{chinese} of 4 answers on dev hold Chinese") for line in said)


def test_answers_that_are_too_long_to_be_given_are_counted():
    task = tasks.create("qa", {"answer_length": 2}, VOCABULARY)
    context = "refund the order"
    answers = {n: context[: len(" ".join(context.split()[:n]))] for n in (1, 2, 3)}
    rows = [
        task.Example(question="late", context=context, answers={"text": [t], "answer_start": [at]})
        for t, at in [*((text, 0) for text in answers.values()), ("elsewhere", -1)]
    ]
    task.look_over(groups_from(task, rows))
    assert task.too_long == 1
    assert "1 answer to learn from have over 2 tokens" in " ".join(task.remarks(rows, []))
    longer = tasks.create("qa", {"answer_length": 3}, VOCABULARY)
    longer.look_over(groups_from(longer, rows))
    assert longer.too_long == 0


def test_the_folder_opens_in_transformers_with_the_same_logits(tmp_path):
    task = make_task("qa")
    model = make_model(task)
    write_bundle(tmp_path, model, TOKENIZER, Card(task="qa", settings=task.settings))
    theirs, said = BertForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = task.collate(
        [Group(0, f, np.zeros((0, 2))) for f in task.features(make_examples(task, 1), TOKENIZER)],
        DRAW,
    )
    first = slice(0, int(batch.offsets[1]))
    ours = model.heads["qa"](model.encoder.encode(model.encoder.embed(batch), batch).x)[first]
    out = theirs.eval()(batch.input_ids[None, first], token_type_ids=batch.segments[None, first])
    assert gap(ours, torch.stack([out.start_logits[0], out.end_logits[0]], 1)) < 1e-5


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": ["lamp"], "answer_start": [0]}, r"'lamp' does not stand at character 0 .*'the '"),
        ({"text": ["the"], "answer_start": []}, "1 answers and 0 places"),
        ({"text": [""], "answer_start": [2]}, "an answer is empty"),
        ({"text": ["the"], "answer_start": [-5]}, "answer_start -5 is no place"),
    ],
)
def test_answers_that_are_not_where_they_are_said_to_be_are_refused(answers, message):
    task = make_task("qa")
    with pytest.raises(UserError, match=message):
        task.target(task.Example(context="the order", question="what", answers=answers))


def test_a_window_without_room_for_text_is_refused():
    with pytest.raises(UserError, match="question_length 64 and overlap 96 leave no room in max_"):
        tasks.create("qa", {"max_length": 128}, VOCABULARY)
