"""The TF-IDF baseline learns both languages and answers like any classifier."""

import pytest

from clozeworks.core.errors import UserError
from clozeworks.evaluation.baseline import Baseline
from clozeworks.tasks.classify import ClassifyExample

STEMS = {
    "refund": ["I want my money back", "please refund order", "我要退款", "钱什么时候退回来"],
    "delivery": ["where is my parcel", "has it been shipped", "快递到哪里了", "什么时候发货"],
}
TAILS = ["", " please", " 谢谢", "!!", " asap", "啊", " ok?", " 急"]


def rows(tails):
    return [
        ClassifyExample(text=stem + tail, label=label)
        for label, stems in STEMS.items()
        for stem in stems
        for tail in tails
    ]


@pytest.fixture(scope="module")
def baseline():
    return Baseline.fit(rows(TAILS[:4]), rows(TAILS[4:6]), ["refund", "delivery", "absent"])


def test_both_languages_are_learnt(baseline):
    test = rows(TAILS[6:])
    predictions = baseline.predict(test)
    assert [p.best for p in predictions] == [e.label for e in test]
    assert len(predictions) == len(test)


def test_predictions_are_probabilities_under_the_threshold_rule(baseline):
    for p in baseline.predict(rows(TAILS)):
        assert list(p.scores) == ["refund", "delivery", "absent"]
        assert sum(p.scores.values()) == pytest.approx(1)
        assert p.confidence == max(p.scores.values()) == p.scores[p.best]
        assert p.label == (p.best if p.confidence >= baseline.calibration.threshold else None)
        assert p.scores["absent"] < 1e-6


def test_a_text_is_judged_alone_as_among_others(baseline):
    test = rows(TAILS[6:])
    assert baseline.predict(test)[3] == baseline.predict(test[3:4])[0]
    assert baseline.predict([]) == []


def test_chinese_needs_no_spaces():
    stems = {"refund": ["退款", "退钱"], "delivery": ["快递", "发货"]}
    wraps = [
        "我想问一下{}的事情",
        "请帮我查查{}好吗",
        "{}怎么还没有消息",
        "麻烦你们看看{}吧",
        "{}呢",
    ]
    made = [
        [ClassifyExample(text=w.format(s), label=k) for k in stems for s in stems[k] for w in part]
        for part in (wraps[:3], wraps[3:4], wraps[4:])
    ]
    fitted = Baseline.fit(made[0], made[1], list(stems))
    assert [p.best for p in fitted.predict(made[2])] == [e.label for e in made[2]]


def test_the_second_text_of_a_pair_counts():
    words = ["好", "bad"]
    pairs = [
        ClassifyExample(text=f"row {i}", text_pair=words[i % 2], label=words[i % 2])
        for i in range(40)
    ]
    fitted = Baseline.fit(pairs[:30], pairs[30:], words)
    assert [p.best for p in fitted.predict(pairs[30:])] == [e.label for e in pairs[30:]]


def test_bad_rows_are_named():
    good = rows(TAILS[:2])
    with pytest.raises(UserError, match="row 1 has no label"):
        Baseline.fit([ClassifyExample(text="x")], good, list(STEMS))
    with pytest.raises(UserError, match="every training row is 'refund'"):
        Baseline.fit(good[:4], good, list(STEMS))
    with pytest.raises(UserError, match="no rows"):
        Baseline.fit(good, [], list(STEMS))
