"""Laws of the audit: its figures equal those counted by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.text.audit import audit
from clozeworks.text.tokenizer import Tokenizer


def test_figures_counted_by_hand(small: Tokenizer):
    found = audit(small, iter(["The cats, 你好!", "unable 你們 zebra é"]))
    # the cat ##s , 你 好 ! | un ##able 你 [UNK] [UNK] [UNK]
    assert (found.tokens, found.words, found.characters) == (13, 11, 25)
    assert found.tokens_per_word == 13 / 11
    assert found.tokens_per_character == 13 / 25
    assert found.unknown_rate == 3 / 13
    assert found.missing_characters == ["r", "z", "們"]
    assert found.character_coverage == 1 - 3 / 25
    assert (found.chinese_seen, found.chinese_covered, found.chinese_in_vocabulary) == (3, 2, 5)
    used = {"the", "cat", "##s", ",", "你", "好", "!", "un", "##able"}
    dead = [p for p in small.pieces[5:] if p not in used]
    assert (found.dead_pieces, found.dead_examples) == (len(dead), dead[:20])


def test_empty_text_gives_zeros(small: Tokenizer):
    found = audit(small, [])
    assert (found.tokens, found.unknown_rate, found.tokens_per_word) == (0, 0, 0)
    assert found.dead_pieces == len(small.pieces) - 5


@given(st.lists(st.text("abc 你好吗,.zé"), max_size=5))
@settings(deadline=None)
def test_words_are_the_pre_tokenizer_s(small: Tokenizer, lines: list[str]):
    found = audit(small, lines)
    assert found.words == sum(len(small.words(line)) for line in lines)
    assert found.tokens == sum(len(ids) for ids in small.tokenize(lines))
    assert 0 <= found.character_coverage <= 1 and 0 <= found.unknown_rate <= 1
