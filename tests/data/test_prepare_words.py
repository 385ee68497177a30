"""Laws of word bounds in shards: those of each sentence, whatever wrote them; old folders open."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.data import prepare as prepare_module
from clozeworks.data.order import ShardStream
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.data.shards import Shards
from clozeworks.text.segmenters import pick_segmenter
from clozeworks.text.sentences import sentence_spans
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from clozeworks.text.words import WordBounds

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = PrepareSettings(processes=1, shard_megabytes=0.002, words="characters")
LINES = ["Title {}", "The {} first, isn't it? And more.", "我爱北京天安门{}。他说：再见，goodbye！"]
CORPUS = [[line.format(i) for line in LINES] for i in range(120)]


@pytest.fixture(scope="module")
def tokenizer():
    letters = [chr(c) for c in range(33, 127)]
    han = [c for c in dict.fromkeys(LINES[2]) if not c.isascii()]
    return Tokenizer.of([*SPECIAL, *letters, *han, *(f"##{c}" for c in letters)])


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("\n\n".join("\n".join(lines) for lines in CORPUS) + "\n", "utf-8")
    return path


def bounds_of(tokenizer, words):
    """What the whole corpus's bounds must be, sentence by sentence."""
    bounds = WordBounds(tokenizer, pick_segmenter(words))
    sentences = [line[a:b] for lines in CORPUS for line in lines for a, b in sentence_spans(line)]
    return np.concatenate([begins for s in sentences for _, begins in bounds.tokenize([s])])


def contents(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("words", ["characters", "jieba"])
def test_shards_tell_where_words_begin(corpus, tmp_path, tokenizer, words):
    if words == "jieba":
        pytest.importorskip("jieba")
    manifest = prepare(
        [corpus], tokenizer, tmp_path / "out", SMALL.model_copy(update={"words": words})
    )
    assert manifest.words.split()[0] == words
    assert len(manifest.shards) > 3
    shards, expected = Shards.open(tmp_path / "out"), bounds_of(tokenizer, words)
    assert shards.word_starts(0, manifest.tokens).tolist() == expected.tolist()

    @settings(max_examples=60)
    @given(st.integers(0, manifest.tokens), st.integers(0, 400))
    def every_range(start, length):
        stop = min(manifest.tokens, start + length)
        found = shards.word_starts(start, stop)
        assert found.dtype == np.bool_
        assert found.tolist() == expected[start:stop].tolist()

    every_range()
    with pytest.raises(IndexError):
        shards.word_starts(0, manifest.tokens + 1)


KILLED = """
import sys
from clozeworks.data.prepare import PrepareSettings, prepare
from clozeworks.text.load import load_tokenizer
prepare([sys.argv[1]], load_tokenizer(sys.argv[2]), sys.argv[3],
        PrepareSettings(processes=2, shard_megabytes=0.002, words="jieba"))
"""


def test_killed_with_jieba_is_uninterrupted(corpus, tmp_path, tokenizer):
    pytest.importorskip("jieba")
    with_jieba = SMALL.model_copy(update={"words": "jieba"})
    prepare([corpus], tokenizer, tmp_path / "whole", with_jieba)
    out = tmp_path / "out"
    arguments = [str(corpus), str(tmp_path / "whole/tokenizer"), str(out)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stderr=subprocess.PIPE)
    while process.poll() is None and len(list(out.glob("shards/0*"))) < 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert b"jieba" not in said and b"model" not in said  # what its own loading says
    time.sleep(0.3)  # a worker ends with the shard it is writing
    prepare([corpus], tokenizer, out, with_jieba)
    assert contents(tmp_path / "whole") == contents(out)


def test_another_segmenter_is_refused(corpus, tmp_path, tokenizer, monkeypatch):
    prepare([corpus], tokenizer, tmp_path / "out", SMALL)
    without = SMALL.model_copy(update={"words": "none"})
    with pytest.raises(UserError, match=r"words was 'characters', now None"):
        prepare([corpus], tokenizer, tmp_path / "out", without)
    monkeypatch.setattr("clozeworks.text.segmenters.jieba.version", lambda name: "9.9")
    other = SMALL.model_copy(update={"words": "jieba"})
    with pytest.raises(UserError, match=r"words was 'characters', now 'jieba 9\.9'"):
        prepare([corpus], tokenizer, tmp_path / "out", other)
    with pytest.raises(UserError, match="words 'thulac' is not known"):
        prepare([corpus], tokenizer, tmp_path / "out", SMALL.model_copy(update={"words": "thulac"}))


def test_folders_without_words_open_and_go_on(corpus, tmp_path, tokenizer):
    """As they were written before there were bounds of words."""
    without = SMALL.model_copy(update={"words": "none"})
    prepare([corpus], tokenizer, tmp_path / "old", without)
    for name in ("plan.json", "manifest.json"):
        file = tmp_path / "old" / name
        values = json.loads(file.read_text("utf-8"))
        assert values.pop("words") is None and values["format"] == 1
        file.write_text(json.dumps(values), "utf-8")
    assert not list((tmp_path / "old").rglob("words.npy"))
    shards = Shards.open(tmp_path / "old")
    shards.verify()
    assert shards.manifest.words is None
    (tmp_path / "old/manifest.json").unlink()
    prepare([corpus], tokenizer, tmp_path / "old", without)
    prepare([corpus], tokenizer, tmp_path / "new", SMALL)
    old, new = Shards.open(tmp_path / "old"), Shards.open(tmp_path / "new")
    assert old.take(0, 500).tolist() == new.take(0, 500).tolist()
    assert new.manifest.format == 2


@pytest.mark.parametrize("pairs", ["none", "next", "order"])
def test_sequences_tell_their_words_when_asked(corpus, tmp_path, tokenizer, pairs):
    prepare([corpus], tokenizer, tmp_path / "out", SMALL)
    shards, vocabulary = Shards.open(tmp_path / "out"), tokenizer.vocabulary
    documents = np.arange(len(shards.documents) - 1)
    shape = {"max_length": 24, "pairs": pairs, "tokens": 300, "seed": 0}
    asked = ShardStream(shards, documents, vocabulary, **shape, words=True)
    plain = ShardStream(shards, documents, vocabulary, **shape)
    for step, same in zip(asked.steps(0)[:20], plain.steps(0), strict=False):
        for group, bare in zip(asked.groups(0, step), plain.groups(0, same), strict=True):
            (sequence,), (without,) = group.sequences, bare.sequences
            assert without.words is None and without.ids.tolist() == sequence.ids.tolist()
            assert sequence.words.shape == sequence.ids.shape
            special = np.isin(sequence.ids, list(vocabulary.special))
            assert sequence.words[special].all()
            pieces = [tokenizer.pieces[i] for i in sequence.ids]
            assert sequence.words.tolist() == [not piece.startswith("##") for piece in pieces]


def test_a_chinese_corpus_without_jieba_is_told(corpus, tmp_path, tokenizer, monkeypatch):
    said = []
    monkeypatch.setattr(prepare_module, "say", said.append)
    monkeypatch.setattr("clozeworks.text.segmenters.find_spec", lambda name: None)
    prepare([corpus], tokenizer, tmp_path / "out", PrepareSettings(processes=1))
    assert any("jieba is not installed" in line for line in said)
    said.clear()
    english = Tokenizer.of([piece for piece in tokenizer.pieces if piece.isascii()])
    prepare([corpus], english, tmp_path / "english", PrepareSettings(processes=1))
    prepare([corpus], tokenizer, tmp_path / "asked", SMALL)
    assert not any("jieba" in line for line in said)


def test_english_text_never_loads_the_dictionary():
    code = (
        "import sys; from clozeworks.text.segmenters import pick_segmenter;"
        "from clozeworks.text.tokenizer import SPECIAL, Tokenizer;"
        "from clozeworks.text.words import WordBounds;"
        "t = Tokenizer.of([*SPECIAL, 'a', '##b']);"
        "WordBounds(t, pick_segmenter('jieba')).tokenize(['a ab', 'a, b!']);"
        "print('jieba' in sys.modules)"
    )
    pytest.importorskip("jieba")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
