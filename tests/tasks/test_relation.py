"""Laws of relations: marks stand at the spans, direction is kept, windows hold both."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertModel

import tiny
from clozeworks import tasks
from clozeworks.core.bundle import OWN, Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import own_tensors, write_bundle
from clozeworks.tasks._entities import Entity
from clozeworks.tasks.base import Draw
from clozeworks.text.marked import Stretch, _kept, around, mark, marks_of
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from tiny import CONFIG, DRAW, LETTERS, RELATIONS, gap, make_examples

TOKENIZER = tiny.TOKENIZER.with_pieces([f"[unused{i}]" for i in range(1, 4)])
VOCABULARY = TOKENIZER.vocabulary
MARKS = marks_of(VOCABULARY)
NAMES = [VOCABULARY.pieces[i] for i in MARKS]
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    min_size=1,
    max_size=60,
)
SPAN = st.tuples(st.integers(0, 59), st.integers(0, 59))


def make_task():
    """The task over a vocabulary with pieces to mark with."""
    settings = {"dropout": 0.0, "max_length": 24, "no_relation": RELATIONS[0]}
    return tasks.create("relation", settings, VOCABULARY, RELATIONS)


def make_model(task):
    """The tiny model with their vectors."""
    return tiny.make_model(task, CONFIG.model_copy(update={"vocab_size": VOCABULARY.size}))


def spans_in(text, *pairs):
    found = []
    for a, b in pairs:
        start, end = sorted((a % len(text), b % len(text)))
        found.append(Stretch(start, end + 1))
    return found


@settings(deadline=None)
@given(ANY_TEXT, SPAN, SPAN)
def test_marks_stand_at_the_very_characters_of_spans_that_may_overlap(text, one, other):
    spans = spans_in(text, one, other)
    (found,) = mark([(text, spans)], TOKENIZER, MARKS)
    assert [int(found.ids[place]) for place in found.marks] == list(MARKS)
    assert sum(int(i) in MARKS for i in found.ids) == 4
    for number, span in enumerate(spans):
        opening, closing = found.marks[2 * number : 2 * number + 2].tolist()
        assert opening < closing
        # the tokens before a mark are those of the text cut there and at the other marks
        cuts = sorted({0, *(c for s in spans for c in (s.start, s.end)), len(text)})
        parts = TOKENIZER.tokenize([text[a:b] for a, b in pairwise(cuts)])
        pieces = dict(zip(cuts, parts, strict=False))
        before = [i for cut in cuts if cut < span.start for i in pieces[cut].tolist()]
        inside = [i for c in cuts if span.start <= c < span.end for i in pieces[c].tolist()]
        unmarked = [int(i) for i in found.ids[:opening] if int(i) not in MARKS]
        assert unmarked == before
        between = found.ids[opening + 1 : closing]
        assert [int(i) for i in between if int(i) not in MARKS] == inside


@pytest.mark.parametrize(
    ("one", "other", "order"),
    [
        ((0, 1), (1, 2), "A a B C b D"),  # side by side: one closes before the other opens
        ((1, 2), (0, 1), "C a D A b B"),
        ((0, 2), (0, 1), "A C a D b B"),  # nested: what opens first closes last
        ((1, 2), (0, 2), "C a A b B D"),
        ((0, 2), (0, 2), "A C a b D B"),
        ((0, 2), (1, 3), "A a C b B c D"),
    ],
)
def test_marks_at_one_character_stand_as_brackets_do(one, other, order):
    spans = [Stretch(*one), Stretch(*other)]
    (found,) = mark([("a好吗", spans)], TOKENIZER, MARKS)
    names = dict(zip(MARKS, "ABCD", strict=True)) | {
        VOCABULARY.pieces.index(piece): name
        for piece, name in (("a", "a"), ("好", "b"), ("吗", "c"))
    }
    wanted = order if "c" in order else f"{order} c"
    assert [names[int(i)] for i in found.ids] == wanted.split()


@settings(deadline=None)
@given(ANY_TEXT, SPAN, SPAN, st.integers(16, 40))
@example("a b c d e f g h i " * 3, (0, 2), (50, 52), 16)
def test_a_window_holds_all_marks_and_counts_what_it_leaves_out(text, one, other, length):
    (found,) = mark([(text, spans_in(text, one, other))], TOKENIZER, MARKS)
    sequence = around(found, TOKENIZER.form, length)
    assert len(sequence) == min(length, len(found.ids) + 2)
    assert sequence.truncated == len(found.ids) + 2 - len(sequence)
    inside = [int(i) for i in sequence.ids if int(i) in MARKS]
    assert inside == [int(i) for i in found.ids if int(i) in MARKS]
    assert sequence.ids[sequence.rows].tolist() == [MARKS[0], MARKS[2]]
    kept = sequence.ids[1:-1].tolist()
    if max(found.marks) - min(found.marks) < length - 2:  # then it is one window of the text
        whole = found.ids.tolist()
        assert any(whole[i : i + len(kept)] == kept for i in range(len(whole) - len(kept) + 1))
    else:  # else no token left out is nearer to a mark than one that is kept
        far = np.abs(np.arange(len(found.ids))[:, None] - found.marks[None]).min(1)
        places, at = [], 0
        for token in kept:  # the earliest places at which these tokens stand in order
            at = next(i for i in range(at, len(far)) if found.ids[i] == token) + 1
            places.append(at - 1)
        assert len(places) == length - 2
        assert set(found.marks.tolist()) <= set(_kept(found, length - 2).tolist())
        left_out = np.setdiff1d(np.arange(len(far)), _kept(found, length - 2))
        assert far[_kept(found, length - 2)].max() <= far[left_out].min()


def test_direction_is_kept_whichever_span_is_first():
    task = make_task()
    row = task.Example(
        tokens=["refund", "the", "parcel"],
        subject={"start": 0, "end": 1},
        object={"start": 2, "end": 3},
    )
    turned = row.model_copy(update={"subject": row.object, "object": row.subject})
    (one,), (other,) = task.features([row, turned], TOKENIZER)
    assert one.ids[one.rows].tolist() == other.ids[other.rows].tolist() == [MARKS[0], MARKS[2]]
    assert one.rows[0] < one.rows[1] and other.rows[0] > other.rows[1]
    found, back = Engine(make_model(task), task, TOKENIZER).predict([row, turned])
    assert (found.subject, found.object) == (back.object, back.subject) == ("refund", "parcel")
    assert found.scores != pytest.approx(back.scores, abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ANY_TEXT, SPAN, SPAN), min_size=1, max_size=3))
def test_subject_and_object_stand_in_the_text(rows):
    task = make_task()
    examples = []
    for text, *pairs in rows:
        one, other = ({"start": s.start, "end": s.end} for s in spans_in(text, *pairs))
        examples.append(task.Example(text=text, subject=one, object=other))
    engine = Engine(make_model(task), task, TOKENIZER)
    for row, found in zip(examples, engine.predict(examples), strict=True):
        assert found.subject == row.text[row.subject.start : row.subject.end]
        assert found.object == row.text[row.object.start : row.object.end]
        assert sum(found.scores.values()) == pytest.approx(1)
        assert found.label == max(found.scores, key=found.scores.get)


def test_the_logits_are_those_of_both_opening_marks_side_by_side(tmp_path):
    task = make_task()
    model = make_model(task)
    card = Card(task="relation", settings=task.settings, labels=task.labels)
    write_bundle(tmp_path, model, TOKENIZER.with_special(task.marks), card)
    theirs, said = BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    own = own_tensors(open_bundle(tmp_path))
    assert (tmp_path / OWN).exists() and set(own) == {
        "heads.relation.dense.weight",
        "heads.relation.dense.bias",
    }
    text, words = "where is my lost parcel please", AutoTokenizer.from_pretrained(tmp_path)
    a, b, c, d = NAMES
    marked = f"where is {c}my{d} lost {a}parcel{b} please"
    assert set(NAMES) <= set(words.all_special_tokens) | set(words.get_added_vocab())
    inputs = words(marked, return_tensors="pt")
    row = task.Example(text=text, subject={"start": 17, "end": 23}, object={"start": 9, "end": 11})
    (sequences,) = task.features([row], TOKENIZER)
    assert inputs["input_ids"][0].tolist() == sequences[0].ids.tolist()
    hidden = theirs.eval()(**inputs).last_hidden_state[0]
    rows = [inputs["input_ids"][0].tolist().index(i) for i in (MARKS[0], MARKS[2])]
    side_by_side = torch.cat([hidden[rows[0]], hidden[rows[1]]])
    logits = own["heads.relation.dense.weight"] @ side_by_side + own["heads.relation.dense.bias"]
    ours = task.predict(model, pack([Group(0, sequences)]))["logits"][0]
    assert gap(ours, logits) < 1e-5


def test_a_text_that_is_written_like_a_mark_has_none():
    task = make_task()
    row = task.Example(
        text=f"late {NAMES[0]} parcel",
        subject={"start": 0, "end": 4},
        object={"start": 14, "end": 20},
    )
    marking = TOKENIZER.with_special(task.marks)
    ((sequence,),) = task.features([row], marking)
    assert sum(int(i) in MARKS for i in sequence.ids) == 4
    assert marking.hash == TOKENIZER.hash and marking.vocabulary.special == VOCABULARY.special


def test_a_vocabulary_without_unused_pieces_marks_with_signs_or_is_refused():
    signs = Tokenizer.of([*SPECIAL, *LETTERS, "@", "#"])
    task = tasks.create("relation", {}, signs.vocabulary, RELATIONS)
    row = task.Example(text="a b", subject={"start": 0, "end": 1}, object={"start": 2, "end": 3})
    ((sequence,),) = task.features([row], signs)
    pieces = [signs.pieces[i] for i in sequence.ids]
    assert pieces == ["[CLS]", "@", "a", "@", "#", "b", "#", "[SEP]"] and list(task.marks) == []
    assert sequence.rows.tolist() == [1, 4]
    bare = Tokenizer.of([*SPECIAL, *LETTERS])
    with pytest.raises(UserError, match=r"neither four \[unused…\] pieces nor two"):
        tasks.create("relation", {}, bare.vocabulary)


def test_the_type_of_a_span_is_read_behind_its_opening_mark():
    task = make_task()
    ends = {"subject": {"start": 0, "end": 4, "type": "order"}, "object": {"start": 5, "end": 11}}
    row = task.Example(text="late parcel", **ends)
    ((sequence,),) = task.features([row], TOKENIZER)
    a, b, c, d = NAMES
    wanted = ["[CLS]", a, "order", "late", b, c, "parcel", d, "[SEP]"]
    assert [VOCABULARY.pieces[i] for i in sequence.ids] == wanted


def rows_of_one_text(task, pairs, tokens=("a", "b", "c", "d", "e")):
    return [
        task.Example(
            tokens=list(tokens),
            subject={"start": a, "end": a + 1},
            object={"start": b, "end": b + 1},
            label=label,
        )
        for a, b, label in pairs
    ]


def test_white_space_around_a_type_makes_no_other_type():
    span = {"start": 0, "end": 1}
    kind = make_task().Example
    labels = [kind(text="a", subject=span, object=span, label=x).label for x in ("Z ", " Z", " ")]
    assert labels == ["Z", "Z", None]
    assert Entity(start=0, end=1, label="A ").label == "A"
    with pytest.raises(ValueError, match="at least 1 character"):
        Entity(start=0, end=1, label=" ")


@settings(deadline=None)
@given(st.integers(0, 50), st.sampled_from([0.5, 1.0, 5.0]))
def test_pairs_that_no_row_relates_are_drawn_up_to_the_share(seed, share):
    made = {"negatives": share, "no_relation": "none"}
    task = tasks.create("relation", made, VOCABULARY, RELATIONS)
    rows = rows_of_one_text(task, [(0, 1, "owns(e1,e2)"), (3, 2, "owns(e2,e1)")])
    whole = task.enlarged(rows, Draw(seed, 0))
    more = whole[2:]
    assert whole[:2] == rows and whole == task.enlarged(rows, Draw(seed, 0))
    assert len(more) == min(int(share * 2), 4)  # {0,2} {0,3} {1,2} {1,3}
    pairs = {frozenset((row.subject.start, row.object.start)) for row in more}
    assert len(pairs) == len(more) and not pairs & {frozenset((0, 1)), frozenset((2, 3))}
    assert all(row.label == "none" for row in more)
    for row in more:
        task.check(row)


def test_without_pairs_to_draw_a_missing_no_relation_is_refused():
    made = {"negatives": 1.0, "no_relation": "none"}
    task = tasks.create("relation", made, VOCABULARY)
    rows = rows_of_one_text(task, [(0, 1, "owns(e1,e2)"), (1, 0, "owns(e2,e1)")])
    with pytest.raises(
        UserError, match="no row has the label 'none' of --no-relation, and no text"
    ):
        task.labels_in(task.enlarged(rows, DRAW))
    with pytest.raises(UserError, match=r"negatives = 0\.5 needs a label for them"):
        tasks.create("relation", {"negatives": 0.5}, VOCABULARY)
    with pytest.raises(UserError, match="there is a single label"):
        make_task().labels_in(rows[:1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "late", "subject": (2, 2)}, "subject from 2 to 2 does not lie within the 4 char"),
        ({"text": "late", "object": (3, 9)}, "object from 3 to 9 does not lie within the 4 char"),
        ({"tokens": ["a", "b"], "object": (1, 3)}, "object from 1 to 3 .* within the 2 tokens"),
        ({"text": "late", "tokens": ["late"]}, "both text and tokens"),
        ({"text": "late", "words": "x"}, "subject 'x' does not stand from 0 to 1 .*'l' does"),
    ],
)
def test_spans_that_do_not_stand_in_the_text_are_refused(row, message):
    task = make_task()
    (a, b), (c, d) = row.pop("subject", (0, 1)), row.pop("object", (1, 2))
    subject = {"start": a, "end": b, "text": row.pop("words", None)}
    example = task.Example(**row, subject=subject, object={"start": c, "end": d}, label="none")
    with pytest.raises(UserError, match=message):
        task.check(example)


def test_rows_of_one_text_fall_on_one_side():
    task = make_task()
    rows = rows_of_one_text(task, [(0, 1, "owns(e1,e2)"), (3, 2, "owns(e2,e1)")])
    assert task.key(rows[0]) == task.key(rows[1])
    assert len({task.key(row) for row in make_examples(task, 20)}) > 15
