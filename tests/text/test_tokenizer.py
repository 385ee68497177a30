"""Laws of the tokenizer: parity with transformers, spans, truncation, refusals."""

import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizerFast

from clozeworks.core.bundle import Fold
from clozeworks.core.errors import UserError
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import SPECIAL, Tokenizer, shares

NASTY = [
    "",
    "   \t\n ",
    "Hello, world! It's 3.14 — isn't it?",
    "我爱北京天安门,BERT模型123。「引號」“引号”……",
    "Ünïcödé naïve café Ångström ﬁ ß İstanbul ΑΣ ǅ",
    "\U00020000\U0002a6d6\U0002b740\U0002b820\U0002b919\U0002ceb0\U00030000 㐀豈\U0002f800",
    "👩‍👩‍👧 🇨🇳 ❤️ 😀😁",
    "a\x00b\ufffdc\x07d\u200be\u00adf\x85g\u2028h\u3000i\ufeffj\x7fk",
    "ＡＢＣ１２３，。！ｶﾀｶﾅ",
    "ภาษาไทยไม่มีช่องว่าง",
    "e\u0301a\u0328\u0323 Z͑ͫ̓̏ͦ हिन्दी עִבְרִית عَرَبِيّ",
    "한국어 문장입니다 カタカナ ひらがな が",
    "w" * 100 + " " + "w" * 101 + " " + "é" * 100,
    "[MASK] [CLS]x[SEP] [mask] [UNK][PAD] [unused1]",
    "don't##stop ##ing ## #",
    "x_y a-b c/d e\\f ~`|^$<>+=",
    "№ ½ ² ™ € ¥ ﷼ Ⅷ ① ㊗ ㎏",
]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
scripts = st.text(
    st.sampled_from("abcABC éÉßİ\u0301\u0323你好后國𠀀𫠝，。!.,'[]#\t\u3000\u200b\x00ＡกＢ한ｶ😀"),
    max_size=60,
)


@pytest.fixture(scope="module", params=["minilm", "chinese", "cased"])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, BertTokenizerFast]:
    """One of the published vocabularies, opened by us and by transformers."""
    if request.param == "minilm":
        folder = request.getfixturevalue("minilm")
        return load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    path = request.getfixturevalue("vocabularies") / f"bert-base-{request.param}-vocab.txt"
    ours = load_tokenizer(path)
    theirs = BertTokenizerFast(vocab=str(path), do_lower_case=request.param != "cased")
    return ours, theirs


def assert_equal(ours: Tokenizer, theirs: BertTokenizerFast, one: str, two: str | None) -> None:
    # Lists, because transformers takes a lone empty pair for none at all.
    expected = theirs([one], None if two is None else [two], return_offsets_mapping=True)
    found = ours.encode(one, two)
    assert found.ids.tolist() == expected["input_ids"][0]
    assert found.segments.tolist() == expected["token_type_ids"][0]
    assert found.spans.tolist() == [list(span) for span in expected["offset_mapping"][0]]


@pytest.mark.parametrize("number", range(len(NASTY)))
def test_ids_segments_and_spans_equal_transformers(pair, number):
    ours, theirs = pair
    assert_equal(ours, theirs, NASTY[number], None)
    assert_equal(ours, theirs, NASTY[number], NASTY[number - 1])


@given(one=scripts | text, two=st.none() | scripts)
@settings(max_examples=80, deadline=None)
def test_any_text_equals_transformers(pair, one, two):
    assert_equal(*pair, one, two)


@given(lengths=st.tuples(st.integers(0, 12), st.integers(0, 12)), room=st.integers(5, 20))
@settings(max_examples=60, deadline=None)
def test_truncation_equals_transformers_and_counts_what_went(pair, lengths, room):
    ours, theirs = pair
    one, two = ("a " * n for n in lengths)
    expected = theirs([one], [two], truncation=True, max_length=room)
    found = ours.encode(one, two, max_length=room)
    assert found.ids.tolist() == expected["input_ids"][0]
    assert found.segments.tolist() == expected["token_type_ids"][0]
    assert len(found) + found.truncated == sum(lengths) + 3
    alone = ours.encode(one, max_length=room)
    assert len(alone) == min(room, lengths[0] + 2)
    assert len(alone) + alone.truncated == lengths[0] + 2


@given(st.integers(0, 50), st.integers(0, 50), st.integers(2, 60))
@settings(deadline=None)
def test_shares_fill_the_room_and_never_cut_the_shorter_side_first(first, second, room):
    a, b = shares(first, second, room)
    assert a + b == min(first + second, room)
    assert a <= first and b <= second
    if (a, b) != (first, second):
        shorter = min(first, second)
        assert min(a, b) == min(shorter, room // 2)


@given(one=scripts, two=scripts, fold=st.builds(Fold, width=st.booleans()))
@settings(max_examples=80, deadline=None)
def test_spans_are_characters_of_the_text_given(small, one, two, fold):
    tokenizer = Tokenizer.of(small.pieces, fold=fold)
    sequence = tokenizer.encode(one, two)
    for piece, segment, (start, end) in zip(
        sequence.ids, sequence.segments, sequence.spans, strict=True
    ):
        name = tokenizer.pieces[piece]
        if name not in SPECIAL:
            covered = (two if segment else one)[start:end]
            assert tokenizer.normalise(covered).strip() == name.removeprefix("##")


def test_spans_survive_folding(small):
    pytest.importorskip("opencc")
    tokenizer = Tokenizer.of(small.pieces, fold=Fold(width=True, simplified=True))
    words = "你好嗎？ ＣＡＴ 後國"
    sequence = tokenizer.encode(words)
    assert tokenizer.pieces[sequence.ids[3]] == "吗"
    assert [words[a:b] for a, b in sequence.spans[1:-1]] == [*"你好嗎？", "ＣＡＴ", *"後國"]
    assert tokenizer.decode(sequence.ids) == "你好吗? cat 后国"


def test_batch_equals_one_by_one_and_tokenize_is_the_inside(small):
    texts = ["the cat, 你好", "", "cats"] * 500  # more than one chunk of the library
    batch = small.encode_batch(texts, texts[::-1], 12)
    plain = small.encode_batch(texts, texts[::-1], 12, spans=False)
    for i in (0, 1, 2, 1023, 1024, 1499):
        alone = small.encode(texts[i], texts[-1 - i], max_length=12)
        assert np.array_equal(batch[i].ids, alone.ids)
        assert np.array_equal(batch[i].spans, alone.spans)
        assert np.array_equal(plain[i].ids, alone.ids) and plain[i].spans is None
        assert batch[i].truncated == alone.truncated
        inside = small.tokenize([texts[i]])[0]
        assert np.array_equal(inside, small.encode(texts[i]).ids[1:-1])
        assert inside.dtype == np.int64


def test_megabyte_word_is_one_unknown_quickly(small):
    start = time.perf_counter()
    sequence = small.encode("x" * 1_000_000)
    assert time.perf_counter() - start < 5
    assert sequence.ids.tolist() == [2, 1, 3]
    assert sequence.spans[1].tolist() == [0, 1_000_000]


@pytest.mark.parametrize("fold", [Fold(), Fold(width=True)])
def test_refuses_what_is_not_text(small, fold):
    tokenizer = Tokenizer.of(small.pieces, fold=fold)
    with pytest.raises(UserError, match=r"text 1 .*U\+D800.* at character 2"):
        tokenizer.encode_batch(["fine", "ab\ud800"])
    with pytest.raises(UserError, match="text 1025 is not text but NoneType"):
        tokenizer.tokenize(["fine"] * 1025 + [None])
    with pytest.raises(UserError, match=r"U\+DFFF"):
        tokenizer.encode("fine", "\udfff")
    with pytest.raises(UserError, match=r"max_length 4 .* use 5 or more"):
        tokenizer.encode("a", "b", max_length=4)


def test_refuses_a_vocabulary_without_special_tokens():
    with pytest.raises(UserError, match=r"no \[CLS\], \[MASK\]"):
        Tokenizer.of(["[PAD]", "[UNK]", "[SEP]", "a"])


def test_decode_reads_well(small):
    ids = small.encode("the cats sat, 你好!", "你好吗? unable").ids
    assert small.decode(ids) == "the cats sat, 你好! 你好吗? unable"
    assert small.decode(small.encode("the [MASK] zzz").ids) == "the [MASK] [UNK]"


@pytest.mark.parametrize("lowercase", [True, False])
def test_saved_folder_opens_in_transformers_with_equal_ids(small, tmp_path, lowercase):
    ours = Tokenizer.of([*small.pieces, "Cat"], lowercase=lowercase)
    ours.save(tmp_path, max_length=64)
    for theirs in (
        AutoTokenizer.from_pretrained(tmp_path),
        BertTokenizerFast.from_pretrained(tmp_path),
    ):
        assert theirs.model_max_length == 64
        assert len(theirs) == len(ours.pieces)
        for words in [*NASTY, "the Cat sat 你好 unable Cats"]:
            assert_equal(ours, theirs, words, None)
            assert_equal(ours, theirs, words, "cat 你")
    assert (tmp_path / "vocab.txt").read_text("utf-8").split("\n")[:-1] == ours.pieces


def test_hash_tells_apart_what_gives_other_ids(small, tmp_path):
    same = Tokenizer.of(small.pieces)
    others = [
        Tokenizer.of(small.pieces, lowercase=False),
        Tokenizer.of(small.pieces, strip_accents=False),
        Tokenizer.of(small.pieces, chinese_characters=False),
        Tokenizer.of(small.pieces, fold=Fold(width=True)),
        Tokenizer.of(small.pieces[:-1]),
        Tokenizer.of([*small.pieces[:-2], *small.pieces[:-3:-1]]),
    ]
    assert same.hash == small.hash
    for folder, change in (("short", {"max_input_chars_per_word": 3}), ("dirty", None)):
        small.save(tmp_path / folder)
        file = tmp_path / folder / "tokenizer.json"
        values = json.loads(file.read_text("utf-8"))
        values["model"] |= change or {}
        values["normalizer"] |= {"clean_text": False} if change is None else {}
        file.write_text(json.dumps(values), "utf-8")
        others.append(load_tokenizer(tmp_path / folder))
    assert len({small.hash, *(other.hash for other in others)}) == 9


def test_travels_to_another_process(small):
    again = pickle.loads(pickle.dumps(Tokenizer.of(small.pieces, fold=Fold(width=True))))
    assert again.encode("Ａ cat").ids.tolist() == small.encode("A cat").ids.tolist()
