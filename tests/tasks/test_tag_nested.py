"""Laws of entities inside one another: what is learned is what is read, in windows too."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForTokenClassification

from clozeworks import api, tasks
from clozeworks.core.bundle import OWN, Card
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from tiny import DRAW, TOKENIZER, VOCABULARY, gap, make_examples, make_model, make_task

CPU = torch.device("cpu")
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=80,
)


def told(task, row):
    """What decoding makes of the gold spans of a row."""
    (sequences,) = task.features([row], TOKENIZER)
    batch = task.collate([Group(0, sequences, task.target(row))], DRAW)
    gold = batch.targets["tag"]
    order = sorted(range(len(gold)), key=lambda i: gold[i].tolist())
    output = {"spans": gold[order].reshape(-1, 3), "sure": torch.ones(len(gold))}
    return task.join(row, task.decode(output, batch))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_gold_spans_read_as_answers_are_the_entities(seed):
    task = make_task("tag:nested")
    for row in make_examples(task, 3, seed):
        found = [(e.start, e.end, e.label) for e in told(task, row).entities]
        assert found == sorted((e.start, e.end, e.label) for e in row.entities)
        assert len(found) > 1 or len(row.text.split()) == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_what_is_found_stands_in_the_text(texts):
    task = make_task("tag:nested")
    engine = Engine(make_model(task), task, TOKENIZER)
    rows = [task.Example(text=text) for text in texts]
    for text, answer in zip(texts, engine.predict(rows), strict=True):
        places = [(e.start, e.end, e.label) for e in answer.entities]
        assert places == sorted(set(places))
        for entity in answer.entities:
            assert entity.text == text[entity.start : entity.end] != ""
            assert 0.5 <= entity.confidence <= 1


def test_a_window_that_sees_more_decides():
    task = make_task("tag:nested")
    row = task.Example(text="a b c d e f g h i j k l m n o p q r")
    features = task.features([row], TOKENIZER)
    batch = pack([Group(0, features[0])])
    ends, shared = [0], []
    for sequence in features[0]:
        ends.append(ends[-1] + len(sequence.units))
    windows = [list(map(tuple, s.units.tolist())) for s in features[0]]
    shared = [u for u in windows[0] if u in windows[1]]
    assert len(shared) == 6
    for which, unit in product((0, 1), shared):
        place = ends[which] + windows[which].index(unit)
        output = {"spans": torch.tensor([[place, 0, 0]]), "sure": torch.ones(1)}
        found = task.join(row, task.decode(output, batch)).entities
        rooms = []
        for k in (0, 1):
            at = windows[k].index(unit)
            rooms.append(min(at, len(windows[k]) - 1 - at))
        assert bool(found) == (
            rooms[which] > rooms[1 - which] or (rooms[0] == rooms[1] and not which)
        )


def test_entities_that_overlap_are_refused_with_the_remedy_unless_they_may():
    entities = [{"start": 0, "end": 3, "label": "name"}, {"start": 2, "end": 3, "label": "place"}]
    fields = {"text": "a b", "entities": entities}
    flat, nested = make_task("tag"), make_task("tag:nested")
    with pytest.raises(UserError, match=r"overlap, and a word has one tag; .* with --nested"):
        flat.target(flat.Example(**fields))
    assert nested.target(nested.Example(**fields)).tolist() == [[0, 3, 0], [2, 3, 1]]


@pytest.mark.parametrize("more", [{"crf": True}, {"scheme": "bioes"}])
def test_tags_and_spans_do_not_go_together(more):
    with pytest.raises(UserError, match=f"{next(iter(more))} is about tags"):
        tasks.create("tag", {"nested": True, **more}, VOCABULARY)


def test_entities_that_no_window_holds_are_counted():
    task = make_task("tag:nested")
    text = "a b c d e f g h i j"
    entities = [{"start": 0, "end": 11, "label": "name"}, {"start": 0, "end": 1, "label": "name"}]
    row = task.Example(text=text, entities=entities)
    (sequences,) = task.features([row], TOKENIZER)
    task.look_over([Group(0, sequences, task.target(row))])
    (said,) = task.remarks([], [])
    assert said.startswith("1 entities were left out: they have over 4 words (--longest)")
    inside = task.Example(text="refund", entities=[{"start": 0, "end": 3, "label": "name"}])
    task = make_task("tag:nested")
    task.look_over([Group(0, task.features([inside], TOKENIZER)[0], task.target(inside))])
    assert task.remarks([], [])[0].startswith("1 entities begin or end inside a word")


def test_tokens_with_tags_teach_spans_and_get_none_back():
    task = make_task("tag:nested")
    row = task.Example(tokens=["my", "lost", "order"], tags=["O", "B-name", "I-name"])
    answer = told(task, row)
    assert [(e.text, e.label) for e in answer.entities] == [("lost order", "name")]
    assert answer.tags is None
    assert task.labels_in([row]) == ["B-name", "E-name"]


def test_the_folder_opens_there_and_converting_keeps_what_is_ours(tmp_path):
    task = make_task("tag:nested")
    model = make_model(task)
    card = Card(task="tag", settings=task.settings, labels=task.labels, tokenizer=TOKENIZER.hash)
    write_bundle(tmp_path / "bundle", model, TOKENIZER, card)
    theirs, said = BertForTokenClassification.from_pretrained(
        tmp_path / "bundle", output_loading_info=True
    )
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(theirs.config.id2label.values()) == task.labels
    assert (tmp_path / "bundle" / OWN).exists()
    batch = pack([Group(0, [TOKENIZER.encode("我 want a refund 快")])])
    ours = model.heads["tag"](model.encoder.encode(model.encoder.embed(batch), batch).x)
    assert gap(ours, theirs.eval()(batch.input_ids[None]).logits[0]) < 1e-5
    rows = make_examples(task, 10)
    wanted = list(Engine(model, task, TOKENIZER).predict(rows))
    api.convert(api.ConvertRecipe(source=tmp_path / "bundle", out=tmp_path / "converted"))
    recipe = {"model": tmp_path / "bundle", "positions": 300, "out": tmp_path / "extended"}
    api.extend(api.ExtendRecipe(**recipe))
    for name in ("bundle", "converted", "extended"):
        assert list(Engine.open(tmp_path / name, CPU, torch.float32).predict(rows)) == wanted
    assert any(answer.entities for answer in wanted)


def test_of_an_entity_that_a_window_cuts_nothing_is_learned_there():
    task = make_task("tag:nested")
    words = "a b c d e f g h i j k l m n o p q r"
    entities = [{"start": 2 * 12, "end": 2 * 15 + 1, "label": "name"}]
    row = task.Example(text=words, entities=entities)
    (sequences,) = task.features([row], TOKENIZER)
    first, second = (list(map(tuple, s.units.tolist())) for s in sequences)
    assert (24, 25) in first and (30, 31) not in first and (24, 25) in second
    gold = task.collate([Group(0, sequences, task.target(row))], DRAW).targets["tag"]
    assert gold.tolist() == [[len(first) + second.index((24, 25)), 3, 0]]


def test_dev_decides_how_likely_an_entity_must_be():
    task = make_task("tag:nested")
    rows = make_examples(task, 12, 3)
    parts = []
    for i, row in enumerate(rows):
        (sequences,) = task.features([row], TOKENIZER)
        batch = task.collate([Group(0, sequences, task.target(row))], DRAW)
        gold = batch.targets["tag"]
        gold = gold[sorted(range(len(gold)), key=lambda i: gold[i].tolist())].reshape(-1, 3)
        sure = torch.full((len(gold),), 0.3 + i / 1000)
        wrong = (gold + torch.tensor([0, 0, 1])) % torch.tensor([10**9, 10**9, 2])
        both = torch.cat([gold, wrong])
        order = sorted(range(len(both)), key=lambda i: both[i].tolist())
        output = {"spans": both[order], "sure": torch.cat([sure, sure - 0.2])[order]}
        parts.append(task.decode(output, batch))
    assert not any(task.join(row, own).entities for row, own in zip(rows, parts, strict=True))
    task.calibration = task.calibrate(rows, parts)
    (threshold,) = task.calibration.thresholds
    assert 0.111 < threshold <= 0.3
    assert (
        task.metrics([task.join(*pair) for pair in zip(rows, parts, strict=True)], rows)["f1"] == 1
    )
    assert any("from a probability of" in said for said in task.remarks(rows, parts))
