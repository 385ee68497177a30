"""Laws of words: English by the pieces' marks, Chinese by a segmenter, punctuation always apart."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tokenizer_kinds import KINDS

from clozeworks.core.bundle import Fold
from clozeworks.text.load import load_tokenizer
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.segmenters.base import Segmenter
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from clozeworks.text.words import WordBounds

LETTERS = [chr(code) for code in range(33, 127)]
HAN = "我爱北京天安门在买了手机价格是美元大学生研究命的起源们他卡拉，。！？《》、"
PIECES = [*SPECIAL, *LETTERS, *HAN, *(f"##{c}" for c in LETTERS + list(HAN) if c.isalnum())]


class Pairs(Segmenter):
    """Cuts runs into words of two characters, so that a test knows what to expect."""

    name = "pairs"

    def cut(self, run):
        return [run[i : i + 2] for i in range(0, len(run), 2)]


def words_of(text, tokenizer, segmenter):
    """The text's words as the pieces they are of, marks left out."""
    ((ids, begins),) = WordBounds(tokenizer, segmenter).tokenize([text])
    assert ids.tolist() == tokenizer.tokenize([text])[0].tolist()
    assert begins.dtype == np.bool_ and len(begins) == len(ids)
    assert begins[:1].all()
    words = []
    for i, starts in zip(ids.tolist(), begins.tolist(), strict=True):
        piece = tokenizer.pieces[i].removeprefix("##")
        words += [piece] if starts else []
        words[-1] += "" if starts else piece
    return words


def small(**settings):
    return Tokenizer.of(PIECES, **settings)


ENGLISH = {
    "The kettle's broken, isn't it?": "the kettle ' s broken , isn ' t it ?",
    "state-of-the-art (e.g. 3.5%)": "state - of - the - art ( e . g . 3 . 5 % )",
    "x": "x",
    "  a\tb\nc ": "a b c",
    "naïve café Déjà": "naive cafe deja",
    "cafe\u0301s": "cafes",
    "co\u00adop\u200berate": "cooperate",
    "": "",
}
PAIRED = {
    "我爱北京。他们": "我爱 北京 。 他们",
    "我爱北": "我爱 北",
    "我在Google买了iPhone手机": "我在 google 买了 iphone 手机",
    "卡拉OK，T恤": "卡拉 ok ， t [UNK]",
    "北\u200b京大\ufe00学": "北京 大学",
    "北 京大学": "北 京大 学",
    "《北京》、“大学”！": "《 北京 》 、 [UNK] 大学 [UNK] ！",
    "100美元of北京": "100 美元 of 北京",
    "北京ab大学": "北京 ab 大学",
}


@pytest.mark.parametrize(("text", "words"), [*ENGLISH.items(), *PAIRED.items()])
def test_words_are_these(text, words):
    assert words_of(text, small(), Pairs()) == words.split()


def test_case_and_accents_that_stay_part_no_word():
    tokenizer = Tokenizer.of([*PIECES, "É", "##é", "##\u0301"], lowercase=False)
    assert words_of("Cafés Été北京大学", tokenizer, Pairs()) == ["Cafés", "Été", "北京", "大学"]
    words = words_of("Cafe\u0301s 北京大学", tokenizer, Pairs())
    assert words == ["Cafe\u0301s", "北京", "大学"]


def test_full_width_forms_are_what_folding_makes_of_them():
    tokenizer = small(fold=Fold(width=True))
    assert words_of("ＡＢＣ北京，Ｘ１！", tokenizer, Pairs()) == ["abc", "北京", ",", "x1", "!"]


def test_the_segmenter_sees_simplified_characters():
    pytest.importorskip("opencc")
    seen = []

    class Spy(Pairs):
        def cut(self, run):
            seen.append(run)
            return super().cut(run)

    tokenizer = small(fold=Fold(simplified=True))
    assert words_of("我愛北京", tokenizer, Spy()) == ["我爱", "北京"]
    assert seen == ["我爱北京"]


def test_chinese_that_the_tokenizer_leaves_whole_is_cut_too():
    tokenizer = small(chinese_characters=False)
    assert words_of("北京大学生abc", tokenizer, Pairs()) == ["北京", "大学", "生", "abc"]


def test_a_token_over_a_cut_joins_both_words():
    tokenizer = Tokenizer.of([*PIECES, "京大"], chinese_characters=False)
    assert words_of("京大学生", tokenizer, Pairs()) == ["京大", "学生"]
    tokenizer = Tokenizer.of([*PIECES, "##京大"], chinese_characters=False)
    assert words_of("北京大学生们", tokenizer, Pairs()) == ["北京大学", "生们"]


JIEBA = {
    "我爱北京天安门": "我 爱 北京 天安门",
    "研究生命的起源": "研究 生命 的 起源",
    "我在Google买了iPhone，价格是100美元。": "我 在 google 买 了 iphone ， 价格 是 100 美元 。",
}


@pytest.mark.parametrize(("text", "words"), JIEBA.items())
def test_jieba_knows_words(text, words):
    pytest.importorskip("jieba")
    assert words_of(text, small(), pick_segmenter("jieba")) == words.split()


def test_without_words_every_character_is_one():
    words = words_of("我爱北京abc。", small(), pick_segmenter("characters"))
    assert words == ["我", "爱", "北", "京", "abc", "。"]


mixed = st.text(
    st.one_of(
        st.sampled_from("ab Z1 ,.'-!我爱北京天，。《\u200b\u0301é\ufe00Ａ\t\u3000"), st.characters()
    ),
    max_size=30,
).filter(lambda text: not any(unicodedata.category(c) == "Cs" for c in text))


def is_punctuation(piece):
    """As BERT has it."""
    ascii_sign = piece.isascii() and not piece.isalnum()
    return len(piece) == 1 and (unicodedata.category(piece)[0] == "P" or ascii_sign)


@given(st.lists(mixed, max_size=5))
def test_laws_of_any_text(texts):
    tokenizer = small()
    found = WordBounds(tokenizer, Pairs()).tokenize(texts)
    for text, (ids, begins) in zip(texts, found, strict=True):
        assert ids.tolist() == tokenizer.tokenize([text])[0].tolist()
        pieces = [tokenizer.pieces[i] for i in ids]
        for i, piece in enumerate(pieces):
            if piece.startswith("##"):
                assert not begins[i]
            elif is_punctuation(piece):
                assert begins[i]
                assert i + 1 == len(pieces) or begins[i + 1]
            elif piece.isascii() and piece not in SPECIAL:
                assert begins[i]
        alone = WordBounds(tokenizer, Pairs()).tokenize([text])[0]
        assert alone[1].tolist() == begins.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_other_tokenizers_have_words_by_spaces(kind, tmp_path):
    KINDS[kind]().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    text = "The parcel, so late?! 北京大学的，生命起源？ naïve cafe\u0301 is 🙂"
    ((ids, begins),) = WordBounds(tokenizer, Pairs()).tokenize([text])
    starts = [i for i, first in enumerate(begins.tolist()) if first] + [len(ids)]
    spans = tokenizer.tokenize_with_spans([text])[0][1]
    words = [text[spans[a, 0] : spans[b - 1, 1]].strip() for a, b in pairwise(starts)]
    expected = "The parcel , so late ? ! 北京 大学 的 ， 生命 起源 ？ naïve cafe\u0301 is 🙂"
    if kind == "xlm_roberta":  # its pieces may reach over the bounds of words
        assert {"The", "parcel", "late", "naïve", "is"} <= set(words)
    else:
        assert [word for word in words if word] == expected.split()


def test_real_byte_pairs_keep_their_words(public_data, tmp_path):
    import tokenizers
    from tokenizers import models, pre_tokenizers

    folder = public_data / "vocab"
    files = str(folder / "gpt2-vocab.json"), str(folder / "gpt2-merges.txt")
    library = tokenizers.Tokenizer(models.BPE.from_file(*files))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    roles = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    tokenizer = Tokenizer(library, roles=roles)
    text = "Unbelievably, antidisestablishmentarianism's “quoted” words… 我爱北京！"
    ((ids, begins),) = WordBounds(tokenizer, Pairs()).tokenize([text])
    spans = tokenizer.tokenize_with_spans([text])[0][1]
    starts = [i for i, first in enumerate(begins.tolist()) if first] + [len(ids)]
    words = [text[spans[a, 0] : spans[b - 1, 1]].strip() for a, b in pairwise(starts)]
    expected = "Unbelievably , antidisestablishmentarianism 's “ quoted ” words … 我爱 北京 ！"
    assert words == expected.split()
