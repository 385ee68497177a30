"""How well a vocabulary fits a text: what it covers, what it wastes."""

from collections.abc import Iterable
from itertools import islice

import numpy as np

from clozeworks.core.records import Ints, Record
from clozeworks.text.alphabet import (
    add_characters,
    is_chinese,
    no_characters,
    normalised_counts,
)
from clozeworks.text.tokenizer import Tokenizer

BATCH = 1000
"""Lines held at once."""

SHOWN = 20
"""Examples given of missing characters and of dead pieces."""


class Audit(Record):
    """What `audit` found. Characters are counted after normalisation, white space aside."""

    vocab_size: int
    """Pieces in the vocabulary."""
    characters: int
    """Characters in the text."""
    words: int
    """Words in the text: what white space, punctuation and Chinese characters separate."""
    tokens: int
    """Tokens the text becomes, special tokens aside."""
    character_coverage: float
    """Share of the text's characters that some piece of the vocabulary holds."""
    unknown_rate: float
    """Share of the tokens that are [UNK]."""
    tokens_per_word: float
    tokens_per_character: float
    dead_pieces: int
    """Pieces, special tokens aside, that the text never uses."""
    dead_examples: list[str]
    """The first of them in id order."""
    missing_characters: list[str]
    """The most frequent characters that no piece holds."""
    chinese_seen: int
    """Different Chinese characters in the text."""
    chinese_covered: int
    """How many of those the vocabulary holds."""
    chinese_in_vocabulary: int
    """Different Chinese characters in the vocabulary."""


def audit(tokenizer: Tokenizer, lines: Iterable[str]) -> Audit:
    """Measure the vocabulary on `lines`, read once and never held; an empty text gives zeros."""
    counts = no_characters()
    used = np.zeros(len(tokenizer.pieces), dtype=np.int64)
    rest = iter(lines)
    while batch := list(islice(rest, BATCH)):
        add_characters(counts, batch)
        used += np.bincount(np.concatenate(tokenizer.tokenize(batch)), minlength=len(used))
    return _report(tokenizer, normalised_counts(counts, tokenizer.normalise), used)


def _report(tokenizer: Tokenizer, characters: dict[str, int], used: Ints) -> Audit:
    """characters: counts after normalisation; used: how often each id was given, [vocabulary]."""
    pieces, vocabulary = tokenizer.pieces, tokenizer.vocabulary
    known = {c for i, p in enumerate(pieces) if i not in vocabulary.special for c in p}
    missing = [c for c in sorted(characters, key=lambda c: (-characters[c], c)) if c not in known]
    dead = [i for i in np.flatnonzero(used == 0) if i not in vocabulary.special]
    seen = {c for c in characters if is_chinese(c)}
    total, tokens = sum(characters.values()), int(used.sum())
    # Every word begins with one piece that has no ##, be it [UNK].
    words = sum(int(n) for piece, n in zip(pieces, used, strict=True) if piece[:2] != "##")
    return Audit(
        vocab_size=len(pieces),
        characters=total,
        words=words,
        tokens=tokens,
        character_coverage=1 - sum(characters[c] for c in missing) / max(total, 1),
        unknown_rate=int(used[vocabulary.unknown]) / max(tokens, 1),
        tokens_per_word=tokens / max(words, 1),
        tokens_per_character=tokens / max(total, 1),
        dead_pieces=len(dead),
        dead_examples=[pieces[i] for i in dead[:SHOWN]],
        missing_characters=missing[:SHOWN],
        chinese_seen=len(seen),
        chinese_covered=len(seen & known),
        chinese_in_vocabulary=sum(map(is_chinese, known)),
    )
