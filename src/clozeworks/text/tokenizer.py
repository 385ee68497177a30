"""A tokenizer: text in, token ids and the characters they cover out."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from clozeworks.core.bundle import CARD, Card, Fold
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_file
from clozeworks.core.records import BERT_ROLES, Ints, Sequence, Vocabulary
from clozeworks.text.fold import fold_table
from clozeworks.text.form import Form, Part

SPECIAL = tuple(BERT_ROLES.values())
"""BERT's special tokens, in the order a new vocabulary gives them their ids."""

CHUNK = 1024
"""Texts given to the library at once: its results take some 150 bytes a token."""

_CJK = r"[\u2018-\u201d\u2014\u2026\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U000323af]"
_CJK_GAP = re.compile(f"(?<={_CJK}) (?={_CJK})")


class Tokenizer:
    """BERT's normalisation and WordPiece (Devlin et al. 2019; Wu et al. 2016), offsets kept; or
    whatever else a `tokenizer.json` holds.

    pieces: the vocabulary in id order. hash: SHA-256 over the pieces and every setting that decides
    what ids a text gets.
    """

    def __init__(
        self,
        library: tokenizers.Tokenizer,
        fold: Fold | None = None,
        roles: Mapping[str, str] = BERT_ROLES,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Take over `library`; `roles` says which piece is pad, unk, cls, sep and mask.

        `config` is the tokenizer_config.json it came with, where it is not BERT's. Raises UserError
        if a special token is missing or ids are not 0 … n-1.
        """
        library.no_truncation()
        library.no_padding()
        self._library = library
        self._given_config = dict(config or {})
        self.roles = dict(roles)
        self.pieces = _pieces(library, self.roles)
        self.is_wordpiece = isinstance(library.model, models.WordPiece)
        more = [] if self.is_wordpiece else _special_tokens(library)
        self.vocabulary = Vocabulary.of(self.pieces, self.roles, more)
        self.form = Form.of(library, self.vocabulary)
        self.fold = fold or Fold()
        self._folding = fold_table(self.fold)
        self.hash = self._hash()

    @property
    def kind(self) -> str:
        """What the library calls the model of the tokenizer: WordPiece, BPE, Unigram."""
        return type(self._library.model).__name__

    @property
    def lowercase(self) -> bool | None:
        """Whether text is lower-cased; None where the tokenizer is not BERT's."""
        return self._library.normalizer.lowercase if self.is_wordpiece else None

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
            _refuse_without(missing, BERT_ROLES)
        library.post_processor = processors.BertProcessing(
            ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
        )
        library.add_special_tokens(list(SPECIAL))
        return cls(library, fold)

    def with_pieces(self, more: Many[str]) -> "Tokenizer":
        """A copy whose vocabulary goes on with `more`, of which it has none; WordPiece only."""
        values = json.loads(self._library.to_str())
        ids = {piece: len(self.pieces) + i for i, piece in enumerate(more)}
        values["model"]["vocab"] |= ids
        library = tokenizers.Tokenizer.from_str(json.dumps(values))
        return Tokenizer(library, self.fold, self.roles, self._given_config)

    def with_special(self, pieces: Many[str]) -> "Tokenizer":
        """A copy that takes some pieces of its vocabulary for one token wherever text has them.

        What a task puts into texts by its id, other programs can then write as it is called.
        """
        library = tokenizers.Tokenizer.from_str(self._library.to_str())
        library.add_special_tokens([p for p in pieces if library.token_to_id(p) is not None])
        return Tokenizer(library, self.fold, self.roles, self._given_config)

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
        parts = self.form.single if pairs is None else self.form.pair
        added = sum(len(part.ids) for part in parts)
        room = None if max_length is None else max_length - added
        if room is not None and room < (1 if pairs is None else 2):
            least = added + (1 if pairs is None else 2)
            raise UserError(f"max_length {max_length} leaves no room for text; use {least} or more")
        columns = [self._contents(side, spans) for side in (texts, pairs) if side is not None]
        return [_laid_out(parts, list(row), room) for row in zip(*columns, strict=True)]

    def tokenize(self, texts: Many[str]) -> list[Ints]:
        """The token ids of each text without special tokens, [n] int64: for preparing corpora."""
        return [np.array(ids, dtype=np.int64) for ids, _ in self._contents(texts, spans=False)]

    def tokenize_with_spans(self, texts: Many[str]) -> list[tuple[Ints, Ints]]:
        """As `tokenize`, and the characters each token covers, [n, 2] int64."""
        return [
            (np.array(ids, dtype=np.int64), spans)
            for ids, spans in self._contents(texts, spans=True)
            if spans is not None
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text: pad, cls and sep left out, no spaces inside Chinese."""
        silent = {self.vocabulary.pad, self.vocabulary.cls, self.vocabulary.sep}
        shown = [int(i) for i in ids if int(i) not in silent]
        return _CJK_GAP.sub("", self._library.decode(shown, skip_special_tokens=False))

    def folded(self, text: str) -> str:
        """The text after folding, which changes characters one for one."""
        return text.translate(self._folding)

    def normalise(self, text: str) -> str:
        """The text after folding and normalisation, as the model of the tokenizer will see it."""
        folded = self.folded(text)
        normalizer = self._library.normalizer
        return folded if normalizer is None else str(normalizer.normalize_str(folded))

    def words(self, text: str) -> list[str]:
        """The normalised words: what white space, punctuation and Chinese characters separate."""
        splitter = self._library.pre_tokenizer or pre_tokenizers.BertPreTokenizer()
        found = splitter.pre_tokenize_str(self.normalise(text))
        return [word for word, _ in found]

    def save(self, folder: str | Path, *, max_length: int | None = None) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json`, of WordPiece `vocab.txt` too.

        A folding, which no Hugging Face file can hold, goes into `clozeworks.json` unless the
        folder has one. `max_length` is the model's window, written as `model_max_length`.
        """
        folder = Path(folder)
        with write_file(folder / "tokenizer.json") as out:
            out.write(self._library.to_str(pretty=True))
        with write_file(folder / "tokenizer_config.json") as out:
            json.dump(self._config(max_length), out, indent=2)
        if self.is_wordpiece:
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

    def _config(self, max_length: int | None) -> dict[str, Any]:
        """What tokenizer_config.json says; what it names is found in the library alone."""
        window = {} if max_length is None else {"model_max_length": max_length}
        tokens = {f"{role}_token": piece for role, piece in self.roles.items()}
        if not self.is_wordpiece:
            return {**self._given_config, **tokens, **window}
        normalizer = self._library.normalizer
        return {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer.lowercase,
            "strip_accents": normalizer.strip_accents,
            "tokenize_chinese_chars": normalizer.handle_chinese_chars,
            **{f"{role}_token": self.roles[role] for role in ("pad", "unk", "cls", "sep", "mask")},
            **window,
        }

    def _hash(self) -> str:
        normalizer = self._library.normalizer
        settings: Any
        if self.is_wordpiece:
            strip = normalizer.strip_accents
            settings = [normalizer.lowercase, strip, normalizer.handle_chinese_chars]
            odd = [normalizer.clean_text, self._library.model.max_input_chars_per_word]
            settings += odd if odd != [True, 100] else []
        else:
            settings = self._library.to_str()
        whole = json.dumps([self.pieces, settings, self.fold.model_dump()])
        return hashlib.sha256(whole.encode()).hexdigest()


def _laid_out(
    parts: list[Part], texts: list[tuple[list[int], Ints | None]], room: int | None
) -> Sequence:
    """A Sequence of the texts' ids with special ones around them, cut to fit into `room`."""
    whole = [len(ids) for ids, _ in texts]
    kept = whole
    if room is not None:
        second = whole[1] if len(whole) > 1 else 0
        kept = list(shares(whole[0], second, room))
    ids: list[int] = []
    spans: list[Ints] = []
    lengths = []
    for special, text, _ in parts:
        taken = special if text is None else texts[text][0][: kept[text]]
        ids += taken
        lengths.append(len(taken))
        found = None if text is None else texts[text][1]
        spans.append(np.repeat(_NONE, len(taken), 0) if found is None else found[: len(taken)])
    return Sequence(
        np.array(ids, dtype=np.int64),
        np.repeat(np.array([part.segment for part in parts], dtype=np.int64), lengths),
        None if texts[0][1] is None else np.concatenate(spans),
        truncated=sum(whole) - sum(kept),
    )


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


def _pieces(library: tokenizers.Tokenizer, roles: Mapping[str, str]) -> list[str]:
    vocabulary = library.get_vocab(with_added_tokens=True)
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    if missing := [name for name in roles.values() if name not in vocabulary]:
        _refuse_without(missing, roles)
    last = vocabulary[pieces[-1]]
    if last != len(pieces) - 1:
        raise UserError(
            f"the vocabulary has {len(pieces)} pieces but ids up to {last}; ids must run 0 … n-1"
        )
    return pieces


def _special_tokens(library: tokenizers.Tokenizer) -> list[str]:
    added = library.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


def _refuse_without(missing: list[str], roles: Mapping[str, str]) -> NoReturn:
    raise UserError(
        f"the vocabulary has no {', '.join(missing)}; all of {', '.join(roles.values())} are needed"
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
