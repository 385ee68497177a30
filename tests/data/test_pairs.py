"""Laws of pairs and windows: nothing lost, nothing twice, negatives from elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.data.pairs import held_out, pairs, windows

corpora = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=12)


def bounds_of(corpus):
    """Token bounds of sentences and sentence bounds of documents."""
    lengths = [n for document in corpus for n in document]
    sizes = [len(document) for document in corpus]
    return np.cumsum([0, *lengths]), np.cumsum([0, *sizes])


def plan_of(corpus, max_length=24, key=(0, 0), chosen=None):
    sentences, documents = bounds_of(corpus)
    chosen = np.arange(len(corpus)) if chosen is None else np.array(chosen)
    return pairs(sentences, documents, chosen, max_length, key)


def document_of(corpus, token):
    sentences, documents = bounds_of(corpus)
    return int(np.searchsorted(sentences[documents], token, side="right")) - 1


def own_segments(plan):
    """Every first segment, and every second one that follows its first."""
    return [*plan.first.tolist(), *plan.second[plan.random == 0].tolist()]


def many_documents(count=400, sentence_length=5, seed=0):
    random = np.random.default_rng(seed)
    return [[sentence_length] * int(random.integers(2, 30)) for _ in range(count)]


@given(corpora, st.integers(8, 60), st.integers(0, 5))
def test_every_token_is_used_once_or_counted_as_trimmed(corpus, max_length, seed):
    plan = plan_of(corpus, max_length, (seed, 0))
    used = np.zeros(sum(map(sum, corpus)), dtype=int)
    for start, end in own_segments(plan):
        used[start:end] += 1
    assert used.max(initial=0) <= 1
    assert (used == 0).sum() <= plan.trimmed


@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(8, 60))
def test_where_nothing_is_too_long_every_token_is_used_exactly_once(sizes, max_length):
    corpus = [[1] * size for size in sizes]
    plan = plan_of(corpus, max_length)
    assert plan.trimmed == 0
    used = np.zeros(sum(sizes), dtype=int)
    for start, end in own_segments(plan):
        used[start:end] += 1
    assert (used == 1).all()


@given(corpora, st.integers(8, 60), st.integers(0, 5))
def test_segments_fit_are_never_empty_and_stay_in_one_document(corpus, max_length, seed):
    plan = plan_of(corpus, max_length, (seed, 3))
    assert (plan.lengths <= max_length).all()
    assert plan.lengths.tolist() == [
        b - a + d - c + 3
        for (a, b), (c, d) in zip(plan.first.tolist(), plan.second.tolist(), strict=True)
    ]
    for (a, b), (c, d), random in zip(plan.first, plan.second, plan.random, strict=True):
        assert a < b and c < d
        own = document_of(corpus, a)
        other = document_of(corpus, c)
        assert own == document_of(corpus, b - 1)
        assert other == document_of(corpus, d - 1)
        assert (own != other) == bool(random)
        assert random or b <= c


def test_half_of_the_second_segments_follow():
    plan = plan_of(many_documents(800), max_length=40)
    assert len(plan.random) > 2000
    sigma = 0.5 / np.sqrt(len(plan.random))
    # a chunk of one sentence has nothing that follows, so a few more are random
    assert 0.5 - 4 * sigma < plan.random.mean() < 0.5 + 4 * sigma + 0.08


def test_one_sentence_documents_can_only_be_paired_with_others():
    plan = plan_of([[5]] * 50, max_length=40)
    assert len(plan.random) == 50
    assert plan.random.all()


@pytest.mark.parametrize("lengths", [[20, 20, 20], [9, 2, 30], [1, 1, 50], [3] * 9, [40, 1]])
@pytest.mark.parametrize("seed", range(5))
def test_a_document_alone_is_only_paired_with_itself(lengths, seed):
    plan = plan_of([lengths], max_length=16, key=(seed, 0))
    assert len(plan.random) > 0
    assert not plan.random.any()
    used = sum(end - start for start, end in own_segments(plan))
    assert used + plan.trimmed == sum(lengths)


def test_some_pairs_are_short_so_that_short_inputs_are_seen():
    lengths = plan_of(many_documents(sentence_length=1), max_length=20).lengths
    assert 0.02 < (lengths < 12).mean() < 0.5
    assert (lengths == 20).mean() > 0.2


def test_other_documents_are_drawn_evenly():
    corpus = [[5] * 20 for _ in range(20)]
    seen = np.zeros((20, 20), dtype=int)
    for epoch in range(30):
        plan = plan_of(corpus, 40, (0, epoch))
        for (a, _), (c, _), random in zip(plan.first, plan.second, plan.random, strict=True):
            if random:
                seen[document_of(corpus, a), document_of(corpus, c)] += 1
    assert seen.diagonal().sum() == 0
    others = seen[~np.eye(20, dtype=bool)]
    assert np.abs(others - others.mean()).max() < 6 * np.sqrt(others.mean())


def test_a_documents_cuts_depend_on_the_key_and_its_own_number():
    """Its first segments and labels; whom it is paired with depends on who is there."""
    corpus = [[1] * 30 for _ in range(8)]

    def cuts(chosen, key=(0, 0)):
        plan = plan_of(corpus, 20, key, chosen)
        rows = zip(plan.first.tolist(), plan.random.tolist(), strict=True)
        return [row for row in rows if document_of(corpus, row[0][0]) == 5]

    alone = cuts([4, 5])
    assert alone == cuts([5, 4]) == cuts(range(8)) == cuts([0, 5, 7])
    assert alone != cuts([4, 5], (0, 1))
    assert alone != cuts([4, 5], (1, 0))
    assert cuts([0, 1]) == []


def test_unchosen_documents_are_never_seen():
    corpus = many_documents(40)
    chosen = [3, 8, 20, 21]
    plan = plan_of(corpus, 40, chosen=chosen)
    starts = [*plan.first[:, 0].tolist(), *plan.second[:, 0].tolist()]
    assert {document_of(corpus, token) for token in starts} == set(chosen)


@given(corpora, st.integers(8, 60))
def test_windows_cover_every_token_exactly_once(corpus, max_length):
    sentences, documents = bounds_of(corpus)
    plan = windows(sentences, documents, np.arange(len(corpus)), max_length)
    covered = [token for start, end in plan.first.tolist() for token in range(start, end)]
    assert covered == list(range(sentences[-1]))
    assert (plan.lengths <= max_length).all()
    assert plan.lengths.tolist() == [end - start + 2 for start, end in plan.first.tolist()]
    for start, end in plan.first.tolist():
        assert document_of(corpus, start) == document_of(corpus, end - 1)
    full = plan.lengths == max_length
    assert (~full).sum() <= len(corpus)


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_held_out_is_disjoint_and_complete(count, share):
    train, held = held_out(count, share)
    assert sorted([*train, *held]) == list(range(count))
    assert len(held) >= (1 if share > 0 and count > 1 else 0)
    assert len(train) >= 1 or share > 0.5


def test_held_out_is_about_its_share_and_grows_with_the_corpus():
    for share in (0.01, 0.1, 0.5):
        held = held_out(20_000, share)[1]
        assert len(held) / 20_000 == pytest.approx(share, abs=4 * np.sqrt(share / 20_000))
    small, large = held_out(1000, 0.1)[1], held_out(2000, 0.1)[1]
    assert set(small) <= set(large)
