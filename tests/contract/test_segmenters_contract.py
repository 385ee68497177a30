"""What every segmenter owes: the whole run, cut into the same words everywhere, in silence."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.text.fold import HAN
from clozeworks.text.segmenters import SEGMENTERS, pick_segmenter
from clozeworks.text.segmenters import jieba as jieba_module

NAMES = SEGMENTERS.names()
TEXT = "研究生命的起源需要结合成分子时的北京大学生物系独立自主和平等互利的原则"
runs = st.text(
    st.one_of(st.sampled_from(TEXT), *(st.integers(b[0], b[-1]).map(chr) for b in HAN)),
    min_size=1,
    max_size=40,
)


@pytest.fixture(params=NAMES)
def segmenter(request):
    if request.param == "jieba":
        pytest.importorskip("jieba")
    return pick_segmenter(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_it_describes_itself(name):
    assert SEGMENTERS.get(name).name == name
    assert SEGMENTERS.summary(name).endswith(".")


def test_its_words_are_the_run(segmenter):
    @given(runs)
    def law(run):
        words = list(segmenter.cut(run))
        assert "".join(words) == run
        assert all(words)
        assert words == list(segmenter.cut(run))

    law()


def test_another_process_cuts_alike_and_says_nothing(segmenter):
    code = (
        "import sys; from clozeworks.text.segmenters import pick_segmenter;"
        f"print(' '.join(pick_segmenter({segmenter.name!r}).cut({TEXT!r})));"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout == " ".join(segmenter.cut(TEXT)) + "\nFalse\n"


def test_words_added_to_jieba_elsewhere_change_nothing(tmp_path, monkeypatch):
    jieba = pytest.importorskip("jieba")
    jieba.setLogLevel(60)
    monkeypatch.setattr(jieba.dt, "tmp_dir", str(tmp_path))
    before = list(pick_segmenter("jieba").cut(TEXT))
    jieba.add_word("研究生命的起源")
    assert list(pick_segmenter("jieba").cut(TEXT)) == before
    assert list(jieba.cut(TEXT)) != before


def test_auto_is_jieba_where_it_is_and_none_is_nothing(monkeypatch):
    assert pick_segmenter("none") is None
    assert pick_segmenter("characters").identity == "characters"
    with pytest.raises(UserError, match="words 'jeiba' is not known; did you mean 'jieba'"):
        pick_segmenter("jeiba")
    monkeypatch.setattr("clozeworks.text.segmenters.find_spec", lambda name: None)
    assert pick_segmenter("auto").name == "characters"


def test_jieba_remembers_its_version_and_where_to_get_it(monkeypatch):
    def absent(name):
        raise jieba_module.PackageNotFoundError(name)

    monkeypatch.setattr(jieba_module, "version", lambda name: "0.1.2")
    assert pick_segmenter("jieba").identity == "jieba 0.1.2"
    monkeypatch.setattr(jieba_module, "version", absent)
    with pytest.raises(UserError, match=r"pip install 'clozeworks\[zh\]'"):
        pick_segmenter("jieba")
