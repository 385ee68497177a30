"""Laws of CoNLL files: what was written is read, whatever separates, and no unit is lost."""

import gzip
import json
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.data.sources.base import format_of, open_source

# a unit may be a full-width space or a lone combining mark, but not what separates units or lines
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0\t \ufeff")
UNIT = st.text(CHARACTERS, min_size=1, max_size=4) | st.sampled_from(["#", "#x", "\u3000", "O"])
TAG = st.sampled_from(["O", "B-人", "I-人", "B-creative-work"])
TEXTS = st.lists(st.lists(st.tuples(UNIT, TAG), min_size=1, max_size=5), min_size=1, max_size=5)


def write(path, texts, separator="\t", middle=()):
    lines = []
    for text in texts:
        lines += [separator.join([unit, *middle, tag]) for unit, tag in text] + [""]
    path.write_text("\n".join(lines), "utf-8", newline="")


def rows(path, **options):
    return [row for _, row in open_source(path, **options).rows()]


def row_of(text):
    return {"tokens": [unit for unit, _ in text], "tags": [tag for _, tag in text]}


@settings(max_examples=80)
@given(TEXTS, st.sampled_from(["\t", " ", "   "]), st.sampled_from([(), ("NN", "B-NP")]))
def test_whatever_was_written_is_read(tmp_path_factory, texts, separator, middle):
    path = tmp_path_factory.mktemp("conll") / "t.conll"
    write(path, texts, separator, middle)
    assert rows(path) == [row_of(text) for text in texts]


@settings(max_examples=40)
@given(TEXTS, st.sampled_from(["", "  ", "\t", "-DOCSTART- O", "# id = 1 of 2", "#end of it"]))
def test_blank_lines_documents_and_comments_are_passed_over(tmp_path_factory, texts, between):
    path = tmp_path_factory.mktemp("conll") / "t.bio"
    write(path, texts)
    lines = path.read_text("utf-8").split("\n")
    spread = "\r\n".join(part for line in lines for part in ([line] if line else ["", between, ""]))
    path.write_text(f"-DOCSTART-\t-X-\n\n# a comment\n{spread}\r\n\r\n", "utf-8", newline="")
    assert rows(path) == [row_of(text) for text in texts]


def test_conll_2003_and_chinese_characters(tmp_path):
    path = tmp_path / "eng.conll"
    path.write_text(
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n"
        "# NN I-NP O\n1 CD I-NP O\n",
        "utf-8",
    )
    assert rows(path) == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["#", "1"], "tags": ["O", "O"]},
    ]
    chinese = tmp_path / "zh.bmes"
    chinese.write_text("高 B-NAME\n勇 E-NAME\n， O\n\n  O\n\u3000 O\n男 O", "utf-8")
    assert rows(chinese) == [
        {"tokens": ["高", "勇", "，"], "tags": ["B-NAME", "E-NAME", "O"]},
        {"tokens": [" ", "\u3000", "男"], "tags": ["O", "O", "O"]},
    ]


def test_rows_are_numbered_by_the_line_they_begin_on(tmp_path):
    path = tmp_path / "a.iob"
    path.write_text("# head of it\na O\nb O\n\n\n-DOCSTART- O\n\nc O\n", "utf-8")
    assert [number for number, _ in open_source(path).rows()] == [2, 8]


def test_one_column_is_text_without_tags(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("#x\n我\n们\n\n# \n好\n", "utf-8")
    assert rows(path) == [{"tokens": ["#x", "我", "们"]}, {"tokens": ["#", "好"]}]


def test_packed_and_other_encodings_are_read(tmp_path):
    text = "我\tB-人\n们\tI-人\n"
    (tmp_path / "a.conll.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.conll").write_bytes(text.encode("gb18030"))
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    want = [{"tokens": ["我", "们"], "tags": ["B-人", "I-人"]}]
    assert rows(tmp_path / "a.conll.gz") == want
    assert rows(tmp_path / "b.conll", encoding="gb18030") == want
    assert rows(tmp_path / "c.txt", format="conll") == want
    assert format_of(tmp_path / "x.BIOES.gz") == "conll"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\tO\nb\n", r"a\.conll, line 2 has 1 column \('b'\), the first line has 2"),
        ("a O\n\nb NN O\n", r"a\.conll, line 3 has 3 columns \('b NN O'\)"),
        ("a\tO\nb\t\n", "line 2 has 1 column"),
    ],
)
def test_damage_is_named_with_file_and_line(tmp_path, content, words):
    (tmp_path / "a.conll").write_text(content, "utf-8")
    with pytest.raises(UserError, match=words):
        rows(tmp_path / "a.conll")


@pytest.mark.parametrize("comment", ["# train", "#\tdev set 2", "# id = 7"])
@pytest.mark.parametrize("before", ["", "a\tO\n", "a\tO\n\n"])
def test_a_comment_is_passed_over_wherever_it_stands(tmp_path, comment, before):
    (tmp_path / "a.conll").write_text(f"{before}{comment}\nb\tO\n#\tB-X\n", "utf-8")
    texts = [row["tokens"] for row in rows(tmp_path / "a.conll")]
    assert [unit for text in texts for unit in text] == ["a"] * bool(before) + ["b", "#"]


@pytest.mark.parametrize("tag", ["S", "NN", "B-X", "O"])
def test_units_that_begin_with_the_comments_sign_are_units(tmp_path, tag):
    lines = [f"我\t{tag}", f"#\t{tag}", f"#话题\t{tag}", f"好\t{tag}"]
    (tmp_path / "a.conll").write_text("\n".join(lines) + "\n", "utf-8")
    assert [row["tokens"] for row in rows(tmp_path / "a.conll")] == [["我", "#", "#话题", "好"]]


def test_texts_are_read_as_they_are_asked_for(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("a O\n\nb O\n\nc\n", "utf-8")
    stream = open_source(path).rows()
    assert next(stream) == (1, {"tokens": ["a"], "tags": ["O"]})
    assert next(stream)[0] == 3
    with pytest.raises(UserError, match="line 5"):
        next(stream)


@pytest.mark.parametrize("name", ["wnut17", "cluener"])
def test_public_texts_survive_being_written_as_conll(public_data, tmp_path, name):
    source = public_data / name / "dev.jsonl.gz"
    if not source.is_file():
        pytest.skip(f"no {source}")
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        want = [json.loads(line) for line in islice(lines, 300)]
    path = tmp_path / "dev.conll"
    write(path, [list(zip(row["tokens"], row["tags"], strict=True)) for row in want])
    assert rows(path) == [{"tokens": row["tokens"], "tags": row["tags"]} for row in want]
