"""Laws of choosing sentences by a reference: greedy as written, and no better choice of one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.metrics import extract
from clozeworks.metrics.extract import oracle, repeatable, said_again
from clozeworks.metrics.generate import rouge, rouge_words

WORDS = ["lamp", "late", "order", "灯", "快", "the"]
sentence = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)


def score(sentences, reference):
    """ROUGE-1 and ROUGE-2, runs of two words within sentences alone, added up."""
    one = rouge(" ".join(sentences), [reference]).rouge1.f1
    wanted = list(zip(rouge_words(reference), rouge_words(reference)[1:], strict=False))
    found = [
        pair for s in sentences for pair in zip(rouge_words(s), rouge_words(s)[1:], strict=False)
    ]
    left, shared = list(wanted), 0
    for pair in found:
        if pair in left:
            left.remove(pair)
            shared += 1
    return one + (2 * shared / (len(wanted) + len(found)) if shared else 0.0)


@given(
    st.lists(sentence, max_size=6), st.lists(sentence, min_size=1, max_size=2), st.integers(1, 4)
)
def test_the_oracle_takes_what_adds_most_as_long_as_anything_does(sentences, references, most):
    found = oracle(sentences, references, most)
    assert list(found) == sorted(set(found)) and len(found) <= most

    def least(reference, taken=(), best=0.0):
        """What a greedy choice comes to at least: where two add the same, either may be taken."""
        left = [i for i in range(len(sentences)) if i not in taken]
        worths = {i: score([sentences[j] for j in (*taken, i)], reference) for i in left}
        top = max(worths.values(), default=0.0)
        if len(taken) == most or top <= best + 1e-9:
            return best
        equal = [i for i, worth in worths.items() if worth > top - 1e-9]
        return min(least(reference, (*taken, i), top) for i in equal)

    reached = max(score([sentences[i] for i in found], r) for r in references)
    assert reached >= max(map(least, references)) - 1e-9


def test_the_sentences_of_a_reference_are_found_whatever_stands_around():
    chance = random.Random(0)
    for _ in range(50):
        texts = [" ".join(chance.choices("abcdefghij", k=6)) for _ in range(8)]
        kept = sorted(chance.sample(range(8), 2))
        assert set(kept) & set(oracle(texts, [" ".join(texts[i] for i in kept)], 2))
    assert oracle(["我买了灯", "天气很好", "the lamp"], ["天气很好。"], 3) == (1,)
    assert oracle(["a", "b"], ["c"], 3) == ()


def test_a_choice_is_remembered_and_another_question_is_not_taken_for_it(monkeypatch):
    texts = ["the red lamp", "a late order", "the lamp order"]
    first = oracle(texts, ["late red lamp"], 2)
    monkeypatch.setattr(extract, "_Greedy", None)
    assert oracle(texts, ["late red lamp"], 2) == first
    with pytest.raises(TypeError):
        oracle(texts, ["late red lamp"], 1)
    with pytest.raises(TypeError):
        oracle([*texts[:2], "the lamp", "order"], ["late red lamp"], 2)


@pytest.mark.parametrize(
    ("one", "other", "again"),
    [
        ("The red lamp is here", "a the red lamp!", True),
        ("the red lamp", "red lamp the", False),
        ("我们提出一种方法", "他们提出一种方法。", True),
        ("我们提出方法", "他们提出方法", False),
        ("用 BERT 的模型", "BERT 的模型好", False),
        ("", "", False),
    ],
)
def test_three_words_or_six_characters_in_a_row_are_said_again(one, other, again):
    words = rouge_words(one), rouge_words(other)
    assert said_again(words[0], repeatable(words[1])) is again
