"""Laws of finding entities: offsets that hold, windows that lose nothing, tags that are legal."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import BertConfig, BertForTokenClassification

from clozeworks import api, tasks
from clozeworks.core.bundle import OWN, Card
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.families.bert import Bert
from clozeworks.tasks._tags import Tagged
from clozeworks.text.tags import Span, labels_of, legal_moves
from clozeworks.text.units import joined, windowed, windows
from tiny import (
    CONFIG,
    DRAW,
    TOKENIZER,
    TYPES,
    VOCABULARY,
    gap,
    make_examples,
    make_model,
    make_task,
)

CPU = torch.device("cpu")
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=80,
)


def tagger(**more):
    labels = labels_of(TYPES, more.get("scheme", "bio"))
    return tasks.create("tag", {"dropout": 0.0, **more}, VOCABULARY, labels)


# === Windows and units ===


@given(st.integers(0, 400), st.integers(1, 60), st.data())
def test_windows_cover_every_piece_and_neighbours_share_what_they_should(pieces, room, data):
    overlap = data.draw(st.integers(0, room - 1))
    found = windows(pieces, room, overlap)
    assert found[0][0] == 0 and found[-1][1] == pieces
    assert all(stop - start <= room for start, stop in found)
    for (_, stop), (start, _) in pairwise(found):
        assert stop - start == overlap
    assert len(found) == 1 or all(stop - start == room for start, stop in found[:-1])


@given(st.lists(st.text(min_size=1, max_size=4) | st.sampled_from(["我", "在", "ok"]), max_size=12))
def test_tokens_stand_in_their_text_where_it_is_said(tokens):
    text, bounds = joined(tokens)
    assert [text[a:b] for a, b in bounds.tolist()] == tokens
    assert all(b <= a for (_, b), (a, _) in pairwise(bounds.tolist()))
    assert len(text) - sum(map(len, tokens)) <= max(0, len(tokens) - 1)


@settings(deadline=None)
@given(ANY_TEXT, st.sampled_from([16, 24, 128]))
@example("我们在北京，and London.", 16)
def test_every_word_is_in_some_window_and_stands_where_it_is_said(text, length):
    found = windowed(text, None, TOKENIZER, length, 4)
    whole = windowed(text, None, TOKENIZER, 10_000, 4)[0]
    assert {tuple(u) for s in found for u in s.units.tolist()} == {
        tuple(u) for u in whole.units.tolist()
    }
    for sequence in found:
        assert len(sequence) <= length
        assert sequence.ids[0] == VOCABULARY.cls and sequence.ids[-1] == VOCABULARY.sep
        assert len(sequence.rows) == len(sequence.units)
        for row, (start, end) in zip(sequence.rows, sequence.units, strict=True):
            assert sequence.spans[row][0] == start < end <= len(text)


# === What is learned is what is read ===


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["bio", "bioes"]))
def test_gold_tags_read_as_answers_are_the_entities(seed, scheme):
    task = tagger(scheme=scheme, max_length=16, overlap=6)
    for row in make_examples(task, 3, seed):
        (sequences,) = task.features([row], TOKENIZER)
        group = Group(0, sequences, task.target(row))
        batch = task.collate([group], DRAW)
        output = {"tags": batch.targets["tag"], "sure": torch.ones(len(batch.targets["tag"]))}
        answer = task.join(row, task.decode(output, batch))
        types = sorted(TYPES)
        wanted = [(a, b, types[k]) for a, b, k in task.target(row).tolist()]
        assert [(e.start, e.end, e.label) for e in answer.entities] == wanted
        assert (answer.tags is not None) == (row.tokens is not None)
        if row.tokens is not None:
            again = row.model_copy(update={"tags": answer.tags})
            assert np.array_equal(task.target(again), task.target(row))


@settings(deadline=None, max_examples=60)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_what_is_found_stands_in_the_text(texts):
    for name in ("tag", "tag:crf"):
        task = make_task(name)
        engine = Engine(make_model(task), task, TOKENIZER)
        for text, answer in zip(
            texts, engine.predict(task.Example(text=text) for text in texts), strict=True
        ):
            last = 0
            for entity in answer.entities:
                assert entity.text == text[entity.start : entity.end] != ""
                assert last <= entity.start and 0 <= entity.confidence <= 1
                last = entity.end


@pytest.mark.parametrize("crf", [False, True])
def test_illegal_tags_are_never_given(crf):
    task = tagger(scheme="bioes", crf=crf)
    model = make_model(task)
    legal = legal_moves(task.labels, "bioes")
    given_tags = set()
    for row in make_examples(task, 20):
        batch = pack([Group(0, s) for s in task.features([row], TOKENIZER)])
        with torch.inference_mode():
            tags = task.predict(model, batch)["tags"].tolist()
        edge = len(task.labels)
        for before, after in zip([edge, *tags], [*tags, edge], strict=True):
            assert legal[before, after]
        given_tags |= set(tags)
    assert len(given_tags) > 3


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_from_one_window_to_the_next_tags_stay_legal_where_they_can(scheme):
    told, draw, moved = tagger(scheme=scheme).told, np.random.default_rng(0), 0
    legal = legal_moves(told.labels, scheme)

    def fits(tagged):
        tags = [told.labels.index(one.tag) for one in tagged]
        return all(legal[move] for move in pairwise(tags))

    for _ in range(300):
        one, two = (said(told.labels, legal, first, draw) for first in (0, 8))
        merged = list(one)
        told._follow(merged, two)
        seams = [[*one[: 8 + k], *two[k:]] for k in range(7)]
        fine = [seam for seam in seams if fits(seam)]
        assert merged in (fine or seams)
        if seams[3] in fine:  # where both are equally far from their windows' ends
            assert merged == seams[3]
        moved += merged != seams[3]
    assert moved > 20


def said(labels, legal, first, draw):
    """What a window says of the 14 units from `first` on: any tags that may follow one another."""
    tags = [len(labels)]
    for i in range(14):
        may = legal[tags[-1], :-1] & (legal[:-1, -1] if i == 13 else True)
        tags.append(int(draw.choice(np.flatnonzero(may))))
    return [
        Tagged((first + i, first + i + 1), labels[tag], 0.5, min(i, 13 - i))
        for i, tag in enumerate(tags[1:])
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": ["a"], "tags": ["O"], "entities": []}, "both entities and tags"),
        ({"text": "a", "entities": [{"start": 0, "end": 1, "label": ""}]}, "label"),
    ],
)
def test_entities_said_twice_or_without_a_type_are_refused(fields, message):
    task = tagger()
    with pytest.raises(ValueError, match=message):
        task.check(task.Example.model_validate(fields))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nested": True, "enforce": False}, "enforce is about tags"),
        ({"longest": 4}, "longest is about nested entities, which --nested learns"),
    ],
)
def test_settings_of_the_other_way_to_tell_entities_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tasks.create("tag", changes, VOCABULARY)


# === Beside transformers ===


@pytest.mark.parametrize("name", ["tag", "tag:crf"])
def test_the_folder_opens_there_with_the_same_logits(name, tmp_path):
    task = make_task(name)
    model = make_model(task)
    card = Card(task="tag", settings=task.settings, labels=task.labels)
    write_bundle(tmp_path, model, TOKENIZER, card)
    theirs, said = BertForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(theirs.config.id2label.values()) == task.labels
    assert (tmp_path / OWN).exists() == (name == "tag:crf")
    batch = pack([Group(0, [TOKENIZER.encode("我 want a refund 快")])])
    ours = model.heads["tag"](model.encoder.encode(model.encoder.embed(batch), batch).x)
    assert gap(ours, theirs.eval()(batch.input_ids[None]).logits[0]) < 1e-5
    if name == "tag:crf":
        with safe_open(tmp_path / OWN, "pt") as file:
            parts = ("start", "transitions", "end")
            assert set(file.keys()) == {f"heads.tag.crf.{part}" for part in parts}
        again = Engine.open(tmp_path, CPU, torch.float32).model
        for one, other in zip(again.parameters(), model.parameters(), strict=True):
            assert torch.equal(one, other)


# === What is refused ===


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "a b", "entities": [{"start": 0, "end": 9, "label": "name"}]}, "within the 3"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "1 tags for 2 tokens; give a tag"),
        ({"text": "a b", "tags": ["O", "O"]}, "2 tags for 0 tokens"),
        ({"tokens": ["a"], "tags": ["B-river"]}, "type 'river' was never seen in training"),
        ({"text": "a", "tokens": ["a"], "tags": ["O"]}, "both text and tokens"),
        (
            {"text": "a b", "entities": [{"start": 0, "end": 1, "label": "name", "text": "b"}]},
            "entity 'b' does not stand from 0 to 1 of its text .'a' does",
        ),
        (
            {
                "text": "a b",
                "entities": [
                    {"start": 0, "end": 3, "label": "name"},
                    {"start": 2, "end": 3, "label": "place"},
                ],
            },
            "overlap, and a word has one tag",
        ),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(fields, message):
    task = make_task("tag")
    with pytest.raises(UserError, match=message):
        task.target(task.Example(**fields))


def test_types_without_entities_teach_nothing():
    task = tasks.create("tag", {}, VOCABULARY)
    with pytest.raises(UserError, match="no row has an entity"):
        task.labels_in([task.Example(text="a", entities=[])])
    rows = [task.Example(tokens=["a", "b"], tags=["B-x", "I-x"])]
    assert task.labels_in(rows) == ["O", "B-x", "I-x"]
    assert task.is_labelled(rows[0]) and not task.is_labelled(task.Example(text="a"))


def test_an_entity_inside_a_word_is_widened_and_counted():
    task = make_task("tag")
    row = task.Example(text="refund the order", entities=[{"start": 3, "end": 8, "label": "name"}])
    (sequences,) = task.features([row], TOKENIZER)
    batch = task.collate([Group(0, sequences, task.target(row))], DRAW)
    output = {"tags": batch.targets["tag"], "sure": torch.ones(len(batch.targets["tag"]))}
    (entity,) = task.join(row, task.decode(output, batch)).entities
    assert (entity.start, entity.end, entity.text) == (0, 10, "refund the")
    task.look_over([Group(0, sequences, task.target(row))])
    assert task.remarks([], [])[0].startswith("1 entities begin or end inside a word")
    assert Span(0, 10, "name") == (entity.start, entity.end, entity.label)


def test_of_two_entities_in_one_word_the_first_is_learned_and_the_other_counted():
    task = make_task("tag")
    entities = [{"start": 0, "end": 3, "label": "name"}, {"start": 3, "end": 6, "label": "place"}]
    row = task.Example(text="refund me", entities=entities)
    (sequences,) = task.features([row], TOKENIZER)
    group = Group(0, sequences, task.target(row))
    assert task.collate([group], DRAW).targets["tag"].tolist()[0] == task.labels.index("B-name")
    task.look_over([group])
    assert "1 entities share a word with another" in task.remarks([], [])[1]


def test_entities_that_hold_no_word_are_counted():
    task = make_task("tag")
    entities = [{"start": 0, "end": 6, "label": "name"}, {"start": 6, "end": 7, "label": "place"}]
    row = task.Example(text="refund me", entities=entities)
    (sequences,) = task.features([row], TOKENIZER)
    task.look_over([Group(0, sequences, task.target(row))])
    assert task.remarks([], [])[0] == (
        "1 entities hold no word, such as white space alone, and were left out"
    )


@pytest.mark.parametrize("text", ["cafe\u0301 lamp", "Nguye\u0302\u0303n", "la\u00admp in"])
def test_marks_that_normalisation_takes_away_belong_to_their_word(text):
    (sequence,) = windowed(text, None, TOKENIZER, 128, 2)
    assert [text[a:b] for a, b in sequence.units.tolist()] == text.split()


def test_windows_have_an_overlap_that_tears_nothing():
    with pytest.raises(UserError, match="overlap"):
        tagger(overlap=0)
    task = tagger(max_length=16, overlap=60)
    assert all(len(s) <= 16 for s in task.features(make_examples(task, 5), TOKENIZER)[0])


def test_the_dev_set_is_held_out_by_the_types_of_a_row():
    task = make_task("tag")
    tags = [["B-name", "O"], ["B-name", "B-place"], ["O", "O"]]
    rows = [task.Example(tokens=["a", "b"], tags=t) for t in tags]
    assert list(map(task.stratum, rows)) == ["name", "name place", ""]


def test_converting_and_extending_keep_the_crf(tmp_path):
    task = make_task("tag:crf")
    model = make_model(task)
    for parameter in model.heads["tag"].crf.parameters():
        parameter.data *= 20
    card = Card(task="tag", settings=task.settings, labels=task.labels, tokenizer=TOKENIZER.hash)
    write_bundle(tmp_path / "bundle", model, TOKENIZER, card)
    rows = make_examples(task, 10)
    wanted = list(Engine.open(tmp_path / "bundle", CPU, torch.float32).predict(rows))
    api.convert(api.ConvertRecipe(source=tmp_path / "bundle", out=tmp_path / "converted"))
    api.extend(
        api.ExtendRecipe(model=tmp_path / "bundle", positions=300, out=tmp_path / "extended")
    )
    for name in ("converted", "extended"):
        found = Engine.open(tmp_path / name, CPU, torch.float32).predict(rows)
        assert [a.entities for a in found] == [a.entities for a in wanted]


def test_a_folder_whose_tags_tell_no_entities_is_refused_when_it_is_opened(tmp_path):
    values = {**Bert().values(CONFIG), "id2label": {0: "NOUN", 1: "VERB"}}
    BertForTokenClassification(BertConfig(**values)).save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    with pytest.raises(UserError, match=r"config.json: id2label: 'NOUN' is no tag"):
        Engine.open(tmp_path, CPU, torch.float32)
