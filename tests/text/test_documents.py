"""Laws of documents in windows: whole sentences, all of them, in bounded size."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.text.documents import Limits, as_one, sentence_windows, sentences_in_windows
from tiny import TOKENIZER, VOCABULARY

ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=40,
)


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(20, 50), st.integers(0, 40))
def test_windows_hold_every_sentence_and_share_no_more_than_they_should(lengths, room, shared):
    found = sentence_windows(lengths, room, shared)
    assert found[0][0] == 0 and found[-1][1] == len(lengths)
    assert all(sum(lengths[a:b]) <= room for a, b in found)
    for (start, stop), (following, end) in pairwise(found):
        assert start < following <= stop < end
        assert sum(lengths[following:stop]) <= shared


@given(st.lists(ANY_TEXT, max_size=6))
def test_sentences_stand_in_the_text_that_they_make(sentences):
    text, spans = as_one(sentences)
    assert [text[a:b] for a, b in spans.tolist()] == sentences
    assert all(a < b for (a, _), (b, _) in pairwise(spans.tolist()))
    assert len(text) <= sum(map(len, sentences)) + len(sentences)


def test_chinese_sentences_stand_close_and_others_apart():
    assert as_one(["我买了灯。", "它坏了！", "Why?", "退款"])[0] == "我买了灯。它坏了！Why? 退款"
    said = ["他说：“好。”", "她走了……", "雨停了——", "“OK”", "Then “yes”", "好"]
    assert as_one(said)[0] == "他说：“好。”她走了……雨停了——“OK” Then “yes” 好"


@given(st.lists(ANY_TEXT, max_size=8), st.integers(0, 16))
def test_every_sentence_has_special_tokens_of_its_own_and_what_is_cut_is_counted(texts, shared):
    text, spans = as_one(texts)
    (found,) = sentences_in_windows([(text, spans)], TOKENIZER, Limits(24, shared, 10))
    seen = {}
    for sequence in found:
        assert len(sequence) <= 24
        if len(sequence.rows):
            assert (sequence.ids[sequence.rows] == VOCABULARY.cls).all()
        ends = [*sequence.rows.tolist(), len(sequence)]
        for number, (begin, end) in enumerate(pairwise(ends)):
            assert sequence.ids[end - 1] == VOCABULARY.sep
            assert set(sequence.segments[begin:end].tolist()) == {number % 2}
            seen[int(sequence.units[number, 0])] = sequence.ids[begin + 1 : end - 1]
    assert list(seen) == spans[:, 0].tolist()
    whole = TOKENIZER.tokenize(texts)
    assert sum(s.truncated for s in found) == sum(max(0, len(ids) - 10) for ids in whole)
    assert all(np.array_equal(ids[:10], own) for ids, own in zip(whole, seen.values(), strict=True))
