"""Laws of ROUGE, English and Chinese, with published examples; BLEU and chrF are sacrebleu's."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.metrics.generate import bleu, chrf, common, rouge, rouge_metrics, rouge_words

words = st.lists(st.sampled_from(["a", "b", "c", "d", "字", "词"]), max_size=12)
texts = words.map(" ".join)


def plain_common(a, b):
    """The table of every textbook."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            same = table[i - 1][j - 1] + 1
            table[i][j] = same if x == y else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@given(words, words)
def test_the_common_subsequence_is_the_tables(a, b):
    assert common(a, b) == common(b, a) == plain_common(a, b)


def test_long_texts_are_no_trouble():
    assert common(["x", "y"] * 20_000, ["y"] * 3_000) == 3_000


def numbers(score):
    return score.precision, score.recall, score.f1


def test_published_examples():
    """rouge_scorer_test.py of google-research/rouge, and sentences S1 to S3 of Lin 2004, 3.1."""
    target = "testing one two"
    assert numbers(rouge("testing", [target]).rouge1) == pytest.approx((1, 1 / 3, 1 / 2))
    assert numbers(rouge("testing one", [target]).rouge2) == pytest.approx((1, 1 / 2, 2 / 3))
    assert numbers(rouge("testing one", [target]).rouge_l) == pytest.approx((1, 2 / 3, 4 / 5))
    assert numbers(rouge("testing two", [target]).rouge_l) == pytest.approx((1, 2 / 3, 4 / 5))
    assert numbers(rouge("", [target]).rouge1) == (0, 0, 0)
    gold = ["police killed the gunman"]
    s2, s3 = (rouge(t, gold) for t in ("police kill the gunman", "the gunman kill police"))
    assert (s2.rouge_l.f1, s3.rouge_l.f1) == (0.75, 0.5)
    assert s2.rouge2.f1 == s3.rouge2.f1 == pytest.approx(1 / 3)


def test_chinese_is_judged_by_its_characters():
    found = rouge("今天天气很好。", ["今天天气不好！"])
    assert found.rouge1.f1 == pytest.approx(5 / 6)
    assert found.rouge2.f1 == pytest.approx(3 / 5)
    assert found.rouge_l.f1 == pytest.approx(5 / 6)
    mixed = rouge_words("BERT-base在2018年，Google 发布了它_café")
    assert mixed == ["bert", "base", *"在", "2018", *"年", "google", *"发布了它", "café"]
    by_word = rouge("很 好", ["不 好"], str.split)
    assert by_word.rouge1.f1 == 0.5


@given(texts, texts)
def test_a_text_is_all_of_itself_and_sides_swap(a, b):
    one, other = rouge(a, [b]), rouge(b, [a])
    for name in ("rouge1", "rouge2", "rouge_l"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine.precision, mine.recall, mine.f1) == (
            theirs.recall,
            theirs.precision,
            theirs.f1,
        )
        assert 0 <= mine.f1 <= 1
    assert one.rouge_l.f1 <= one.rouge1.f1 + 1e-12, "what is in order is shared"
    if a:
        assert rouge(a, [a]).rouge1.f1 == rouge(a, [a]).rouge_l.f1 == 1


@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_each_number_takes_its_best_reference_and_a_corpus_the_mean(rows):
    total = rouge_metrics(*zip(*rows, strict=True))
    for name in ("rouge1", "rouge2", "rouge_l"):
        best = [max(getattr(rouge(p, [r]), name).f1 for r in refs) for p, refs in rows]
        assert getattr(total, name).f1 == pytest.approx(sum(best) / len(best))


GUESS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
FIRST = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
SECOND = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]


def test_bleu_and_chrf_are_sacrebleus():
    """The examples of sacrebleu's README (2.6.0), with and without a reference for each text."""
    pytest.importorskip("sacrebleu")
    both = list(zip(FIRST, SECOND, strict=True))
    assert bleu(GUESS, both).score == pytest.approx(48.53, abs=0.005)
    assert chrf(GUESS, both).score == pytest.approx(59.73, abs=0.005)
    assert "tok:13a" in bleu(GUESS, both).signature
    fewer = [[SECOND[0]], *both[1:]]
    assert bleu(GUESS, fewer).score == pytest.approx(29.44, abs=0.005)


def test_chinese_bleu_cuts_characters():
    pytest.importorskip("sacrebleu")
    guess, gold = ["今天天气很好。"], [["今天天气很好！"]]
    assert bleu(guess, gold).score == 0, "without spaces it is one word"
    assert 50 < bleu(guess, gold, "zh").score < 100
    assert bleu(gold[0], gold, "zh").score == pytest.approx(100)
    assert chrf(gold[0], gold).score == pytest.approx(100)


def test_without_sacrebleu_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"chrF needs sacrebleu: pip install 'clozeworks\[gen\]'"):
        chrf(["a"], [["a"]])


def test_bad_input_is_named():
    with pytest.raises(UserError, match="no texts"):
        rouge_metrics([], [])
    with pytest.raises(UserError, match="1 texts and references for 2"):
        rouge_metrics(["a"], [["a"], ["b"]])
    with pytest.raises(UserError, match="no reference"):
        rouge_metrics(["a"], [[]])
    pytest.importorskip("sacrebleu")
    with pytest.raises(UserError, match="text 2 has no reference"):
        bleu(["a", "b"], [["a"], []])


def test_an_interval_is_given_where_some_draws_share_nothing():
    predicted = ["the lamp is broken", "xyz", "qqq", "www"]
    found = chrf(predicted, [["the lamp is broken"], ["abc"], ["def"], ["ghi"]], resamples=200)
    assert 0 == found.low < found.score < found.high <= 100
