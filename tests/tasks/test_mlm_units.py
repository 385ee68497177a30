"""Laws of hiding words, and of masks that change over epochs and runs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.core.records import Sequence
from clozeworks.data.batches import Group
from clozeworks.data.names import Names
from clozeworks.tasks.base import Draw
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from clozeworks.text.words import WordBounds
from tiny import DRAW, PIECES, VOCABULARY, make_groups

WITH_WORDS = ("word", "span", "ngram", "entity")
lengths_of = st.lists(st.integers(3, 60), min_size=1, max_size=8)


def make_mlm(unit="word", **settings):
    if unit == "entity":
        settings["names"] = "names.txt"
    task = tasks.create("mlm", {"unit": unit, **settings}, VOCABULARY)
    if unit == "entity":
        pairs = np.random.default_rng(0).choice(VOCABULARY.drawable, (400, 2))
        task.names = Names(list(pairs), VOCABULARY)
    return task


def with_words(groups, seed=0):
    """The same groups; some tokens, at random, go on the word before them."""
    random = np.random.default_rng(seed)
    out = []
    for group in groups:
        (s,) = group.sequences
        words = (random.random(len(s)) < 0.6) | np.isin(s.ids, list(VOCABULARY.special))
        out.append(Group(group.index, [Sequence(s.ids, s.segments, words=words)], group.target))
    return out


def originals(groups):
    return np.concatenate([s.ids for group in groups for s in group.sequences])


@pytest.mark.parametrize("unit", WITH_WORDS)
@given(lengths_of, st.integers(0, 20))
def test_labels_are_the_true_ids_and_nothing_else_is_touched(unit, lengths, seed):
    groups = with_words(make_groups(lengths, seed), seed)
    batch, before = make_mlm(unit).collate(groups, Draw(seed, 1)), originals(groups)
    rows, after = batch.targets["mlm_rows"].numpy(), batch.input_ids.numpy()
    assert batch.targets["mlm_labels"].tolist() == before[rows].tolist()
    special = list(VOCABULARY.special)
    assert not np.isin(before[rows], special).any()
    assert np.isin(after[rows], [*VOCABULARY.drawable, VOCABULARY.mask]).all()
    untouched = np.setdiff1d(np.arange(len(after)), rows)
    assert (after[untouched] == before[untouched]).all()


@pytest.mark.parametrize("unit", WITH_WORDS)
@given(st.permutations(range(7)), st.integers(1, 7), st.integers(0, 5), st.integers(0, 5))
def test_masks_do_not_depend_on_the_batch_or_its_order(unit, order, count, seed, epoch):
    groups, task, draw = with_words(make_groups()), make_mlm(unit), Draw(seed, epoch)
    company = [groups[i] for i in order[:count]]
    batch = task.collate(company, draw)
    pieces = batch.input_ids.split(batch.offsets.diff().tolist())
    for group, ids in zip(company, pieces, strict=True):
        assert torch.equal(ids, task.collate([group], draw).input_ids)


@pytest.mark.parametrize("unit", ["token", *WITH_WORDS])
def test_dynamic_masks_differ_between_epochs_and_static_ones_do_not(unit):
    groups = with_words(make_groups([64] * 4))
    for masks, same in (("dynamic", False), ("static", True)):
        task = make_mlm(unit, masks=masks)
        first, second = (task.collate(groups, Draw(0, epoch)) for epoch in (0, 5))
        assert torch.equal(first.input_ids, second.input_ids) == same
        assert not torch.equal(first.input_ids, task.collate(groups, Draw(1, 0)).input_ids)
    dynamic = make_mlm(unit).collate(groups, Draw(0, 0))
    static = make_mlm(unit, masks="static").collate(groups, Draw(0, 3))
    assert torch.equal(dynamic.input_ids, static.input_ids)


def fates(task, groups, draw=DRAW):
    """What became of each hidden token: masked, kept, or random."""
    batch, before = task.collate(groups, draw), originals(groups)
    rows = batch.targets["mlm_rows"].numpy()
    after = batch.input_ids.numpy()[rows]
    fate = np.where(after == VOCABULARY.mask, 0, np.where(after == before[rows], 1, 2))
    return rows, fate


@pytest.mark.parametrize("decided", ["token", "unit"])
def test_the_three_are_decided_for_each_token_or_each_word(decided):
    groups = with_words(make_groups([120] * 200))
    begins = np.concatenate([s.words for group in groups for s in group.sequences])
    rows, fate = fates(make_mlm(decided=decided), groups)
    together = (np.diff(rows) == 1) & ~begins[rows[1:]]
    alike = (fate[1:] == fate[:-1])[together].mean()
    # a random token may be the true one, so not quite all words are of one fate
    assert alike > 0.98 if decided == "unit" else alike == pytest.approx(0.66, abs=0.03)
    shares = np.bincount(fate, minlength=3) / len(fate)
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.015)


def test_rates_and_shares_go_along_their_course():
    groups = make_groups([120] * 60)
    settings = {"rate": "0.4 -> 0.1", "masked": "1 -> 0.5", "random": "0 -> 0.5"}
    task = make_mlm("token", **settings)
    ordinary = 60 * 120 - np.isin(originals(groups), list(VOCABULARY.special)).sum()
    for progress in (0.0, 0.25, 0.9):
        rows, fate = fates(task, groups, Draw(0, 0, progress))
        assert len(rows) / ordinary == pytest.approx(0.4 - 0.3 * progress, abs=0.005)
        assert (fate == 0).mean() == pytest.approx(1 - 0.5 * progress, abs=0.04)
        again, _ = fates(task, groups, Draw(0, 0, progress))
        assert rows.tolist() == again.tolist()
    fewer, _ = fates(task, groups, Draw(0, 0, 0.9))
    more, _ = fates(task, groups, Draw(0, 0, 0.1))
    assert set(fewer.tolist()) < set(more.tolist())  # the order of tokens stays, the quota moves


def test_held_out_masks_are_those_of_bert_whatever_training_does():
    groups = with_words(make_groups())
    plain = tasks.create("mlm", {}, VOCABULARY).collate(groups, DRAW)
    settings = {"rate": 0.5, "masked": 0.2, "random": 0.7, "masks": "static"}
    for task in (make_mlm("span", **settings), tasks.create("mlm", {"rate": 0.4}, VOCABULARY)):
        judged = task.judged
        assert not judged.needs_words
        assert torch.equal(judged.collate(groups, DRAW).input_ids, plain.input_ids)
    with pytest.raises(UserError, match="give fixed shares"):
        make_mlm("span", rate="0.5 -> 0.3", masks="static")
    joint = tasks.create("mlm+nsp", {"mlm": {"unit": "word", "rate": 0.5}}, VOCABULARY)
    assert joint.needs_words and not joint.judged.needs_words
    assert torch.equal(joint.judged.collate(groups, DRAW).input_ids, plain.input_ids)
    assert joint.settings["mlm"]["rate"] == 0.5
    assert not tasks.create("mlm+nsp", {}, VOCABULARY).needs_words


@pytest.mark.parametrize("unit", WITH_WORDS)
def test_sequences_that_do_not_tell_their_words_are_refused(unit):
    with pytest.raises(UserError, match=f"unit = '{unit}' needs to know where words begin"):
        make_mlm(unit).collate(make_groups(), DRAW)


def test_a_continuing_piece_after_sep_is_no_part_of_the_word_before():
    """As in Google's code, where the front of a second segment may be cut inside a word."""
    pieces = ["late", "##a", "##b", "##c", "is", "my", "the", "##d"]
    late, a, b, c, *rest = map(PIECES.index, pieces)
    ids = np.array(
        [VOCABULARY.cls, *rest[:3], late, VOCABULARY.sep, a, b, c, *rest, VOCABULARY.sep]
    )
    words = np.array([PIECES[i][:2] != "##" for i in ids])
    found = set()
    for index in range(300):
        group = Group(index, [Sequence(ids, np.zeros_like(ids), words=words)])
        rows = set(make_mlm().collate([group], DRAW).targets["mlm_rows"].tolist())
        assert rows & {6, 7, 8} in (set(), {6, 7, 8})
        found.add((4 in rows, 6 in rows))
    assert found >= {(True, False), (False, True), (False, False)}


def test_a_chinese_sentence_is_many_words_and_its_full_stop_another():
    """Hugging Face's collator takes 我爱北京。他们 for one word, for nothing lies between."""
    pytest.importorskip("jieba")
    text = "我爱北京。他们都来了，hello!"
    tokenizer = Tokenizer.of([*SPECIAL, *"我爱北京他们都来了。，!", "hel", "##lo", "x"])
    ((ids, begins),) = WordBounds(tokenizer, pick_segmenter("jieba")).tokenize([text])
    task = tasks.create("mlm", {"unit": "word"}, tokenizer.vocabulary)
    seen = set()
    for index in range(400):
        sequence = Sequence(
            np.array([2, *ids, 3]),
            np.zeros(len(ids) + 2, np.int64),
            words=np.array([1, *begins, 1]) > 0,
        )
        batch = task.collate([Group(index, [sequence])], DRAW)
        rows = batch.targets["mlm_rows"].tolist()
        seen.add("".join(tokenizer.pieces[sequence.ids[row]] for row in rows))
        assert len(rows) < 5
    assert {"我", "爱", "北京", "。", "他们", "，", "hel##lo", "!"} <= seen
    assert not {"北", "京", "他", "们", "hel", "##lo"} & seen
