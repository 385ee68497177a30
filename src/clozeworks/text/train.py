"""Training a WordPiece vocabulary: the same corpus and settings give the same bytes."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import tokenizers
from pydantic import Field
from tokenizers import models, normalizers, pre_tokenizers, trainers

from clozeworks.core.bundle import Fold
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.log import Meter
from clozeworks.text.alphabet import add_characters, no_characters, normalised_counts
from clozeworks.text.fold import fold_table
from clozeworks.text.tokenizer import SPECIAL, Tokenizer

BATCH = 1000
"""Lines held at once."""

ENOUGH_COVERAGE = 0.98
"""Single characters get the room they need to cover this share of the text, whatever their share
of the vocabulary; where they cannot, the size asked for is an error."""

# A word over WordPiece's limit of 100 characters is one [UNK]: nothing can be learnt from it, and
# a word of a megabyte would cost hours of merging. Chinese characters are words of their own.
_PART = r"[^\W\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
_ENDLESS = re.compile(rf"(?<!{_PART}){_PART}{{101,}}+")


class TokenizerSettings(Settings):
    """How a tokenizer is trained."""

    vocab_size: int = Field(default=30_000, ge=len(SPECIAL) + 1, le=10_000_000)
    """Pieces in the vocabulary, special tokens included."""
    lowercase: bool = True
    """Lower-case all text and strip its accents, as BERT's uncased models do."""
    min_frequency: int = Field(default=2, ge=1)
    """Two pieces seen together fewer times than this are not joined."""
    rarest_character: float = Field(default=1e-7, ge=0, lt=1)
    """Characters that make up less than this share of the text become [UNK]."""
    alphabet_share: float = Field(default=0.7, gt=0, le=1)
    """At most this share of the vocabulary goes to single characters, the most frequent first."""
    fold: Fold = Fold()
    """Folding of characters before everything else."""


def train_tokenizer(
    lines: Callable[[], Iterable[str]], settings: TokenizerSettings | None = None
) -> Tokenizer:
    """Train on the lines that each call of `lines` gives anew; it is called two or three times.

    Pieces are joined by frequency, as the `tokenizers` library's WordPiece trainer does. Memory
    grows with the number of different words, not with the corpus. Raises UserError if the corpus
    is empty, too small for `vocab_size`, or has more characters than `vocab_size` can hold.
    """
    settings = settings or TokenizerSettings()
    pieces = train_pieces(lines, settings)
    if len(pieces) < settings.vocab_size:
        raise UserError(
            f"the corpus is too small for a vocabulary of {settings.vocab_size:,}: it gives "
            f"{len(pieces):,} pieces; use --vocab-size {len(pieces)}, or more text"
        )
    return Tokenizer.of(pieces, lowercase=settings.lowercase, fold=settings.fold)


def train_pieces(lines: Callable[[], Iterable[str]], settings: TokenizerSettings) -> list[str]:
    """The pieces `train_tokenizer` makes a tokenizer of: as many as the corpus gives, at most
    `vocab_size`.
    """
    bare = Tokenizer.of(SPECIAL, lowercase=settings.lowercase, fold=settings.fold)
    counts, total = _counted(lines(), bare)
    characters = ranked_characters(counts, bare, settings.rarest_character)
    room = _room(characters, counts, settings)
    pieces = _merged(lines(), total, characters[:room], settings)
    spare = settings.vocab_size - len(pieces)
    if spare and room < len(characters):  # what joining leaves over goes to rarer characters
        pieces = _merged(lines(), total, characters[: room + spare], settings)
    return pieces


def ranked_characters(counts: dict[str, int], bare: Tokenizer, rarest: float) -> list[str]:
    """The single-character pieces worth having, the most frequent first.

    Each character is followed by its `##` form, save those that are always words of their own
    (Chinese characters, punctuation): no text could ever use that one.
    """
    least = rarest * sum(counts.values())
    ranked: list[str] = []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        if counts[character] < least:
            break
        continues = len(bare.words(f"a{character}a")) == 1
        ranked += [character, f"##{character}"] if continues else [character]
    return ranked


def _counted(lines: Iterable[str], bare: Tokenizer) -> tuple[dict[str, int], int]:
    """How often each character occurs after normalisation, and the number of lines."""
    counts, total = no_characters(), 0
    with Meter("counting characters", None, "lines") as meter:
        for batch in _batches(lines):
            add_characters(counts, batch)
            total += len(batch)
            meter.advance(len(batch))
    normalised = normalised_counts(counts, bare.normalise)
    if not normalised:
        raise UserError("the corpus holds no text; name a file with text in it")
    return normalised, total


def _room(ranked: list[str], counts: dict[str, int], settings: TokenizerSettings) -> int:
    """How many of the ranked pieces to start from; UserError if not even enough ones fit."""
    uncovered = (1 - ENOUGH_COVERAGE) * sum(counts.values())
    needed = len(ranked)
    for piece in reversed(ranked):
        uncovered -= counts[piece] if len(piece) == 1 else 0
        if uncovered < 0:
            break
        needed -= 1
    if needed > settings.vocab_size - len(SPECIAL):
        raise UserError(
            f"a vocabulary of {settings.vocab_size:,} is too small for the characters of this "
            f"corpus; use --vocab-size {needed + len(SPECIAL)} or more"
        )
    share = int(settings.vocab_size * settings.alphabet_share) - len(SPECIAL)
    return min(max(share, needed), len(ranked))


def _merged(
    lines: Iterable[str], total: int, alphabet: list[str], settings: TokenizerSettings
) -> list[str]:
    """Special tokens, alphabet, then joined pieces in the order in which they were joined."""
    alphabet = sorted(alphabet, key=lambda piece: (len(piece), piece))
    characters = [piece for piece in alphabet if len(piece) == 1]
    library = tokenizers.Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=settings.lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        show_progress=False,
        # The library breaks ties by id, and numbers what it was not given in hash order.
        special_tokens=[*SPECIAL, *alphabet],
        # Characters outside the initial alphabet are then the ones over the limit: left out.
        initial_alphabet=characters,
        limit_alphabet=len(characters),
    )
    library.train_from_iterator(_learnable(lines, total, settings.fold), trainer)
    vocabulary = library.get_vocab(with_added_tokens=False)
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def _learnable(lines: Iterable[str], total: int, fold: Fold) -> Iterator[list[str]]:
    """The lines in batches, folded, without the words WordPiece gives up on."""
    folding = fold_table(fold)
    with Meter("training the tokenizer", total, "lines") as meter:
        for batch in _batches(lines):
            folded = [line.translate(folding) for line in batch] if folding else batch
            yield [_ENDLESS.sub(" ", line) for line in folded]
            meter.advance(len(batch))


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(lines)
    while batch := list(islice(rest, BATCH)):
        yield batch
