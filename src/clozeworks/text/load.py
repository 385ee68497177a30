"""Reading tokenizers: Hugging Face folders, our Bundles, and plain `vocab.txt` files."""

import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tokenizers

from clozeworks.core.bundle import CARD, Card, Fold, check_links, read_json
from clozeworks.core.config import validated
from clozeworks.core.errors import UserError
from clozeworks.core.files import AS_UTF8, existing, read_lines
from clozeworks.core.records import BERT_ROLES
from clozeworks.text.tokenizer import Tokenizer

FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", CARD)
"""The files of a folder that say what its tokenizer is."""
_MARKER = re.compile(r"\[.*\]|<.*>")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Open a folder that holds `tokenizer.json` or `vocab.txt`, or one such file.

    The folding is restored from `clozeworks.json` where the folder has one. Where nothing says
    whether to lower-case, a vocabulary without upper-case letters means yes. Raises UserError if a
    file is missing or damaged, is not WordPiece, lacks a special token, or leads out of the folder.
    """
    path = existing(path, "tokenizer")
    if path.is_file():
        read = _from_json if path.suffix == ".json" else _from_vocabulary
        return read(path, {}, Fold())
    check_links(path / name for name in FILES)
    fold = Fold()
    if (path / CARD).exists():
        fold = validated(Card, read_json(path / CARD), str(path / CARD)).fold
    config = path / "tokenizer_config.json"
    settings = read_json(config) if config.exists() else {}
    if (path / "tokenizer.json").exists():
        return _from_json(path / "tokenizer.json", settings, fold)
    if (path / "vocab.txt").exists():
        return _from_vocabulary(path / "vocab.txt", settings, fold)
    raise UserError(f"{path} holds no tokenizer: neither tokenizer.json nor vocab.txt is there")


def _from_json(path: Path, settings: dict[str, Any], fold: Fold) -> Tokenizer:
    values = read_json(path)
    roles = _check_kind(values, path) or _roles(values, settings, path)
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever it cannot read
        raise UserError(f"{path} is not a tokenizer file: {error}") from error
    try:
        tokenizer = Tokenizer(library, fold, roles, settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if tokenizer.is_wordpiece:
        least = len(values["model"]["vocab"])
        _check_same_pieces(tokenizer.pieces, least, path.with_name("vocab.txt"))
    return tokenizer


def _check_kind(values: dict[str, Any], path: Path) -> dict[str, str] | None:
    """BERT's names of the special tokens for a sound WordPiece; None for BPE and unigram.

    Raises UserError for any other kind, and for a WordPiece whose ids would not mean what BERT's
    do.
    """
    model = values.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise UserError(f"{path} is not a tokenizer file: it has no model with a vocabulary")
    kind = model.get("type", "WordPiece" if "max_input_chars_per_word" in model else "unnamed")
    if kind in ("BPE", "Unigram"):
        return None
    expected = {
        "model type": (kind, "WordPiece"),
        "prefix": (model.get("continuing_subword_prefix"), "##"),
        "unknown token": (model.get("unk_token"), "[UNK]"),
        "normalizer": ((values.get("normalizer") or {}).get("type"), "BertNormalizer"),
        "pre-tokenizer": ((values.get("pre_tokenizer") or {}).get("type"), "BertPreTokenizer"),
    }
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise UserError(
                f"{path} is not a BERT WordPiece tokenizer: its {what} is {found!r}, "
                f"not {wanted!r}; choose a BERT model"
            )
    return BERT_ROLES


_NAMES = {
    "pad": ("<pad>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
    "cls": ("<s>", "[CLS]"),
    "sep": ("</s>", "[SEP]"),
    "mask": ("<mask>", "[MASK]"),
}
"""What published models call their special tokens, where no file says."""


def _roles(values: dict[str, Any], settings: dict[str, Any], path: Path) -> dict[str, str]:
    """Which piece is pad, unk, cls, sep and mask: as the files beside it say, else as usual."""
    beside = path.with_name("special_tokens_map.json")
    said = {**(read_json(beside) if beside.exists() else {}), **settings}
    added = values.get("added_tokens") or []
    known = {token["content"] for token in added if isinstance(token, dict) and "content" in token}
    roles = {}
    for role, usual in _NAMES.items():
        named = said.get(f"{role}_token")
        named = named.get("content") if isinstance(named, dict) else named
        roles[role] = named or next((name for name in usual if name in known), usual[0])
    return roles


def _check_same_pieces(pieces: list[str], least: int, path: Path) -> None:
    """Refuse a vocab.txt that is not tokenizer.json's: other programs read it, and would differ.

    Of the pieces, those from number `least` on were added later, and need not be there.
    """
    if not path.exists():
        return
    lines = list(read_lines(path, remedy=AS_UTF8))
    if len(lines) >= least and lines == pieces[: len(lines)]:
        return
    pairs = enumerate(zip_longest(lines, pieces), 1)
    number, (line, piece) = next(found for found in pairs if found[1][0] != found[1][1])
    raise UserError(
        f"{path} and tokenizer.json do not agree: line {number} is {line!r}, not {piece!r}; one of "
        "the two is damaged or of another model: copy both again"
    )


def _from_vocabulary(path: Path, settings: dict[str, Any], fold: Fold) -> Tokenizer:
    pieces = list(read_lines(path, remedy=AS_UTF8))
    _check_no_duplicates(pieces, path)
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        lowercase = not any(_has_capital(piece) for piece in pieces)
    try:
        return Tokenizer.of(
            pieces,
            lowercase=lowercase,
            strip_accents=settings.get("strip_accents"),
            chinese_characters=settings.get("tokenize_chinese_chars", True),
            fold=fold,
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _check_no_duplicates(pieces: list[str], path: Path) -> None:
    lines: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if piece in lines:
            raise UserError(
                f"{path}: {piece!r} is on line {lines[piece]} and again on line {number}; "
                "a vocabulary names each piece once"
            )
        lines[piece] = number


def _has_capital(piece: str) -> bool:
    return not _MARKER.fullmatch(piece) and any("A" <= character <= "Z" for character in piece)
