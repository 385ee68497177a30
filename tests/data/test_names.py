"""Laws of names: found wherever they stand whole, joined into one word, nothing else changed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.data.names import Names, read_names
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.words import WordBounds
from tiny import PIECES, VOCABULARY

CHINESE = [PIECES.index(character) for character in "我要退款快递"]
ENGLISH = [PIECES.index(word) for word in ["refund", "order", "late", "lost"]]
TOKENS = [*CHINESE, *ENGLISH, PIECES.index("##a")]
names_of = st.lists(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=4), max_size=6)


def joined_slowly(names, ids, begins):
    """What `Names.join` does, token by token."""
    out, last = begins.copy(), len(ids)

    def is_edge(at):
        return at == last or begins[at] or (at and ids[at] in CHINESE and ids[at - 1] in CHINESE)

    for name in names:
        for at in range(last - len(name) + 1):
            end = at + len(name)
            if ids[at:end] == name and is_edge(at) and is_edge(end):
                out[at + 1 : end] = False
    return out


@given(names_of, st.data())
def test_every_name_becomes_one_word(names, data):
    part = st.sampled_from([*names, *([token] for token in TOKENS)])
    ids = [token for some in data.draw(st.lists(part, max_size=12)) for token in some]
    begins = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    begins = begins.astype(np.bool_)
    names = [name for name in names if len(name) > 1]
    known = Names([np.array(name) for name in names], VOCABULARY)
    assert known.used == len({tuple(name) for name in names})
    before = begins.copy()
    found = known.join(np.array(ids, dtype=np.int64), begins)
    assert found.tolist() == joined_slowly(names, ids, begins).tolist()
    assert begins.tolist() == before.tolist()


def test_a_name_may_cut_a_chinese_word_and_no_other():
    names = Names([np.array(CHINESE[1:3]), np.array(ENGLISH[:2])], VOCABULARY)
    ids, begins = np.array(CHINESE[:4]), np.array([True, False, True, False])
    assert names.join(ids, begins).tolist() == [True, False, False, False]
    ids = np.array([ENGLISH[2], *ENGLISH[:2], ENGLISH[3]])
    for uncut in ([True, True, True, True], [True, True, False, True]):
        assert names.join(ids, np.array(uncut)).tolist() == [True, True, False, True]
    for cut in ([True, False, True, True], [True, True, True, False]):
        assert names.join(ids, np.array(cut)).tolist() == cut


def words_of(text, tokenizer, names):
    ((ids, begins),) = WordBounds(tokenizer, pick_segmenter("characters")).tokenize([text])
    begins = names.join(ids, begins)
    words = []
    for i, first in zip(ids.tolist(), begins.tolist(), strict=True):
        words += [[]] if first else []
        words[-1].append(tokenizer.pieces[i])
    return [" ".join(word) for word in words]


@pytest.fixture
def tokenizer():
    return Tokenizer.of([*PIECES, *"北京大学生", "new", "york", "times", "##er"])


def test_names_of_both_languages_are_found_in_text(tokenizer, tmp_path):
    (tmp_path / "names.txt").write_text(
        "New York\n\n北京大学\n大学生\n new york times \nx\n", "utf-8"
    )
    names = read_names(tmp_path / "names.txt", tokenizer)
    assert names.used == 4
    found = words_of("New York is late, New Yorkers, the new york times", tokenizer, names)
    expected = "new york|is|late|,|new|york ##er ##s|,|the|new york times"
    assert found == expected.split("|")
    assert words_of("我在北京大学", tokenizer, names) == ["我", "在", "北 京 大 学"]
    assert words_of("北京大学生", tokenizer, names) == ["北 京 大 学 生"]  # two names, one word


def test_a_list_of_which_nothing_can_be_found_is_refused(tokenizer, tmp_path):
    (tmp_path / "names.txt").write_text("the\n乾隆\n", "utf-8")
    with pytest.raises(UserError, match=r"names.txt: none of the 2 names is of two or more known"):
        read_names(tmp_path / "names.txt", tokenizer)
    with pytest.raises(UserError, match="does not exist"):
        read_names(tmp_path / "absent.txt", tokenizer)
    for text, encoding in (("乾隆皇帝", "gb18030"), ("ab", "utf-16")):
        (tmp_path / "names.txt").write_bytes(f"{text}\n".encode(encoding))
        with pytest.raises(UserError, match="save it as UTF-8") as refusal:
            read_names(tmp_path / "names.txt", tokenizer)
        assert "--encoding" not in str(refusal.value)
