"""A tokenizer whose pieces are whole words, found in text that has no spaces between them."""

from collections.abc import Sequence as Many
from math import log

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from clozeworks.core.records import BERT_ROLES
from clozeworks.text.tokenizer import SPECIAL, Tokenizer

_RARE = 1e-3
"""How much of a word's cost is its rarity: too little for a rare word to count as two."""

DIGITS = 9
"""Digits of a cost: with more, what the library reads is not to the bit what it wrote."""


def word_tokenizer(words: Many[str], *, lowercase: bool) -> Tokenizer:
    """Build from words, the most frequent first; BERT's special tokens come before them.

    A stretch without spaces becomes the fewest words that it can be cut into, and of such cuts the
    one with the most frequent words; what is in no word becomes [UNK].
    """
    scale = _RARE / log(len(words) + 1)
    costs = [(word, round(-1.0 - scale * log(rank), DIGITS)) for rank, word in enumerate(words, 1)]
    special = [(name, 0.0) for name in SPECIAL]
    library = tokenizers.Tokenizer(
        models.Unigram([*special, *costs], unk_id=SPECIAL.index(BERT_ROLES["unk"]))
    )
    library.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=False, strip_accents=False, lowercase=lowercase
    )
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(BERT_ROLES[role], SPECIAL.index(BERT_ROLES[role])) for role in ("sep", "cls")]
    library.post_processor = processors.BertProcessing(*ends)
    library.add_special_tokens(list(SPECIAL))
    return Tokenizer(library)


def out_of_reach(tokenizer: Tokenizer) -> list[str]:
    """The pieces that the tokenizer does not find even in their own text, special ones aside."""
    words = [(i, piece) for i, piece in enumerate(tokenizer.pieces) if piece not in SPECIAL]
    found = tokenizer.tokenize([word for _, word in words])
    return [word for (i, word), ids in zip(words, found, strict=True) if ids.tolist() != [i]]
