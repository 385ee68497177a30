"""Laws of the entity metrics: seqeval's numbers, for entities that may also be nested."""

import warnings
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.metrics.tag import tag_accuracy, tag_metrics
from clozeworks.text.tags import Span, labels_of, spans_of

spans = st.builds(
    lambda start, size, type: Span(start, start + size, type),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from(["人", "loc", "never"]),
)
rows = st.lists(st.tuples(st.sets(spans, max_size=5), st.sets(spans, max_size=5)), min_size=1)


def tag_rows(scheme):
    tag = st.sampled_from(labels_of(["人", "loc", "x-y"], scheme))
    row = st.lists(st.tuples(tag, tag), min_size=1, max_size=8)
    return st.lists(row, min_size=1, max_size=6)


@given(st.sampled_from(["bio", "bioes"]).flatmap(lambda s: st.tuples(st.just(s), tag_rows(s))))
@settings(max_examples=60)
@pytest.mark.parametrize("mode", ["default", "strict"])
def test_numbers_are_seqevals(mode, drawn):
    pytest.importorskip("seqeval")
    from seqeval import scheme as schemes
    from seqeval.metrics import accuracy_score
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as default
    from seqeval.metrics.v1 import precision_recall_fscore_support as v1

    scheme, pairs = drawn
    gold, guess = ([[pair[side] for pair in row] for row in pairs] for side in (0, 1))
    strict = scheme if mode == "strict" else None
    found = tag_metrics(*([spans_of(row, strict) for row in rows] for rows in (gold, guess)))
    kind = {"bio": schemes.IOB2, "bioes": schemes.IOBES}[scheme]
    judge = partial(v1, scheme=kind) if strict else default
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in ("micro", "macro", "weighted"):
            if not found.types or (average == "weighted" and not found.gold):
                continue  # seqeval fails, or gives numbers of nothing
            want = judge(gold, guess, average=average, zero_division=0)
            mine = getattr(found, average)
            assert (mine.precision, mine.recall, mine.f1) == pytest.approx(want[:3]), average
    assert tag_accuracy(gold, guess) == pytest.approx(accuracy_score(gold, guess))


@given(rows)
def test_counts_are_those_of_sets_nested_entities_too(pairs):
    gold, guess = zip(*pairs, strict=True)
    found = tag_metrics(gold, guess)
    right = sum(len(g & p) for g, p in pairs)
    assert (found.gold, found.predicted, found.right) == (
        sum(map(len, gold)),
        sum(map(len, guess)),
        right,
    )
    for name in ("gold", "predicted", "right"):
        assert sum(getattr(row, name) for row in found.types) == getattr(found, name)
    assert [row.type for row in found.types] == sorted({s.type for p in pairs for s in p[0] | p[1]})
    precision, recall = found.micro.precision, found.micro.recall
    if right:
        assert found.micro.f1 == pytest.approx(2 / (1 / precision + 1 / recall))
    assert found.whole == pytest.approx(sum(g == p for g, p in pairs) / len(pairs))


@given(rows, st.randoms(use_true_random=False))
def test_sides_swap_precision_and_recall_and_order_does_not_matter(pairs, random):
    gold, guess = zip(*pairs, strict=True)
    one, other = tag_metrics(gold, guess), tag_metrics(guess, gold)
    assert (one.micro.precision, one.micro.recall) == (other.micro.recall, other.micro.precision)
    assert one.micro.f1 == other.micro.f1 and one.macro.f1 == pytest.approx(other.macro.f1)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert tag_metrics(*zip(*shuffled, strict=True)).micro == one.micro


def test_the_same_entity_twice_counts_once_and_another_row_is_another_entity():
    span = Span(0, 2, "a")
    found = tag_metrics([[span, span], []], [[span], [span]])
    assert (found.gold, found.predicted, found.right, found.whole) == (1, 2, 1, 0.5)


def test_nothing_to_find_is_no_division_by_zero():
    found = tag_metrics([[], []], [[], []])
    assert found.micro.f1 == found.macro.f1 == found.weighted.f1 == 0 and found.whole == 1


def test_bad_input_is_named():
    with pytest.raises(UserError, match="no rows"):
        tag_metrics([], [])
    with pytest.raises(UserError, match="2 gold rows and 1"):
        tag_metrics([[], []], [[]])
    with pytest.raises(UserError, match="row 2 has 1 gold tags and 2"):
        tag_accuracy([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(UserError, match="every row is empty"):
        tag_accuracy([[]], [[]])
