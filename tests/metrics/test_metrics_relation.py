"""F1 of relations against hand-made cases of SemEval-2010 Task 8's official rules, and sklearn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from clozeworks.core.errors import UserError
from clozeworks.metrics.relation import relation_metrics, relation_of

ONE, TURNED = "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"
MADE, OTHER = "Product-Producer(e1,e2)", "Other"
LABELS = st.sampled_from([ONE, TURNED, MADE, "Product-Producer(e2,e1)", OTHER])


def test_a_turned_relation_counts_as_given_and_as_there_and_is_wrong():
    gold = [ONE, ONE, TURNED, TURNED, MADE, OTHER, OTHER]
    given = [ONE, TURNED, TURNED, OTHER, ONE, ONE, OTHER]
    found = relation_metrics(gold, given, OTHER)
    cause, made = found.relations
    # of Cause-Effect 4 are there; 5 were given, 2 of them right, 1 turned
    assert (cause.gold, cause.predicted, cause.right, cause.turned) == (4, 5, 2, 1)
    assert (cause.precision, cause.recall) == (2 / 5, 2 / 4)
    assert cause.f1 == pytest.approx(2 * 0.4 * 0.5 / 0.9)
    assert (made.gold, made.predicted, made.f1) == (1, 0, 0.0)
    assert found.macro_f1 == pytest.approx(cause.f1 / 2)
    assert found.accuracy == 3 / 7
    assert (found.micro.precision, found.micro.recall) == (2 / 5, 2 / 5)


def test_other_is_left_out_of_f1_even_where_it_is_all_that_is_right():
    found = relation_metrics([OTHER, OTHER, ONE], [OTHER, OTHER, OTHER], OTHER)
    assert found.macro_f1 == found.micro.f1 == 0 and found.accuracy == 2 / 3
    assert [row.relation for row in found.relations] == ["Cause-Effect"]
    assert relation_metrics([OTHER], [OTHER], OTHER).macro_f1 == 0
    assert relation_metrics([OTHER], [OTHER]).macro_f1 == 1  # where it is a relation like others


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
def test_micro_is_sklearns_over_the_labels_that_are_relations(pairs):
    gold, given = zip(*pairs, strict=True)
    found = relation_metrics(gold, given, OTHER)
    labels = sorted({*gold, *given} - {OTHER})
    theirs = f1_score(gold, given, labels=labels, average="micro", zero_division=0) if labels else 0
    assert found.micro.f1 == pytest.approx(theirs)


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
def test_macro_is_the_mean_by_the_definition(pairs):
    found, each = relation_metrics(*zip(*pairs, strict=True), OTHER), []
    for name in sorted({relation_of(label)[0] for p in pairs for label in p} - {OTHER}):
        gold = sum(relation_of(g)[0] == name for g, _ in pairs)
        given = sum(relation_of(p)[0] == name for _, p in pairs)
        right = sum(g == p and relation_of(g)[0] == name for g, p in pairs)
        p, r = right / max(1, given), right / max(1, gold)
        each.append(2 * p * r / (p + r) if p + r else 0.0)
    assert found.macro_f1 == pytest.approx(np.mean(each) if each else 0.0)


def test_without_directions_and_without_no_relation_macro_is_sklearns():
    gold, given = ["合并", "收购", "合并", "入股"], ["合并", "合并", "合并", "入股"]
    found = relation_metrics(gold, given)
    assert found.macro_f1 == pytest.approx(f1_score(gold, given, average="macro"))
    with pytest.raises(UserError, match="no rows to judge"):
        relation_metrics([], [])


def test_a_direction_is_what_stands_at_the_end_in_brackets():
    assert relation_of(ONE) == ("Cause-Effect", "e1,e2")
    assert relation_of("located(in)") == ("located(in)", "")
    assert relation_of("(e1,e2)") == ("(e1,e2)", "")
