"""Laws of new pieces: old text keeps its ids, each piece is the best choice when it is chosen."""

import json
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.text import extend
from clozeworks.text.extend import Words, cut, find_pieces, read_pieces
from clozeworks.text.load import load_tokenizer
from tiny import TOKENIZER

NEW = ["refundable", "##ing", "parcelled", "国", "##xq", "zz"]
STEMS = ["refund", "parcel", "retino", "nephro", "cardio"]
ENDS = ["pathy", "able", "ing", "logist", "graphy", ""]


def corpus(seed=0, lines=200):
    """Lines of words with common stems and ends, and Chinese, some of it unknown."""
    chance = random.Random(seed)
    made = [stem + end for stem in STEMS for end in ENDS]
    weights = [1 / (i + 1) for i in range(len(made))]
    return [
        f"{' '.join(chance.choices(made, weights, k=8))} 我要退款，{chance.choice('国锦绣鲤')}。"
        for _ in range(lines)
    ]


def parts(piece):
    return piece.removeprefix("##")


@given(st.lists(st.text("abdefgilnoprquxz我国要 ,", max_size=12), max_size=8))
def test_a_text_without_new_pieces_keeps_its_ids(words):
    more = TOKENIZER.with_pieces(NEW)
    text = " ".join(words)
    before, after = TOKENIZER.tokenize([text])[0].tolist(), more.tokenize([text])[0].tolist()
    seen = more.words(text)
    if not any(parts(piece) in word for piece in NEW for word in seen):
        assert after == before
    assert more.pieces == [*TOKENIZER.pieces, *NEW]
    assert more.hash != TOKENIZER.hash


@given(st.lists(st.text("abcdexyz", min_size=1, max_size=12), max_size=30))
def test_cutting_a_word_is_what_the_library_does(words):
    pieces = TOKENIZER.pieces
    for word in words:
        found = cut(word, set(pieces))
        ids = TOKENIZER.tokenize([word])[0].tolist()
        assert [pieces[i] for i in ids] == (found or ["[UNK]"])


def test_tokens_are_counted_as_the_tokenizer_gives_them():
    lines = corpus()
    pieces, words = find_pieces(lambda: lines, TOKENIZER, 20, 5)
    more = TOKENIZER.with_pieces(pieces)
    for tokenizer in (TOKENIZER, more):
        ids = [i for line in tokenizer.tokenize(lines) for i in line.tolist()]
        unknown = ids.count(tokenizer.vocabulary.unknown)
        assert words.tokens(set(tokenizer.pieces)) == (len(ids), unknown)
    assert words.tokens(set(more.pieces))[0] < words.tokens(set(TOKENIZER.pieces))[0] / 2


def test_missing_chinese_characters_come_first_the_most_frequent_before_the_others():
    lines = corpus()
    counts = Words.of(lines, TOKENIZER).counts
    pieces, _ = find_pieces(lambda: lines, TOKENIZER, 10, 5)
    expected = sorted("国锦绣鲤", key=lambda c: (-counts[c], c))
    assert pieces[:4] == expected
    assert find_pieces(lambda: lines, TOKENIZER, 2, 5)[0] == expected[:2]


def saved(words, known, piece):
    """Tokens that a piece saves beside those known."""
    costs = [(extend._cost(w, known), extend._cost(w, {*known, piece})) for w in words.counts]
    return sum(n * (a - b) for n, (a, b) in zip(words.counts.values(), costs, strict=True))


def test_each_piece_saves_most_when_it_is_chosen():
    lines = corpus()
    pieces, words = find_pieces(lambda: lines, TOKENIZER, 12, 5)
    known = set(TOKENIZER.pieces) | set(pieces[:4])
    trained = extend.train_pieces(lambda: lines, extend.TokenizerSettings())
    for piece in pieces[4:]:
        best = max(saved(words, known, other) for other in trained if other not in known)
        assert saved(words, known, piece) == best >= 5, piece
        known.add(piece)


def test_pieces_that_save_too_little_are_not_added():
    lines = corpus()
    many, words = find_pieces(lambda: lines, TOKENIZER, 1000, 5)
    few, _ = find_pieces(lambda: lines, TOKENIZER, 1000, 300)
    assert 0 < len(few) < len(many) < 1000
    known = set(TOKENIZER.pieces)
    for piece in few:
        assert saved(words, known, piece) >= 300
        known.add(piece)
    with pytest.raises(UserError, match="no piece would save 5 tokens or more"):
        find_pieces(lambda: ["the order is late"] * 9, TOKENIZER, 10, 5)


FIND = """
import json, sys
from test_extend_pieces import TOKENIZER, corpus, find_pieces
print(json.dumps(find_pieces(corpus, TOKENIZER, 40, 2)[0]))
"""


def test_the_same_text_gives_the_same_pieces_in_every_process():
    found = []
    for seed in ("1", "2"):
        path = os.pathsep.join(sys.path)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", FIND], env=environment, capture_output=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    assert len(found[0]) == len(set(found[0])) > 20


def test_only_so_many_words_are_held(monkeypatch):
    monkeypatch.setattr(extend, "WORDS_HELD", 20)
    lines = [f"w{'abcdefghij'[i % 10]}{'xyz'[i % 3]}q the" for i in range(300)]
    words = Words.of(lines, TOKENIZER)
    assert len(words.counts) <= 20
    assert words.counts["the"] == 300


def test_pieces_of_a_file_are_read_as_the_tokenizer_sees_text(tmp_path):
    path = tmp_path / "pieces.txt"
    path.write_text("Refundable\n\n##ING\n国\nlost\nréfundable\n", "utf-8")
    assert read_pieces(path, TOKENIZER) == ["refundable", "##ing", "国"]
    path.write_text("国\n", "gb18030")
    assert read_pieces(path, TOKENIZER, "gb18030") == ["国"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("type-2 diabetes", "line 2: .* apart into 4 words"),
        ("快递", "apart into 2 words"),
        ("##", "apart into 2 words"),
        ("x" * 101, "over 100 characters"),
    ],
)
def test_a_line_no_piece_can_stand_for_is_refused(tmp_path, line, words):
    path = tmp_path / "pieces.txt"
    path.write_text(f"refundable\n{line}\n", "utf-8")
    with pytest.raises(UserError, match=words):
        read_pieces(path, TOKENIZER)


def test_a_file_of_known_pieces_is_refused(tmp_path):
    path = tmp_path / "pieces.txt"
    path.write_text("lost\nparcel\n", "utf-8")
    with pytest.raises(UserError, match="names no piece that the vocabulary lacks"):
        read_pieces(path, TOKENIZER)


def test_an_extended_tokenizer_is_written_and_read(tmp_path):
    more = TOKENIZER.with_pieces(NEW)
    more.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.pieces, again.hash) == (more.pieces, more.hash)
    assert (tmp_path / "vocab.txt").read_text("utf-8").splitlines() == more.pieces
    texts = ["refundable parcelled nothing 国", "axq zz"]
    for one, other in zip(again.tokenize(texts), more.tokenize(texts), strict=True):
        assert one.tolist() == other.tolist()
    assert {more.pieces[i] for line in more.tokenize(texts) for i in line} >= {"##ing", "##xq"}
