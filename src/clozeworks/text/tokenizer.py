"""A WordPiece tokenizer: text in, token ids and the characters they cover out."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from clozeworks.core.bundle import CARD, Card, Fold
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_file
from clozeworks.core.records import Ints, Sequence, Vocabulary
from clozeworks.text.fold import fold_table

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""BERT's special tokens, in the order a new vocabulary gives them their ids."""

CHUNK = 1024
"""Texts given to the library at once: its results take some 150 bytes a token."""

_CJK = r"[\u2018-\u201d\u2014\u2026\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U000323af]"
_CJK_GAP = re.compile(f"(?<={_CJK}) (?={_CJK})")


class Tokenizer:
    """BERT's normalisation and WordPiece (Devlin et al. 2019; Wu et al. 2016), offsets kept.

    pieces: the vocabulary in id order. strip_accents: None means "as `lowercase`". hash: SHA-256
    over the pieces and every setting that decides what ids a text gets.
    """

    def __init__(self, library: tokenizers.Tokenizer, fold: Fold | None = None) -> None:
        """Take over `library`, a WordPiece tokenizer with BERT's normaliser and pre-tokenizer.

        Raises UserError if a special token is missing or ids are not 0 … n-1.
        """
        library.no_truncation()
        library.no_padding()
        normalizer = library.normalizer
        self._library = library
        self.pieces = _pieces(library)
        self.vocabulary = Vocabulary.of(self.pieces)
        self.lowercase: bool = normalizer.lowercase
        self.strip_accents: bool | None = normalizer.strip_accents
        self.chinese_characters: bool = normalizer.handle_chinese_chars
        self.fold = fold or Fold()
        self._folding = fold_table(self.fold)
        self.hash = self._hash()

    @classmethod
    def of(
        cls,
        pieces: Many[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        chinese_characters: bool = True,
        fold: Fold | None = None,
    ) -> "Tokenizer":
        """Build from pieces in id order, BERT's five special tokens among them."""
        ids = {piece: i for i, piece in enumerate(pieces)}
        library = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        library.normalizer = normalizers.BertNormalizer(
            lowercase=lowercase,
            strip_accents=strip_accents,
            handle_chinese_chars=chinese_characters,
        )
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        if missing := [name for name in SPECIAL if name not in ids]:
            _refuse_without(missing)
        library.post_processor = processors.BertProcessing(
            ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
        )
        library.add_special_tokens(list(SPECIAL))
        return cls(library, fold)

    def encode(
        self, text: str, pair: str | None = None, *, max_length: int | None = None
    ) -> Sequence:
        """The Sequence `[CLS] text [SEP]`, or `[CLS] text [SEP] pair [SEP]` with segments 0 and 1.

        Spans count characters of `text`, or of `pair` where the segment is 1. Longer than
        `max_length` tokens, the longer of the two loses its end, and `truncated` counts what went.
        Raises UserError on a lone surrogate, or a `max_length` with no room for text.
        """
        return self.encode_batch([text], None if pair is None else [pair], max_length)[0]

    def encode_batch(
        self,
        texts: Many[str],
        pairs: Many[str] | None = None,
        max_length: int | None = None,
        *,
        spans: bool = True,
    ) -> list[Sequence]:
        """As `encode`, for many texts at once; `spans=False` leaves spans out and is faster."""
        least = 3 if pairs is None else 5
        if max_length is not None and max_length < least:
            raise UserError(f"max_length {max_length} leaves no room for text; use {least} or more")
        firsts = self._contents(texts, spans)
        if pairs is None:
            return [self._single(first, max_length) for first in firsts]
        seconds = self._contents(pairs, spans)
        both = zip(firsts, seconds, strict=True)
        return [self._pair(first, second, max_length) for first, second in both]

    def tokenize(self, texts: Many[str]) -> list[Ints]:
        """The token ids of each text without special tokens, [n] int64: for preparing corpora."""
        return [np.array(ids, dtype=np.int64) for ids, _ in self._contents(texts, spans=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text: `[PAD]`, `[CLS]`, `[SEP]` left out, no spaces inside Chinese."""
        silent = {self.vocabulary.pad, self.vocabulary.cls, self.vocabulary.sep}
        shown = [int(i) for i in ids if int(i) not in silent]
        return _CJK_GAP.sub("", self._library.decode(shown, skip_special_tokens=False))

    def normalise(self, text: str) -> str:
        """The text after folding and BERT's normalisation, as WordPiece will see it."""
        normalised: str = self._library.normalizer.normalize_str(text.translate(self._folding))
        return normalised

    def words(self, text: str) -> list[str]:
        """The normalised words: what white space, punctuation and Chinese characters separate."""
        found = self._library.pre_tokenizer.pre_tokenize_str(self.normalise(text))
        return [word for word, _ in found]

    def save(self, folder: str | Path, *, max_length: int | None = None) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json`, `vocab.txt`, as transformers reads them.

        A folding, which no Hugging Face file can hold, goes into `clozeworks.json` unless the
        folder has one. `max_length` is the model's window, written as `model_max_length`.
        """
        folder = Path(folder)
        with write_file(folder / "tokenizer.json") as out:
            out.write(self._library.to_str(pretty=True))
        with write_file(folder / "tokenizer_config.json") as out:
            json.dump(self._config(max_length), out, indent=2)
        with write_file(folder / "vocab.txt") as out:
            out.writelines(f"{piece}\n" for piece in self.pieces)
        if self.fold != Fold() and not (folder / CARD).exists():
            with write_file(folder / CARD) as out:
                out.write(Card(fold=self.fold, max_length=max_length).model_dump_json(indent=2))

    def _contents(self, texts: Many[str], spans: bool) -> Iterator[tuple[list[int], Ints | None]]:
        """Ids and spans of each text, without special tokens."""
        call = self._library.encode_batch if spans else self._library.encode_batch_fast
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            try:
                folded = [t.translate(self._folding) for t in chunk] if self._folding else chunk
                encodings = call(list(folded), add_special_tokens=False)
            except (TypeError, AttributeError):
                _refuse(texts)
            for encoding in encodings:
                ids = encoding.ids
                yield ids, _spans(encoding.offsets, len(ids)) if spans else None

    def _single(self, first: tuple[list[int], Ints | None], max_length: int | None) -> Sequence:
        ids, spans = first
        kept = len(ids) if max_length is None else min(len(ids), max_length - 2)
        return Sequence(
            np.array([self.vocabulary.cls, *ids[:kept], self.vocabulary.sep], dtype=np.int64),
            np.zeros(kept + 2, dtype=np.int64),
            None if spans is None else np.concatenate([_NONE, spans[:kept], _NONE]),
            truncated=len(ids) - kept,
        )

    def _pair(
        self,
        first: tuple[list[int], Ints | None],
        second: tuple[list[int], Ints | None],
        max_length: int | None,
    ) -> Sequence:
        cls, sep = self.vocabulary.cls, self.vocabulary.sep
        (ids, spans), (more, other) = first, second
        a, b = len(ids), len(more)
        if max_length is not None:
            a, b = shares(a, b, max_length - 3)
        joined = None
        if spans is not None and other is not None:
            joined = np.concatenate([_NONE, spans[:a], _NONE, other[:b], _NONE])
        return Sequence(
            np.array([cls, *ids[:a], sep, *more[:b], sep], dtype=np.int64),
            np.repeat(np.array([0, 1], dtype=np.int64), [a + 2, b + 1]),
            joined,
            truncated=len(ids) + len(more) - a - b,
        )

    def _config(self, max_length: int | None) -> dict[str, str | bool | int | None]:
        names = [f"{name[1:-1].lower()}_token" for name in SPECIAL]
        return {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.chinese_characters,
            **dict(zip(names, SPECIAL, strict=True)),
            **({} if max_length is None else {"model_max_length": max_length}),
        }

    def _hash(self) -> str:
        settings = [self.lowercase, self.strip_accents, self.chinese_characters]
        whole = json.dumps([self.pieces, settings, self.fold.model_dump()])
        return hashlib.sha256(whole.encode()).hexdigest()


_NONE = np.zeros((1, 2), dtype=np.int64)
"""The span of a special token."""


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each side stay when the longer one is cut until both fit in `room`.

    Where both are longer than half, the longer gets the odd token, or the second when equal: as
    the longest-first rule of the `tokenizers` library has it.
    """
    if first + second <= room:
        return first, second
    half, odd = divmod(room, 2)
    if min(first, second) > half:
        return (half + odd, half) if first > second else (half, half + odd)
    return (first, room - first) if first <= second else (room - second, second)


def _spans(offsets: list[tuple[int, int]], length: int) -> Ints:
    flat = np.fromiter(chain.from_iterable(offsets), dtype=np.int64, count=2 * length)
    return flat.reshape(length, 2)


def _pieces(library: tokenizers.Tokenizer) -> list[str]:
    vocabulary = library.get_vocab(with_added_tokens=True)
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    if missing := [name for name in SPECIAL if name not in vocabulary]:
        _refuse_without(missing)
    last = vocabulary[pieces[-1]]
    if last != len(pieces) - 1:
        raise UserError(
            f"the vocabulary has {len(pieces)} pieces but ids up to {last}; ids must run 0 … n-1"
        )
    return pieces


def _refuse_without(missing: list[str]) -> NoReturn:
    raise UserError(
        f"the vocabulary has no {', '.join(missing)}; BERT needs all of {', '.join(SPECIAL)}"
    )


def _refuse(texts: Many[str]) -> NoReturn:
    """Say which text the library could not take, and why."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {number} is not text but {type(text).__name__}: {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"text {number} holds a lone surrogate (U+{ord(text[error.start]):04X}) at "
                f"character {error.start}, which is no character; read the file with its own "
                "--encoding, or remove it"
            ) from error
    raise AssertionError("the tokenizers library refused texts that are sound")
