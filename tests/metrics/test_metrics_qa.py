"""Laws of the answer metrics, and the official rules of SQuAD and CMRC 2018, one example a rule."""

import gzip
import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.metrics.qa import (
    best_threshold,
    cmrc_score,
    normalised,
    qa_metrics,
    segments,
    squad_score,
)

words = st.lists(
    st.sampled_from(["the", "Cat", "sat,", "on", "A", "mat.", "猫", "1.5"]), max_size=6
)
texts = words.map(" ".join) | st.text(max_size=8)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("The  Cat's\t(hat)!", "cats hat"),  # case, punctuation, article, white space
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),  # an article is a whole word
        ("a-b", "ab"),  # punctuation goes first, and leaves no space
        ("A.", ""),
        ("“the” 猫。", "“ ” 猫。"),  # only ASCII punctuation goes
    ],
)
def test_squad_normalises(text, want):
    """The steps of normalize_answer in evaluate-v2.0.py: lower, punctuation, articles, spaces."""
    assert normalised(text) == want


@pytest.mark.parametrize(
    ("gold", "given", "exact", "f1"),
    [
        (["Denver Broncos", "The Denver Broncos!"], "the denver broncos", 1, 1),
        (["Santa Clara, California"], "California", 0, 0.5),
        (["in the cold cold sea"], "cold sea cold", 0, 6 / 7),  # repeated words count as often
        (["west", "North west London"], "North London", 0, 0.8),  # the best of all answers
        ([], "", 1, 1),
        ([], "something", 0, 0),
        (["something"], "", 0, 0),
        (["the", "cat"], "", 0, 0),  # an answer that is nothing does not count …
        (["the"], "", 1, 1),  # … and where no other is left, there is none
    ],
)
def test_squad_scores(gold, given, exact, f1):
    """get_raw_scores, compute_exact and compute_f1 of evaluate-v2.0.py."""
    assert squad_score(gold, given) == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("光荣和ω-force", ["光", "荣", "和", "ωforce"]),
        ("《战国无双3》的1,234.5人", ["战", "国", "无", "双", "3", "的", "1,234.5", "人"]),
        ("3、4号", ["34", "号"]),  # what stood apart grows together
        (" iPhone 5s发布 ", ["iphone", "5s", "发", "布"]),
        ("John's (cat)", ["john", "'s", "(", "cat", ")"]),  # ASCII brackets are not on the list
        ("等……", ["等", "…", "…"]),  # on the list as two, so that no character is it
    ],
)
def test_cmrc_segments(text, want):
    """mixed_segmentation(…, rm_punc=True) of cmrc2018_evaluate.py."""
    assert segments(text) == want


@pytest.mark.parametrize(
    ("gold", "given", "exact", "f1"),
    [
        (["光荣和ω-force"], "光荣和Ω-Force。", 1, 1),
        (["1990年5月"], "1990年5月3日", 0, 2 * 4 / (4 + 6)),
        (["中华人民"], "中国人民", 0, 2 * 2 / 8),  # a run of neighbours, not a subsequence
        (["大战", "第二次世界大战"], "世界大战", 0, 8 / 11),
        (["A"], "a", 1, 1),
        (["猫"], "", 0, 0),
        ([], "", 1, 1),
    ],
)
def test_cmrc_scores(gold, given, exact, f1):
    """calc_em_score and calc_f1_score of cmrc2018_evaluate.py; no answer as in SQuAD 2.0."""
    assert cmrc_score(gold, given) == (exact, pytest.approx(f1))


@given(texts, texts, st.sampled_from([squad_score, cmrc_score]))
def test_scores_are_symmetric_shares_and_equal_texts_are_right(a, b, judge):
    assert judge([a], a) == (1, 1)
    one, other = judge([a], b), judge([b], a)
    assert one == pytest.approx(other)
    assert 0 <= one.exact <= 1 and 0 <= one.f1 <= 1
    more = judge([a, b], b)
    assert more.f1 >= one.f1 and (more.exact == 1 or not normalised(b) or not b.strip())


@given(st.lists(st.tuples(st.lists(texts, max_size=2), texts), min_size=1, max_size=8))
def test_means_are_taken_over_all_and_over_those_with_an_answer(rows):
    gold, given = zip(*rows, strict=True)
    for rules, judge in (("squad", squad_score), ("cmrc", cmrc_score)):
        found = qa_metrics(gold, given, rules)
        scores = [judge(g, p) for g, p in rows]
        has = [any(a.strip() for a in g) for g in gold]
        assert found.f1 == pytest.approx(sum(s.f1 for s in scores) / len(rows))
        assert found.answerable == sum(has)
        right = [s.exact for s, h in zip(scores, has, strict=True) if not h]
        assert (found.unanswerable_right is None) == (not right)
        if right:
            assert found.unanswerable_right == pytest.approx(sum(right) / len(right))


questions = st.tuples(st.sampled_from([0, 0.5, 1]), st.booleans(), st.integers(-3, 3))


@given(st.lists(questions, min_size=1, max_size=12))
def test_no_threshold_is_better_than_the_best_and_none_as_good_is_lower(rows):
    # an answer to a question that has none is worth 1 only if it is "", whatever its null score
    rows = [(float(score == 1) if not has else score, has, null) for score, has, null in rows]

    def worth(threshold):
        kept = [score if null <= threshold else float(not has) for score, has, null in rows]
        return sum(kept) / len(rows)

    found = best_threshold(*zip(*rows, strict=True))
    assert found.score == pytest.approx(worth(found.value))
    for other in (-4, *(null for *_, null in rows)):
        assert worth(other) <= found.score + 1e-9
        assert worth(other) < found.score - 1e-9 or other >= found.value or other == -4


def test_the_threshold_parts_the_sure_from_the_unsure():
    found = best_threshold([1, 1, 0, 0], [True, True, False, False], [-5.0, -2.0, 1.0, 3.0])
    assert found == (-2.0, 1.0)
    never = best_threshold([0, 0], [False, False], [0.25, 0.5])
    assert never.value < 0.25 and never.score == 1


def test_bad_input_is_named():
    with pytest.raises(UserError, match="no questions"):
        qa_metrics([], [])
    with pytest.raises(UserError, match="1 questions and 2 answers"):
        qa_metrics([["a"]], ["a", "b"])
    with pytest.raises(UserError, match="choices: squad, cmrc"):
        qa_metrics([["a"]], ["a"], "drcd")
    with pytest.raises(UserError, match="differ in how many"):
        best_threshold([1], [True, False], [0.0])
    with pytest.raises(UserError, match="NaN"):
        best_threshold([1], [True], [float("nan")])


@pytest.mark.parametrize(
    ("path", "rules"), [("squad_v1/dev.jsonl.gz", "squad"), ("cmrc2018/dev.jsonl.gz", "cmrc")]
)
def test_every_public_answer_is_worth_everything(public_data, path, rules):
    if not (public_data / path).is_file():
        pytest.skip(f"no {public_data / path}")
    with gzip.open(public_data / path, "rt", encoding="utf-8") as lines:
        gold = [json.loads(line)["answers"]["text"] for line in islice(lines, 500)]
    last = qa_metrics(gold, [answers[-1] for answers in gold], rules)
    assert last.exact == last.f1 == 1 and last.answerable == len(gold)
