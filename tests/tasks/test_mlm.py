"""Laws of masking: the right share, the right way, never a special token, a function of the key."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.core.records import Sequence, Vocabulary
from clozeworks.data.batches import Group
from clozeworks.inference.engine import Engine
from clozeworks.tasks.base import Draw
from tiny import DRAW, TOKENIZER, VOCABULARY, make_groups, make_model, make_task

WIDE = Vocabulary.of(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(5))]
    + [f"w{i}" for i in range(2000)]
)
lengths_of = st.lists(st.integers(3, 60), min_size=1, max_size=8)


def wide_groups(count, length=64, seed=0):
    """Full-length groups over a vocabulary where a random token is hardly ever the true one."""
    random = np.random.default_rng(seed)
    groups = []
    for index in range(count):
        ids = random.choice(WIDE.drawable, length)
        ids[[0, length // 2, -1]] = WIDE.cls, WIDE.sep, WIDE.sep
        ids[3], ids[5] = WIDE.unknown, 7
        groups.append(Group(index, [Sequence(ids, np.zeros(length, dtype=np.int64))]))
    return groups


def originals(groups):
    return np.concatenate([s.ids for group in groups for s in group.sequences])


def masked(groups, draw=DRAW, settings=None, vocabulary=VOCABULARY):
    return tasks.create("mlm", settings or {}, vocabulary).collate(groups, draw)


def test_shares_are_those_of_the_paper():
    groups = wide_groups(2000)
    batch, before = masked(groups, vocabulary=WIDE), originals(groups)
    rows, after = batch.targets["mlm_rows"].numpy(), batch.input_ids.numpy()
    ordinary = 2000 * (64 - 5)
    assert len(rows) / ordinary == pytest.approx(0.15, abs=0.001)
    assert set(np.bincount(rows // 64).tolist()) == {8, 9}  # 0.15 · 59 = 8.85
    hidden = after[rows] == WIDE.mask
    kept = after[rows] == before[rows]
    drawn = ~hidden & ~kept
    for share, expected in ((hidden, 0.8), (kept, 0.1), (drawn, 0.1)):
        sigma = np.sqrt(expected * (1 - expected) / len(rows))
        assert share.mean() == pytest.approx(expected, abs=4 * sigma)
    assert set(after[rows][drawn]) <= set(WIDE.drawable)
    assert len(set(after[rows][drawn])) > 1000
    untouched = np.setdiff1d(np.arange(len(after)), rows)
    assert (after[untouched] == before[untouched]).all()
    places = np.bincount(rows % 64, minlength=64)
    assert places[[0, 3, 5, 32, 63]].sum() == 0
    ordinary_places = places[places > 0]
    assert np.abs(ordinary_places / 2000 - 0.15).max() < 5 * np.sqrt(0.15 / 2000)


@given(lengths_of, st.integers(0, 20))
def test_specials_are_never_masked_predicted_or_drawn(lengths, seed):
    groups = make_groups(lengths, seed)
    batch, before = masked(groups, Draw(seed, 0)), originals(groups)
    rows = batch.targets["mlm_rows"].numpy()
    special = list(VOCABULARY.special)
    assert not np.isin(before[rows], special).any()
    after = batch.input_ids.numpy()
    assert np.isin(after[rows], [*VOCABULARY.drawable, VOCABULARY.mask]).all()
    assert (after[np.isin(before, special)] == before[np.isin(before, special)]).all()


@given(lengths_of, st.floats(0.01, 0.9), st.integers(0, 20))
def test_every_sequence_has_its_share_and_labels_are_the_true_ids(lengths, rate, seed):
    groups = make_groups(lengths, seed)
    batch, before = masked(groups, Draw(seed, 0), {"rate": rate}), originals(groups)
    rows = batch.targets["mlm_rows"]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert batch.targets["mlm_labels"].tolist() == before[rows.numpy()].tolist()
    for start, end in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        ids = before[start:end]
        ordinary = int((~np.isin(ids, list(VOCABULARY.special))).sum())
        chosen = int(((rows >= start) & (rows < end)).sum())
        assert min(1, ordinary) <= chosen <= ordinary
        assert int(rate * ordinary) <= chosen <= max(1, int(rate * ordinary) + 1)
    assert make_task("mlm").counts(masked(groups))["mlm"] >= 1


@given(st.permutations(range(7)), st.integers(1, 7), st.integers(0, 5), st.integers(0, 5))
def test_masks_do_not_depend_on_the_batch_or_its_order(order, count, seed, epoch):
    groups = make_groups()
    draw = Draw(seed, epoch)
    company = [groups[i] for i in order[:count]]
    batch = masked(company, draw)
    pieces = batch.input_ids.split(batch.offsets.diff().tolist())
    for group, ids in zip(company, pieces, strict=True):
        assert torch.equal(ids, masked([group], draw).input_ids)


def test_masks_differ_between_epochs_seeds_and_examples():
    groups = make_groups([64] * 4)
    first = masked(groups, Draw(0, 0)).input_ids
    assert not torch.equal(first, masked(groups, Draw(0, 1)).input_ids)
    assert not torch.equal(first, masked(groups, Draw(1, 0)).input_ids)
    same_text = [Group(i, groups[0].sequences) for i in range(2)]
    one, other = masked(same_text).input_ids.split(64)
    assert not torch.equal(one, other)
    one, other = masked([Group(0, groups[0].sequences * 2)]).input_ids.split(64)
    assert not torch.equal(one, other)


def test_a_sequence_of_specials_alone_has_nothing_to_predict():
    bare = Sequence(np.array([VOCABULARY.cls, VOCABULARY.sep]), np.zeros(2, dtype=np.int64))
    batch = masked([Group(0, [bare])])
    assert len(batch.targets["mlm_rows"]) == 0
    task = make_task("mlm")
    assert task.counts(batch) == {"mlm": 0}
    assert float(task.loss(make_model(task), batch, DRAW)["mlm"].detach()) == 0
    mixed = masked([Group(0, [bare]), *make_groups([20])[0:1]])
    assert (mixed.targets["mlm_rows"] > 1).all()


def test_settings_that_cannot_be_are_refused():
    for settings in (
        *({"rate": 0}, {"rate": 1.5}, {"rate": "0.3 -> 1"}, {"rate": "often"}),
        *({"masked": -0.1}, {"masked": 0.9, "random": 0.2}, {"masked": "0.8 -> 1", "random": 0.1}),
        *({"unit": "sentence"}, {"unit": "entity"}, {"names": "names.txt"}, {"longest": 4}),
    ):
        with pytest.raises(UserError, match=r"settings of mlm"):
            masked([], settings=settings)
    with pytest.raises(UserError, match="unknown key 'rat'; did you mean 'rate'"):
        masked([], settings={"rat": 0.1})
    whole = masked(make_groups(), settings={"masked": 1.0, "random": 0.0})
    assert (whole.input_ids[whole.targets["mlm_rows"]] == VOCABULARY.mask).all()
    kept = masked(make_groups(), settings={"masked": 0.0, "random": 0.0})
    assert torch.equal(kept.input_ids, torch.from_numpy(originals(make_groups())))


def test_each_blank_is_filled_in_order_likeliest_first():
    task = make_task("mlm")
    engine = Engine(make_model(task), task, TOKENIZER)
    texts = ["where is my [MASK]", "no blank", "[MASK] 我要 [MASK]", "[MASK]"]
    found = list(engine.predict(task.Example(text=text) for text in texts))
    assert [len(p.fillings) for p in found] == [1, 0, 2, 1]
    for prediction in found:
        for fillings in prediction.fillings:
            shares = [f.probability for f in fillings]
            assert len(fillings) == task.config.top
            assert shares == sorted(shares, reverse=True)
            assert 0 < sum(shares) <= 1
    alone = [next(engine.predict([task.Example(text=text)])) for text in texts]
    assert [p.fillings[0][0].token for p in alone if p.fillings] == [
        p.fillings[0][0].token for p in found if p.fillings
    ]
    assert next(engine.predict([task.Example(text="nothing to fill")])).fillings == []
