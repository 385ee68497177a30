"""Laws of training: the same bytes everywhere, the size asked for, nothing unreachable."""

import hashlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.bundle import Fold
from clozeworks.core.errors import UserError
from clozeworks.text.audit import audit
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from clozeworks.text.train import (
    ENOUGH_COVERAGE,
    TokenizerSettings,
    ranked_characters,
    train_tokenizer,
)

ENGLISH = ["stamen", "petal", "sepal", "pollen", "nectar", "corolla", "calyx", "anther"]
CHINESE = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少白日依山尽黄河入海流欲穷千里目更上一层楼"


def corpus(seed: int = 0, lines: int = 400) -> list[str]:
    """Lines of made-up English and Chinese with many equal counts, so that ties abound."""
    draw = random.Random(seed)
    made = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 9))) for _ in range(300)]
    return [
        " ".join(draw.choices(ENGLISH + made, k=8))
        + ", "
        + "".join(draw.choices(CHINESE, k=12))
        + f"。Nº {draw.randint(1, 99)}é!"
        for _ in range(lines)
    ]


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from test_tokenizer_training import corpus
from clozeworks.core.log import silence
from clozeworks.text.train import TokenizerSettings, train_tokenizer
lines = corpus()
with silence():
    train_tokenizer(lambda: iter(lines), TokenizerSettings(vocab_size=900)).save(sys.argv[1])
"""


def test_bytes_are_equal_in_separate_processes(tmp_path):
    digests = set()
    for seed in ("0", "1", "2024"):
        folder = tmp_path / seed
        command = [sys.executable, "-c", SCRIPT, str(folder), str(Path(__file__).parent)]
        threads = {"TOKENIZERS_PARALLELISM": "false" if seed == "1" else "true"}
        environment = {**os.environ, "PYTHONHASHSEED": seed, **threads}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        files = sorted(folder.iterdir())
        assert [f.name for f in files] == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
        digests.add(hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(4))
def test_training_twice_gives_the_same_pieces(seed):
    lines = corpus(seed)
    wanted = TokenizerSettings(vocab_size=700)
    first = train_tokenizer(lambda: iter(lines), wanted)
    for _ in range(3):
        draw = random.Random(seed)
        shuffled = draw.sample(lines, len(lines))
        assert train_tokenizer(lambda s=shuffled: iter(s), wanted).pieces == first.pieces


@pytest.mark.parametrize("size", [200, 301, 900])
def test_size_is_what_was_asked_and_no_piece_is_unreachable(size):
    lines = corpus()
    tokenizer = train_tokenizer(lambda: lines, TokenizerSettings(vocab_size=size))
    assert len(tokenizer.pieces) == len(set(tokenizer.pieces)) == size
    assert tuple(tokenizer.pieces[:5]) == SPECIAL
    inner = {p[2:] for p in tokenizer.pieces if p.startswith("##")}
    assert inner and not inner & set(CHINESE + "。,!")
    assert {"春", "。", "a", "##a", "e"} <= set(tokenizer.pieces)
    assert not any(any(c.isupper() or c == "é" for c in p) for p in tokenizer.pieces[5:])
    unknown = tokenizer.vocabulary.unknown
    assert not any(unknown in ids for ids in tokenizer.tokenize(lines))


def test_more_than_a_thousand_characters_are_kept():
    line = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    tokenizer = train_tokenizer(
        lambda: [line], TokenizerSettings(vocab_size=3005, alphabet_share=1)
    )
    assert tokenizer.pieces == [*SPECIAL, *line]


def test_rare_characters_become_unknown_and_words_around_them_do_not():
    lines = [*corpus(), "petal 龘 Ж petal"]
    wanted = TokenizerSettings(vocab_size=600, rarest_character=1e-3)
    tokenizer = train_tokenizer(lambda: lines, wanted)
    assert "龘" not in tokenizer.pieces and "ж" not in tokenizer.pieces
    ids = tokenizer.tokenize(["petal龘petal"])[0]
    assert [tokenizer.pieces[i] for i in ids] == ["petal", "[UNK]", "petal"]


@given(
    counts=st.dictionaries(
        st.sampled_from("abcdexyz,.!你好吗国后"), st.integers(1, 10_000), min_size=1
    ),
    rarest=st.sampled_from([0, 0.01, 0.1]),
)
@settings(max_examples=200, deadline=None)
def test_characters_are_ranked_with_the_forms_that_text_can_use(counts, rarest):
    ranked = ranked_characters(counts, Tokenizer.of(SPECIAL), rarest)
    kept = [piece for piece in ranked if len(piece) == 1]
    assert set(kept) == {c for c in counts if counts[c] >= rarest * sum(counts.values())}
    assert [counts[c] for c in kept] == sorted((counts[c] for c in kept), reverse=True)
    assert {p[2:] for p in ranked if len(p) > 1} == {c for c in kept if c in "abcdexyz"}


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_alphabet_keeps_to_its_share_or_to_what_covers_the_text(share):
    lines = [*corpus(), "".join(map(chr, range(0x5000, 0x5200)))]
    wanted = TokenizerSettings(vocab_size=400, alphabet_share=share)
    tokenizer = train_tokenizer(lambda: lines, wanted)
    alphabet = [p for p in tokenizer.pieces[5:] if len(p.removeprefix("##")) == 1]
    assert len(tokenizer.pieces) == 400
    assert audit(tokenizer, lines).character_coverage >= ENOUGH_COVERAGE
    if share > 0.1:
        assert len(alphabet) == int(400 * share) - 5


@pytest.mark.parametrize("share", [0.1, 0.7, 1.0])
def test_what_joining_leaves_over_goes_to_rarer_characters(share):
    lines = ["petal 花 " + "春眠不觉晓" * 1000, CHINESE]
    settings = TokenizerSettings(vocab_size=50, alphabet_share=share)
    tokenizer = train_tokenizer(lambda: lines, settings)
    assert len(set(CHINESE) & set(tokenizer.pieces)) >= len(set(CHINESE)) - 10


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TokenizerSettings(vocab_size=13, alphabet_share=1, fold=Fold(width=True)), "abc"),
        (TokenizerSettings(vocab_size=13, alphabet_share=1), "ａｂｃ"),
        (TokenizerSettings(vocab_size=13, alphabet_share=1, lowercase=False), "ＡＢＣ"),
    ],
)
def test_folding_and_case_are_learnt_as_they_will_be_read(wanted, expected):
    tokenizer = train_tokenizer(lambda: ["ＡＢＣ"] * 50, wanted)
    assert tokenizer.pieces[-1] == expected
    assert (tokenizer.lowercase, tokenizer.fold) == (wanted.lowercase, wanted.fold)


@pytest.mark.parametrize(
    ("lines", "size", "message"),
    [
        ([], 100, "holds no text"),
        ([" \t ", ""], 100, "holds no text"),
        (["a small corpus, a corpus"], 5000, "5,000: it gives .* use --vocab-size "),
        ([CHINESE], 20, r"too small for the characters .* use --vocab-size 4\d"),
        (["fine", "not\ud800fine"], 100, r"lone surrogate \(U\+D800\)"),
    ],
)
def test_bad_corpora_are_refused_with_a_remedy(lines, size, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer(lambda: lines, TokenizerSettings(vocab_size=size))


@pytest.mark.parametrize("size", [6, 60, 50_000])
@pytest.mark.parametrize("lines", [corpus(lines=30), [CHINESE * 3, "petal petal"]])
def test_the_size_an_error_names_is_possible(lines, size):
    with pytest.raises(UserError) as raised:
        train_tokenizer(lambda: lines, TokenizerSettings(vocab_size=size))
    named = int(re.search(r"--vocab-size (\d+)", str(raised.value))[1])
    tokenizer = train_tokenizer(lambda: lines, TokenizerSettings(vocab_size=named))
    assert len(tokenizer.pieces) == named


def test_a_word_of_a_megabyte_teaches_nothing_and_costs_little():
    draw = random.Random(3)
    endless = "".join(draw.choices("abcdefgh", k=1_000_000))
    wanted = TokenizerSettings(vocab_size=500)
    lines = corpus()
    plain = train_tokenizer(lambda: lines, wanted)
    for before in ("", "中", "天气："):  # a Chinese character is a word of its own
        with_word = train_tokenizer(lambda before=before: [*lines, before + endless], wanted)
        assert set(with_word.pieces) <= {*plain.pieces, *before, *(f"##{c}" for c in before)}
