"""Laws of folding: one character for one, nothing folded that was not asked for."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.bundle import Fold
from clozeworks.core.errors import UserError
from clozeworks.text import fold as module
from clozeworks.text.fold import FULL_WIDTH, fold_table

BOTH = Fold(width=True, simplified=True)


def test_nothing_asked_nothing_folded():
    assert fold_table(Fold()) == {}


def test_width_agrees_with_unicode():
    for wide, narrow in FULL_WIDTH.items():
        plain = unicodedata.normalize("NFKC", chr(wide))
        assert chr(narrow) == plain or chr(wide) in "￣￤"  # NFKC spells the macron in two
    assert "Ａ１，（％￥　".translate(fold_table(Fold(width=True))) == "A1,(%¥ "


def test_traditional_becomes_simplified():
    pytest.importorskip("opencc")
    table = fold_table(Fold(simplified=True))
    assert "後來在臺灣裡面發現頭髮，Ａ".translate(table) == "后来在台湾里面发现头发，Ａ"
    assert "简体字不变".translate(table) == "简体字不变"
    assert "這裡ＯＫ".translate(fold_table(BOTH)) == "这里OK"


@given(st.text())
@settings(deadline=None)
def test_length_is_kept_and_nothing_wide_is_left(text):
    pytest.importorskip("opencc")
    folded = text.translate(fold_table(BOTH))
    assert len(folded) == len(text)
    assert not any(ord(character) in FULL_WIDTH for character in folded)


def test_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    module.fold_table.cache_clear()
    module._simplified.cache_clear()
    with pytest.raises(UserError, match=r"needs the package opencc: pip install .clozeworks\[zh\]"):
        fold_table(Fold(simplified=True))
