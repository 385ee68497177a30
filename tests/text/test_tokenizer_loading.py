"""Laws of opening tokenizers: what was saved comes back, what is damaged is named."""

import json
import shutil

import pytest
from transformers import BertTokenizerFast

from clozeworks.core.bundle import Card, Fold
from clozeworks.core.errors import UserError
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer

FOLDS = [Fold(), Fold(width=True)]


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("accents", [None, True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_saved_is_loaded(small, tmp_path, lowercase, accents, fold):
    saved = Tokenizer.of(small.pieces, lowercase=lowercase, strip_accents=accents, fold=fold)
    saved.save(tmp_path)
    assert load_tokenizer(tmp_path).hash == saved.hash
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).hash == saved.hash


def test_saving_again_gives_the_same_bytes(small, tmp_path):
    small.save(tmp_path / "one")
    load_tokenizer(tmp_path / "one").save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_fold_comes_from_the_card_and_a_card_is_never_overwritten(small, tmp_path):
    card = Card(task="classify", fold=Fold(width=True)).model_dump_json()
    (tmp_path / "clozeworks.json").write_text(card)
    Tokenizer.of(small.pieces, fold=Fold(width=True)).save(tmp_path)
    assert (tmp_path / "clozeworks.json").read_text() == card
    assert load_tokenizer(tmp_path).fold == Fold(width=True)


def test_opens_what_transformers_saves(small, tmp_path):
    small.save(tmp_path / "ours")
    theirs = BertTokenizerFast.from_pretrained(tmp_path / "ours")
    theirs.add_tokens(["[ENT]", "newword"])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_tokenizer(tmp_path / "theirs")
    assert ours.pieces[-2:] == ["[ENT]", "newword"]
    for words in ("the cat [ENT] newword 你好", "[MASK] newwords"):
        assert ours.encode(words).ids.tolist() == theirs(words)["input_ids"]
    ours.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").hash == ours.hash


def test_opens_minilm(minilm):
    tokenizer = load_tokenizer(minilm)
    assert (len(tokenizer.pieces), tokenizer.lowercase) == (30522, True)
    assert len(tokenizer.encode("word " * 1000)) == 1002  # the folder's own limit of 128 is lifted
    assert len(tokenizer.encode("word")) == 3  # and so is its padding
    alone = load_tokenizer(minilm / "vocab.txt")
    assert alone.hash == tokenizer.hash == load_tokenizer(minilm / "tokenizer.json").hash


@pytest.mark.parametrize(
    ("name", "size", "lowercase"),
    [("cased", 28996, False), ("uncased", 30522, True), ("chinese", 21128, True)],
)
def test_opens_published_vocabularies(vocabularies, name, size, lowercase):
    tokenizer = load_tokenizer(vocabularies / f"bert-base-{name}-vocab.txt")
    assert (len(tokenizer.pieces), tokenizer.lowercase) == (size, lowercase)


def test_windows_line_ends_and_byte_order_mark(small, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(small.pieces).encode())
    assert load_tokenizer(tmp_path / "vocab.txt").hash == small.hash


def edited(**changes):
    def edit(folder):
        values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        for key, value in changes.items():
            values[key] = values[key] | value if isinstance(value, dict) else value
        (folder / "tokenizer.json").write_text(json.dumps(values))

    return edit


def cut_short(folder):
    whole = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(whole[: len(whole) // 2])


def vocabulary(edit):
    """Change the lines of vocab.txt beside a whole tokenizer.json."""

    def write(folder):
        lines = (folder / "vocab.txt").read_text("utf-8").splitlines()
        (folder / "vocab.txt").write_text("\n".join(edit(lines)), "utf-8")

    return write


def only_vocabulary(lines):
    def edit(folder):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join(lines), "utf-8")

    return edit


FIVE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
DAMAGE = {
    "cut short": (cut_short, "tokenizer.json is damaged or cut short"),
    "words": (
        edited(model={"type": "WordLevel"}),
        "type is 'WordLevel', not 'WordPiece'",
    ),
    "BPE": (edited(model={"type": "BPE"}), "is not a tokenizer file: Missing vocab"),
    "normalizer": (edited(normalizer=None), "its normalizer is None"),
    "prefix": (edited(model={"continuing_subword_prefix": "@"}), "its prefix is '@'"),
    "no vocabulary": (edited(model={"vocab": 3}), "is not a tokenizer file"),
    "no model": (edited(model=[]), "no model with a vocabulary"),
    "holes": (edited(model={"vocab": {p: 2 * i for i, p in enumerate(FIVE)}}), "ids must run"),
    "other word": (
        vocabulary(lambda lines: [*lines[:6], "?!", *lines[7:]]),
        r"line 7 is '\?!', not",
    ),
    "cut vocabulary": (vocabulary(lambda lines: lines[:7]), "line 8 is None, not"),
    "longer vocabulary": (vocabulary(lambda lines: [*lines, "more"]), "is 'more', not None"),
    "other": (lambda folder: shutil.rmtree(folder), "does not exist"),
    "empty": (lambda folder: [f.unlink() for f in folder.iterdir()], "holds no tokenizer"),
    "no mask": (only_vocabulary(FIVE[:-1]), r"vocab.txt: the vocabulary has no \[MASK\]"),
    "twice": (only_vocabulary([*FIVE, "a", "b", "a"]), "'a' is on line 6 and again on line 8"),
    "no lines": (only_vocabulary([]), r"vocab.txt: the vocabulary has no \[PAD\]"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(small, tmp_path, name):
    damage, message = DAMAGE[name]
    folder = tmp_path / "folder"
    small.save(folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as raised:
        load_tokenizer(folder)
    assert "\n" not in str(raised.value)
