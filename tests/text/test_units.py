"""Laws of what may carry a tag, or be an answer: whole words and tokens, whatever the tokenizer."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tokenizer_kinds import KINDS

from clozeworks.text.load import load_tokenizer
from clozeworks.text.units import joined, paired, token_windows, windowed
from tiny import TOKENIZER

TEXTS = [
    "Li lives in New York City",
    "The parcel came late! naïve  café",
    "我昨天下的单 came late ",
    "",
]
TOKENS = [
    ["Li", "lives", "in", "New", "York", "City"],
    list("我昨天下的单什么时候发货"),
    ["came", "late", "!", "我", "昨", "天"],
]


@pytest.fixture(scope="module", params=["wordpiece", *KINDS])
def tokenizer(request, tmp_path_factory):
    """One of ours, and one of every other kind."""
    if request.param == "wordpiece":
        return TOKENIZER
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param]().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": None}))
    return load_tokenizer(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_words_have_no_space_around_them(tokenizer, text):
    (found,) = windowed(text, None, tokenizer, 10_000, 0)
    words = [text[a:b] for a, b in found.units.tolist()]
    assert "".join(words) == "".join(text.split())
    assert all(word == word.strip() != "" for word in words)
    if "New" in text:
        assert words == text.split()


@pytest.mark.parametrize("tokens", TOKENS)
def test_every_token_is_in_the_unit_that_its_own_first_piece_stands_for(tokenizer, tokens):
    text, bounds = joined(tokens)
    (found,) = windowed(text, bounds, tokenizer, 10_000, 0)
    units = found.units.tolist()
    assert units[0][0] == 0 and units[-1][1] == len(text)
    inside = [
        [k for k, (a, b) in enumerate(units) if a <= x and y <= b] for x, y in bounds.tolist()
    ]
    assert all(len(own) == 1 for own in inside), "in one unit each, whole"
    whole = tokenizer.encode(text)
    for row, (start, end) in zip(found.rows.tolist(), units, strict=True):
        first, last = whole.spans[row].tolist()
        assert first + len(text[first:last]) - len(text[first:last].lstrip()) == start < end


@pytest.mark.parametrize("text", TEXTS)
def test_answers_begin_and_end_where_something_stands(tokenizer, text):
    found = paired("when?", text, tokenizer, (24, 2, 8))
    spans = {tuple(span) for sequence in found for span in sequence.units.tolist()}
    said = [text[a:b] for a, b in sorted(spans) if text[a:b].strip()]
    assert all(piece == piece.lstrip() for piece in said)


@given(st.lists(st.text(st.sampled_from("ab我天昨 é\u0301"), min_size=1, max_size=4), max_size=9))
def test_units_of_tokens_follow_one_another(tokens):
    text, bounds = joined(tokens)
    for found in windowed(text, bounds, TOKENIZER, 12, 3):
        units = found.units
        assert (units[:, 0] < units[:, 1]).all() and (units[1:, 0] >= units[:-1, 1]).all()
        assert len(np.unique(found.rows)) == len(found.rows) == len(units)


def test_blanks_at_the_ends_take_no_room_from_the_text(tokenizer):
    """As columns of fixed width leave them."""
    text = "  " + "late lost " * 20 + " " * 300
    found = windowed(text, None, tokenizer, 32, 8)
    assert max(map(len, found)) <= 32
    words = {tuple(unit) for sequence in found for unit in sequence.units.tolist()}
    assert len(words) == 40
    scored = token_windows(text, tokenizer.encode(text), tokenizer, 32)
    assert max(map(len, scored)) <= 32
    for empty in ("", "   "):
        (alone,) = token_windows(empty, tokenizer.encode(empty), tokenizer, 32)
        assert len(alone) == len(tokenizer.encode(empty))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("天气ok", ["天", "气", "ok"]),
        ("cafe\u0301s late", ["cafe\u0301s", "late"]),
        ("हिन्दी late", ["हिन्दी", "late"]),
    ],
)
def test_marks_and_bytes_begin_no_word(text, words, tmp_path):
    KINDS["modernbert"]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": None}))
    tokenizer = load_tokenizer(tmp_path)
    (found,) = windowed(text, None, tokenizer, 1000, 0)
    assert [text[a:b] for a, b in found.units.tolist()] == words
