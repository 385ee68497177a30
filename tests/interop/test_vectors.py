"""Laws of word vectors: read number for number, every word found, and no damage goes unseen."""

import gzip

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clozeworks import api
from clozeworks.core.bundle import open_bundle
from clozeworks.core.errors import UserError
from clozeworks.interop import vectors as module
from clozeworks.interop.huggingface import open_model
from clozeworks.interop.vectors import read_vectors, recurrent_model
from clozeworks.text.lexicon import out_of_reach, word_tokenizer
from clozeworks.text.load import load_tokenizer
from tiny import make_task


def convert(source, out, **more):
    return api.convert(api.ConvertRecipe(source=source, out=out, **more))


WORDS = ["late", "parcel", "lamp", "快", "递"]


def vectors(path, header=False, binary=False):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(len(WORDS), 6)).astype(np.float32)
    first = f"{len(WORDS)} 6\n".encode()
    if binary:
        rows = [
            f"{word} ".encode() + row.tobytes() + b"\n"
            for word, row in zip(WORDS, matrix, strict=True)
        ]
    else:
        rows = [
            f"{w} {' '.join(repr(float(x)) for x in row)}\n".encode()
            for w, row in zip(WORDS, matrix, strict=True)
        ]
    path.write_bytes((first if header or binary else b"") + b"".join(rows))
    return matrix


@pytest.mark.parametrize(
    ("name", "form"),
    [("glove.txt", {}), ("w2v.vec", {"header": True}), ("w2v.bin", {"binary": True})],
)
def test_word_vectors_become_a_bilstm(tmp_path, name, form):
    matrix = vectors(tmp_path / name, **form)
    words, read = read_vectors(tmp_path / name)
    assert words == WORDS and np.array_equal(read, matrix)
    made = convert(tmp_path / name, tmp_path / "out")
    assert (made.family, made.heads, made.difference) == ("lstm", [], 0.0)
    tokenizer = load_tokenizer(tmp_path / "out")
    task = make_task("classify")
    model, fresh = open_model(open_bundle(tmp_path / "out"), task)
    assert fresh == ["heads.classify", "pooler"]
    table = model.encoder.embeddings.tokens.weight.detach()
    for word, row in zip(WORDS, matrix, strict=True):
        assert np.array_equal(table[tokenizer.pieces.index(word)].numpy(), row)


@pytest.mark.parametrize("content", ["", "late 1.0 2.0\nparcel 1.0\n", "late a b\n"])
def test_files_that_are_no_vectors_are_explained(tmp_path, content):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(UserError, match=r"cannot be read as word vectors|holds no words"):
        convert(tmp_path / "x.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# === Files as they are ===


def read(tmp_path, content, name="x.txt"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_vectors(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        "late 1 2\nlamp 3 4\n",
        "late\t1\t2\nlamp\t3\t4\n",
        "late 1 2 \r\nlamp 3 4 \r\n",
        "\ufefflate 1 2\nlamp 3 4",
        "\ufeff2 2\nlate 1 2\nlamp 3 4",
        "late 1 2\n\nlamp 3 4\n\n",
        "late 1 2\nlamp 3 4\nlate 5 6\n",
    ],
    ids=["plain", "tabs", "ends", "mark", "mark and sizes", "blank lines", "twice"],
)
def test_all_forms_of_one_file_are_one(tmp_path, content):
    words, matrix = read(tmp_path, content)
    assert words == ["late", "lamp"] and matrix.tolist() == [[1, 2], [3, 4]]
    with gzip.open(tmp_path / "x.vec.gz", "wb") as stream:
        stream.write(content.encode())
    assert read_vectors(tmp_path / "x.vec.gz")[0] == words


def test_words_may_hold_spaces_and_digits(tmp_path):
    words, matrix = read(tmp_path, ". . . 1 2\n2010 3 4\niphone 6 5 6\n")
    assert words == [". . .", "2010", "iphone 6"]
    assert matrix.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_limit_ends_the_reading(tmp_path):
    (tmp_path / "x.vec").write_text("3 2\na 1 2\nb 3 4\nc 5 6\n")
    assert read_vectors(tmp_path / "x.vec", 2)[0] == ["a", "b"]


LIES = {
    "x.txt": b"99999999999 300\nlate 1 2\n",
    "y.txt": b"2 99999999999\nlate 1 2\nlamp 3 4\n",
    "z.txt": b"3 2\nlate 1 2\nlamp 3 4\n",
    "x.bin": b"99999999999 300\nlate 1234",
    "y.bin": b"1 99999999999\nlate 1234",
    "z.bin": b"3 1\nlate 1234",
    "w.bin": b"no sizes here",
}


@pytest.mark.parametrize("name", LIES)
def test_sizes_that_lie_are_refused_before_memory_is_taken(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read as word vectors"):
        read(tmp_path, LIES[name], name)


@pytest.mark.parametrize("number", ["nan", "inf", "1e39"])
def test_what_is_not_finite_is_named(tmp_path, number):
    with pytest.raises(UserError, match="the vector of 'lamp' holds NaN or infinity"):
        read(tmp_path, f"late 1 2\nlamp {number} 4\n")


@pytest.mark.parametrize("line", ["lamp 3", "lamp 3.5 4.5 5.5", "lamp 3 b"])
def test_a_line_of_another_width_is_refused(tmp_path, line):
    with pytest.raises(UserError, match="cannot be read as word vectors"):
        read(tmp_path, f"late 1.5 2.5\n{line}\n")


def test_the_unknown_token_gets_the_mean_of_true_words(tmp_path):
    words, matrix = read(tmp_path, "late 1 2\nlamp 3 4\nlate 500 600\n")
    model, tokenizer = recurrent_model(words, matrix, "mini")
    table = model.encoder.embeddings.tokens.weight
    assert table[tokenizer.vocabulary.unknown].tolist() == [2, 3]


def test_weights_are_told_from_vectors(tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    torch.save({"a": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=f"holds a model's weights; name its folder: {folder}"):
        convert(folder / "pytorch_model.bin", tmp_path / "out")


# === Words in texts ===

CHINESE = [
    "，",
    "我",
    "快递",
    "要",
    "退",
    "退款",
    "款",
    "发展中",
    "国家",
    "发展",
    "iphone",
    "new_york",
]


def test_chinese_words_are_found_in_text_without_spaces(tmp_path):
    lines = (f"{word} {i} {i / 2}\n" for i, word in enumerate(CHINESE))
    (tmp_path / "zh.vec").write_text(f"{len(CHINESE)} 2\n" + "".join(lines), "utf-8")
    made = convert(tmp_path / "zh.vec", tmp_path / "out")
    assert made.difference == 0.0
    tokenizer = load_tokenizer(tmp_path / "out")
    assert out_of_reach(tokenizer) == []
    assert tokenizer.hash == open_bundle(made.out).card.tokenizer
    text = "我要退款，发展中国家的快递 new_york"
    sequence = tokenizer.encode(text)
    found = [tokenizer.pieces[i] for i in sequence.ids]
    assert " ".join(found) == "[CLS] 我 要 退款 ， 发展中 国家 [UNK] 快递 new_york [SEP]"
    spans = [text[start:end] for start, end in sequence.spans[1:-1]]
    assert " ".join(spans) == "我 要 退款 ， 发展中 国家 的 快递 new_york"


def test_many_words_are_the_same_after_saving(tmp_path):
    tokenizer = word_tokenizer([f"w{i}" for i in range(5000)], lowercase=True)
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).hash == tokenizer.hash


@given(st.lists(st.text("甲乙丙丁ab", min_size=1, max_size=6), min_size=1, unique=True))
def test_every_word_is_found_whatever_the_others(words):
    assert out_of_reach(word_tokenizer(words, lowercase=False)) == []


def test_words_that_no_text_can_hold_are_counted(monkeypatch):
    said = []
    monkeypatch.setattr(module, "say", said.append)
    words = ["late", "don't", "café", "new_york", "快递"]
    recurrent_model(words, np.ones((5, 2), dtype=np.float32), "mini")
    assert len(said) == 1 and said[0].startswith("3 of 5 words will never be found in a text")
    assert "don't, new_york, 快递" in said[0]
