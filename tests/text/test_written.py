"""Laws of writing tokens out: read again they are the same tokens, and print's rules are kept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.text.written import written
from tiny import TOKENIZER, VOCABULARY

SIGNS = (
    ".,;:!?'\"()[]{}-/_@#$%&*+=<>|~`^\\"
    "\u2018\u2019\u201c\u201d\u2013\u2014\u2026，。！？；：“”（）《》、"
)
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("abc 1290我们，。Ａé\u0301[]" + SIGNS),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(ANY_TEXT)
def test_what_is_written_out_is_read_as_the_same_tokens(text):
    (ids,) = TOKENIZER.tokenize([text])
    out = written(VOCABULARY.pieces[i] for i in ids.tolist())
    (again,) = TOKENIZER.tokenize([out])
    assert again.tolist() == ids.tolist()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(["a", "ab", "12", "3", "s", "t", "好", "##b", *SIGNS]), max_size=30)
)
def test_no_two_spaces_none_at_the_ends_and_none_beside_chinese(pieces):
    out = written(pieces)
    assert out == out.strip() and "  " not in out
    wide = "好，。！？；：（）《》、"
    assert not any(f"{c} " in out or f" {c}" in out for c in wide)
    letters = "".join(p.removeprefix("##") if len(p) > 2 else p for p in pieces)
    assert out.replace(" ", "") == letters


@pytest.mark.parametrize(
    "text",
    [
        "it's late, isn't it?",
        "the lamp (a blue one) costs $3.50, not 1,200.",
        'she said "no" and left.',
        "they're well-known; see a/b at 12:30.",
        "10% of the u.s. left in 1990–95.",
        "“so,” he said, “we’ll see…”",
        "what?! no...",
        "the dogs' ears",
        "o'clock",
        "mail me at joe@home",
        "lists: one, two, 3, 4",
        "我们在2019年用bert模型，效果很好。",
        "“你好！”他说：“我要退款（三次）。”",
        "价格是3.5元，共1,200件。",
    ],
)
def test_text_as_it_is_printed_comes_back(text):
    pieces = []
    for word in TOKENIZER.words(text):
        pieces += [word]
    assert written(pieces) == text
