"""Laws of scripts: shares of letters, whatever else a text holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.text.fold import HAN
from clozeworks.text.scripts import script_share


@given(st.text("abéＡ", max_size=20), st.text("中文㐀", max_size=20), st.text("かд한", max_size=20))
def test_shares_are_of_letters_alone(latin, han, other):
    text = f"1, {latin} 。！ {han}\n{other} 42%"
    letters = len(latin) + len(han) + len(other)
    for scripts, wanted in ((["latin"], latin), (["han"], han), (["han", "latin"], latin + han)):
        share = script_share(text, scripts)
        assert share == pytest.approx(len(wanted) / letters if letters else 0.0)


@given(st.sampled_from([code for block in HAN for code in (block[0], block[-1], block[9])]))
def test_every_block_of_chinese_is_chinese(code):
    assert script_share(chr(code), ["han"]) == 1.0


def test_a_text_without_letters_is_in_no_script():
    assert script_share("", ["latin"]) == script_share("12 … 3!", ["han", "latin"]) == 0.0
