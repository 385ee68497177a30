"""Laws of choosing among options: windows lose nothing, scores are the model's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import BertForMultipleChoice

from clozeworks import tasks
from clozeworks.core.bundle import Card
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from tiny import DRAW, TOKENIZER, VOCABULARY, gap, groups_from, make_examples, make_model, make_task

ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=60,
)


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, min_size=2, max_size=4))
@example("lost " * 40, "where is my " * 5, ["late " * 9 + "lost", "a"])
def test_every_option_has_windows_that_hold_all_of_the_text_and_of_the_option(text, asked, options):
    task = make_task("choice")
    row = task.Example(context=text, question=asked or None, options=options)
    (sequences,) = task.features([row], TOKENIZER)
    (context,) = TOKENIZER.tokenize([text])
    assert sorted({s.text for s in sequences}) == list(range(len(options)))
    for number, option in enumerate(options):
        beside = f"{asked} {option}" if asked else option
        (whole,) = TOKENIZER.tokenize([beside])
        own = [s for s in sequences if s.text == number]
        assert sum(s.truncated for s in own) == max(0, len(whole) - 16)
        seen: list[int] = []
        for s in own:
            assert len(s) <= task.config.max_length
            cut = int(np.flatnonzero(s.ids == VOCABULARY.sep)[-2])
            first, second = s.ids[1:cut], s.ids[cut + 1 : -1]
            assert second.tolist() == whole[-16:].tolist()
            assert set(s.segments[: cut + 1]) == {0} and set(s.segments[cut + 1 :]) == {1}
            seen = [*seen, *first[4 if seen else 0 :].tolist()]
        assert seen == context.tolist()
        if len(own) == 1 and len(whole) <= 16:
            assert np.array_equal(own[0].ids, TOKENIZER.encode(text, beside).ids)


@pytest.mark.parametrize("join", ["max", "mean"])
def test_the_loss_is_the_cross_entropy_of_scores_joined_as_in_predictions(join):
    settings = {"dropout": 0.0, "max_length": 32, "overlap": 4, "option_length": 16, "join": join}
    task = tasks.create("choice", settings, VOCABULARY)
    rows, model = make_examples(task, 9), make_model(task)
    batch = task.collate(groups_from(task, rows), DRAW)
    assert len(batch.firsts) > len(batch.targets["shares"])  # some have several windows
    total = 0.0
    for row, parts in Engine(model, task, TOKENIZER).parts(rows):
        scores = torch.tensor(task.scored(parts))
        total += F.cross_entropy(scores, torch.tensor(task.target(row)))
        windows = [[p["score"] for p in parts if p["alternative"] == i] for i in range(len(scores))]
        rule = max if join == "max" else np.mean
        assert scores.tolist() == pytest.approx([rule(own) for own in windows])
    assert gap(task.loss(model, batch, DRAW)["choice"].double(), total.double()) < 1e-5
    assert task.counts(batch) == {"choice": 9.0}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ANY_TEXT, st.lists(ANY_TEXT, min_size=2, max_size=5)), max_size=3))
def test_the_option_chosen_is_one_of_those_given_and_chances_sum_to_one(rows):
    task = make_task("choice")
    examples = [task.Example(context=context, options=options) for context, options in rows]
    for row, found in zip(
        examples, Engine(make_model(task), task, TOKENIZER).predict(examples), strict=True
    ):
        assert found.option == row.options[found.index]
        assert len(found.probabilities) == len(row.options)
        assert sum(found.probabilities) == pytest.approx(1)
        assert found.confidence == max(found.probabilities) == found.probabilities[found.index]


def test_the_order_of_options_says_nothing():
    task, model = make_task("choice"), make_model(make_task("choice"))
    engine = Engine(model, task, TOKENIZER)
    for row in make_examples(task, 10):
        turned = row.model_copy(update={"options": row.options[::-1]})
        one, other = engine.predict([row, turned])
        assert one.probabilities == pytest.approx(other.probabilities[::-1], abs=1e-5)


def test_the_folder_opens_in_transformers_with_the_same_logits(tmp_path):
    task = make_task("choice")
    model = make_model(task)
    write_bundle(tmp_path, model, TOKENIZER, Card(task="choice", settings=task.settings))
    theirs, said = BertForMultipleChoice.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    options = ["late", "在哪里", "refund order"]
    row = task.Example(context="the order is late", question="where is it", options=options)
    (sequences,) = task.features([row], TOKENIZER)
    batch = pack([Group(0, sequences)])
    ours = task.predict(model, batch)["scores"]
    length = max(map(len, sequences))
    ids, segments, seen = (torch.zeros(1, 3, length, dtype=torch.int64) for _ in range(3))
    for i, s in enumerate(sequences):
        ids[0, i, : len(s)] = torch.from_numpy(s.ids)
        segments[0, i, : len(s)] = torch.from_numpy(s.segments)
        seen[0, i, : len(s)] = 1
    out = theirs.eval()(ids, attention_mask=seen, token_type_ids=segments)
    assert gap(ours, out.logits[0]) < 1e-5


def test_the_temperature_makes_dev_probabilities_more_believable_and_keeps_the_choice():
    task = make_task("choice")
    rows, model = make_examples(task, 40), make_model(task)
    engine = Engine(model, task, TOKENIZER)
    before = list(engine.predict(rows))
    examples, parts = zip(*engine.parts(rows), strict=True)

    def loss():
        pairs = zip(engine.predict(rows), rows, strict=True)
        chances = [p.probabilities[task.target(row)] for p, row in pairs]
        return -np.log(chances).mean()

    plain = loss()
    task.calibration = task.calibrate(examples, parts)
    assert task.calibration.temperature != 1 and loss() < plain + 0.05
    assert [p.index for p in engine.predict(rows)] == [p.index for p in before]


@pytest.mark.parametrize(
    ("form", "answer", "place"),
    [("text", " late", 1), ("text", "1", 2), ("0", "1", 1), ("1", "1", 0), ("A", "b", 1)],
)
def test_an_answer_is_named_as_is_said(form, answer, place):
    task = tasks.create("choice", {"answer_form": form}, VOCABULARY)
    row = task.Example(context="x", options=["order", "late", "1"], answer=answer)
    assert task.target(row) == place


@pytest.mark.parametrize(
    ("form", "answer", "message"),
    [
        ("text", "refund", r"answer 'refund' is none of 4 \(choices: 'order', 'late', '1', 'late'"),
        ("text", "late", "answer 'late' is there 2 times, .*with 0 or 1 as answer_form"),
        ("text", "2", "answer '2' is none of 4 .*say so: answer_form can be 0, 1 or A"),
        ("0", "4", "answer '4' names none of 4, which are called 0 to 3; .*choices: text, 0, 1, A"),
        ("1", "0", "answer '0' names none of 4, which are called 1 to 4"),
        ("A", "E", "answer 'E' names none of 4, which are called A to D"),
        ("0", "late", "answer 'late' names none of 4"),
    ],
)
def test_an_answer_that_names_no_option_or_several_is_refused(form, answer, message):
    task = tasks.create("choice", {"answer_form": form}, VOCABULARY)
    row = task.Example(context="x", options=["order", "late", "1", "late"], answer=answer)
    with pytest.raises(UserError, match=message):
        task.check(row)


def test_one_option_is_no_choice_and_windows_need_room():
    with pytest.raises(ValueError, match="is no choice; give two options or more"):
        make_task("choice").Example(context="x", options=["late"])
    with pytest.raises(UserError, match="option_length 64 and overlap 64 leave no room in max_len"):
        tasks.create("choice", {"max_length": 128}, VOCABULARY)
