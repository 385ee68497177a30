"""Laws of pairs and windows: nothing lost, nothing twice, negatives from elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.data.pairs import held_out, orders, pairs, uses_all, windows

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
    return [*plan.first.tolist(), *plan.second[plan.labels == 0].tolist()]


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
    assert (used == 0).sum() == plan.trimmed
    assert plan.trimmed == 0 or len(corpus) == 1


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
    for (a, b), (c, d), random in zip(plan.first, plan.second, plan.labels, strict=True):
        assert a < b and c < d
        own = document_of(corpus, a)
        other = document_of(corpus, c)
        assert own == document_of(corpus, b - 1)
        assert other == document_of(corpus, d - 1)
        assert (own != other) == bool(random)
        assert random or b <= c


@pytest.mark.parametrize("max_length", [8, 16, 40, 128])
@pytest.mark.parametrize("sentence_length", [5, 25])
def test_half_of_the_second_segments_follow(max_length, sentence_length):
    plan = plan_of(many_documents(800, sentence_length), max_length)
    assert len(plan.labels) > 900
    sigma = 0.5 / np.sqrt(len(plan.labels))
    # a document's last sentence has nothing that follows, so a few more are random
    assert 0.5 - 4 * sigma < plan.labels.mean() < 0.5 + 4 * sigma + 0.1


def test_a_sentence_that_fits_twice_is_cut_at_the_end_of_a_pair_only():
    plan = plan_of([[7] * 30] * 40, max_length=35)
    starts = [*plan.first[plan.first[:, 0] % 7 == 0][:, 1], *plan.second[:, 0]]
    assert all(start % 7 == 0 for start in starts)


def test_where_a_second_segment_begins_does_not_tell_where_it_is_from():
    """Sentences too long for a pair are cut within; so are those that are taken from elsewhere."""
    random = np.random.default_rng(0)
    corpus = [random.choice([4, 60], 60).tolist() for _ in range(300)]
    plan = plan_of(corpus, max_length=32)
    bounds, _ = bounds_of(corpus)
    whole = np.isin(plan.second[:, 0], bounds)
    following, elsewhere = whole[plan.labels == 0].mean(), whole[plan.labels == 1].mean()
    assert 0.1 < following < 0.9
    assert following == pytest.approx(elsewhere, abs=0.05)


@pytest.mark.parametrize("kind", ["none", "next", "order"])
@pytest.mark.parametrize("damage", ["lost", "twice", "unchosen", "crossing"])
def test_a_plan_that_loses_or_repeats_text_is_seen(kind, damage):
    corpus = many_documents(20)
    cut = {"none": windows, "next": pairs, "order": orders}[kind]
    chosen, where = np.arange(1, 19), bounds_of(corpus)
    more = () if kind == "none" else ((0, 0),)
    plan = cut(*where, chosen, 40, *more)
    assert uses_all(plan, kind, *where, chosen)
    first = plan.first.copy()
    if damage == "unchosen":
        assert not uses_all(plan, kind, *where, chosen + 1)
        return
    at = 3 if damage == "lost" else 5
    first[at] += {"lost": (1, 0), "twice": (-1, 0), "crossing": (0, 400)}[damage]
    assert not uses_all(replace(plan, first=first), kind, *where, chosen)


def test_one_sentence_documents_can_only_be_paired_with_others():
    plan = plan_of([[5]] * 50, max_length=40)
    assert len(plan.labels) == 50
    assert plan.labels.all()


@pytest.mark.parametrize("lengths", [[20, 20, 20], [9, 2, 30], [1, 1, 50], [3] * 9, [40, 1]])
@pytest.mark.parametrize("seed", range(5))
def test_a_document_alone_is_only_paired_with_itself(lengths, seed):
    plan = plan_of([lengths], max_length=16, key=(seed, 0))
    assert len(plan.labels) > 0
    assert not plan.labels.any()
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
        for (a, _), (c, _), random in zip(plan.first, plan.second, plan.labels, strict=True):
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
        rows = zip(plan.first.tolist(), plan.labels.tolist(), strict=True)
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


# === Order ===


def ordered(corpus, max_length=24, key=(0, 0), chosen=None):
    sentences, documents = bounds_of(corpus)
    chosen = np.arange(len(corpus)) if chosen is None else np.array(chosen)
    return orders(sentences, documents, chosen, max_length, key)


@given(corpora, st.integers(8, 60), st.integers(0, 5))
def test_an_order_uses_every_token_once_or_counts_it_as_trimmed(corpus, max_length, seed):
    plan = ordered(corpus, max_length, (seed, 0))
    used = np.zeros(sum(map(sum, corpus)), dtype=int)
    for start, end in [*plan.first.tolist(), *plan.second.tolist()]:
        used[start:end] += 1
    assert used.max() <= 1
    assert (used == 0).sum() == plan.trimmed


@given(corpora, st.integers(8, 60), st.integers(0, 5))
def test_both_segments_are_neighbours_in_one_document(corpus, max_length, seed):
    plan = ordered(corpus, max_length, (seed, 1))
    assert (plan.lengths <= max_length).all() and (plan.lengths > 2).all()
    for (a, b), (c, d), label in zip(plan.first, plan.second, plan.labels, strict=True):
        if label < 0:
            assert (c, d) == (0, 0) and a < b
            continue
        assert a < b and c < d
        assert document_of(corpus, min(a, c)) == document_of(corpus, max(b, d) - 1)
        assert (c < a) == bool(label)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.integers(8, 60))
def test_where_nothing_is_too_long_the_segments_touch(sizes, max_length):
    corpus = [[1] * size for size in sizes]
    plan = ordered(corpus, max_length)
    assert plan.trimmed == 0
    for (a, b), (c, d), label in zip(plan.first, plan.second, plan.labels, strict=True):
        assert label < 0 or (d == a if label else b == c)


@given(corpora, st.integers(70, 90))
def test_where_two_sentences_fit_none_is_cut(corpus, max_length):
    plan = ordered(corpus, max_length)
    sentences, _ = bounds_of(corpus)
    ends = [*plan.first.flatten(), *plan.second[plan.labels >= 0].flatten()]
    assert plan.trimmed == 0 and set(ends) <= set(sentences)


def test_half_of_the_pairs_are_swapped():
    plan = ordered(many_documents(800), max_length=40)
    known = plan.labels[plan.labels >= 0]
    assert len(known) > 1500
    assert plan.share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(known)))
    assert plan.share == known.mean()


def test_nothing_but_the_order_tells_that_a_pair_is_swapped():
    """Lengths, trimming and places in the document are alike in both halves."""
    corpus = [list(np.random.default_rng(i).integers(1, 30, 12)) for i in range(1500)]
    plan = ordered(corpus, max_length=40)
    sizes = np.stack([np.diff(plan.first)[:, 0], np.diff(plan.second)[:, 0]])
    for one in (sizes[0], sizes[1], plan.lengths):
        halves = one[plan.labels == 0], one[plan.labels == 1]
        spread = np.sqrt(sum(half.var() / len(half) for half in halves))
        assert abs(halves[0].mean() - halves[1].mean()) < 4 * spread


def test_a_sentence_without_another_stands_alone_and_tells_nothing():
    plan = ordered([[5], [50], [5, 5], [9]], max_length=22)
    alone = plan.labels < 0
    assert plan.first[alone].tolist() == [[0, 5], [5, 25], [25, 45], [45, 55], [65, 74]]
    assert (~alone).sum() == 1 and plan.trimmed == 0
    assert plan.lengths.max() == 22
    assert ordered([[5]] * 9).share is None


def test_an_order_depends_on_the_key_and_the_documents_own_number():
    corpus = [[3] * 30 for _ in range(8)]

    def cuts(chosen, key=(0, 0)):
        plan = ordered(corpus, 20, key, chosen)
        rows = zip(plan.first.tolist(), plan.second.tolist(), plan.labels.tolist(), strict=True)
        return [row for row in rows if document_of(corpus, row[0][0]) == 5]

    alone = cuts([5])
    assert alone == cuts([4, 5]) == cuts(range(8))
    assert alone != cuts([5], (0, 1)) and alone != cuts([5], (1, 0))


# === Windows, and what is held out ===


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
    assert (plan.labels == -1).all() and plan.share is None


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
