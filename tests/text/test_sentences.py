"""Laws of sentence splitting, and the cases a reader would check."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.text.sentences import LONGEST, sentence_spans

PIECES = ["Mr.", "Hello", "a", "B", "U.S.", "3.14", "1.", "x" * 200, "字" * 200, "他说"]
MARKS = [" ", "  ", "\n", "\n\n", "\u3000", *".!?…。？」\"'，,()", "！”", "：“"]
pieces = st.sampled_from([*PIECES, *MARKS])


@given(st.lists(pieces, max_size=30).map("".join) | st.text())
@settings(max_examples=400, deadline=None)
def test_spans_cover_every_character_once_in_order(text):
    spans = sentence_spans(text)
    covered = [False] * len(text)
    last = 0
    for start, end in spans:
        assert last <= start < end <= len(text)
        assert not text[start].isspace() and not text[end - 1].isspace()
        assert end - start <= LONGEST
        covered[start:end] = [True] * (end - start)
        last = end
    assert all(covered[i] or c.isspace() for i, c in enumerate(text))


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["One.", "Two!", "Three?", "Four"],
        ["Mr. Smith met Dr. Who, e.g. at 3.14 p.m. in St. Ives.", "Then he left."],
        ["J. R. R. Tolkien and I. A. Richards wrote.", "So did I.", "Yes."],
        ["He moved to Washington, D.C.", "In 1998 the U.S. Army hired him.", "Fine."],
        ["Then... nothing.", "Then...", "Nothing."],
        ["See No. 5 and pp. 7.", "He said no.", "She did not."],
        ['"Why?" she asked.', '"Because."', "(He left.)", "“Stop!” he said."],
        ["Apple Inc. makes phones vs. Samsung etc. and so on.", "Ok."],
        ["See www.example.com/?q=1.5 or a/b.", "Right?!", "Yes!!!"],
        ["what?", "no way!", "ok"],
        ["It was 1998.", "The year ended."],
    ],
)
def test_english(sentences):
    assert split(" ".join(sentences)) == sentences
    assert split("\n\n".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["他说：“你好！”", "然后走了。", "真的吗？！", "我不知道……", "算了。"],
        ["「好。」", "她道。", "『走吧！』", "（完。）", "《书》很好"],
        ["“好。”，他说。", "“行！”——他又说。"],
        ["你好!", "我是小明.", "他是谁?", "不知道"],
        ["他来了。", '"你好。"', "她说。"],
        ["价格是3.14元。", "Python很好.", "我们用它。"],
        ["Dr.王来了。", "A.苹果 B.香蕉。", "是！"],
        ["我用BERT。", "It works.", "很好！"],
    ],
)
def test_chinese(sentences):
    assert split("".join(sentences)) == sentences


def test_single_line_end_is_white_space_and_blank_line_is_not():
    assert split("one two\nthree. \n  \nfour\n") == ["one two\nthree.", "four"]


@pytest.mark.parametrize("clause", ["some words here, ", "一些词语在这里，", "word ", "a,   "])
def test_endless_run_is_cut_at_clauses_or_spaces(clause):
    parts = split(clause * 500)
    assert len(parts) > 3
    assert all(LONGEST / 2 <= len(part) <= LONGEST for part in parts[:-1])
    assert all(part.endswith(clause.strip()) for part in parts)


HOSTILE = [
    "." * 300_000 + "x",
    "x" * 300_000,
    "\n" + " " * 300_000 + "x",
    *(part * 100_000 for part in (" \n", '."', '。"', ").(", "a. b", "。，")),
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:4]))
def test_hostile_text_takes_linear_time(text):
    start = time.perf_counter()
    sentence_spans(text)
    assert time.perf_counter() - start < 3
