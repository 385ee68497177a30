"""Word vectors from GloVe and Word2Vec files, text and binary, put into a BiLSTM."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clozeworks.core.errors import UserError
from clozeworks.core.files import explained, open_binary
from clozeworks.model.encoder import initialise
from clozeworks.model.families import sized
from clozeworks.model.heads import Model, encoder_of
from clozeworks.text.tokenizer import SPECIAL, Tokenizer

SUFFIXES = (".vec", ".glove", ".word2vec", ".w2v")
Floats = npt.NDArray[np.float32]


def is_vectors(path: Path) -> bool:
    """Whether a path names a file of word vectors: by its ending, packed (.gz) or not."""
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    return path.is_file() and inner.suffix.lower() in (*SUFFIXES, ".txt", ".bin")


def read_vectors(path: Path, limit: int | None = None) -> tuple[list[str], Floats]:
    """Words and their vectors [n, E] fp32, in the file's order, read by gensim.

    A file that starts with its own sizes is Word2Vec's, any other text GloVe's; `.bin` is binary.
    Raises UserError if it is none of these, or cut short.
    """
    try:
        from gensim.models import KeyedVectors
    except ImportError as error:
        raise UserError(
            f"reading {path} needs gensim: pip install 'clozeworks[vectors]'"
        ) from error
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    binary = inner.suffix.lower() == ".bin"
    with explained(path, "read"):
        options: dict[str, Any] = {"binary": binary, "limit": limit, "unicode_errors": "replace"}
        if not binary:
            options["no_header"] = not _has_sizes(path)
        try:
            found = KeyedVectors.load_word2vec_format(str(path), **options)
            if not binary:
                _check_last(path, found.vector_size)
        except (ValueError, EOFError, IndexError, TypeError, UnicodeError) as error:
            raise UserError(
                f"{path} cannot be read as word vectors ({error}); every line should hold a word "
                "and its numbers, all of them as many"
            ) from error
    return list(found.index_to_key), np.asarray(found.vectors, dtype=np.float32)


def _has_sizes(path: Path) -> bool:
    """Whether a text file's first line says how many words and numbers there are."""
    with open_binary(path) as stream:
        first = stream.readline().split()
    return len(first) == 2 and all(part.isdigit() for part in first)


def _check_last(path: Path, width: int) -> None:
    """Raise ValueError if the last line is cut short, which the library does not see."""
    if path.suffix == ".gz":
        return  # a packed file that is cut short does not unpack
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64 * (width + 4)))
        lines = stream.read().splitlines()
    if lines and len(lines[-1].split()) <= width:
        raise ValueError(f"the last line has fewer than {width} numbers")


def recurrent_model(words: list[str], matrix: Floats, size: str) -> tuple[Model, Tokenizer]:
    """A BiLSTM whose embedding holds the vectors, and a tokenizer whose pieces are the words.

    The unknown token gets the mean of all vectors, the other special tokens small random ones.
    """
    place = {word: i for i, word in enumerate(words) if word and not word.isspace()}
    for name in SPECIAL:
        place.pop(name, None)
    if not place:
        raise UserError("the file holds no words")
    lowercase = not any(word != word.lower() for word in place)
    tokenizer = Tokenizer.of([*SPECIAL, *place], lowercase=lowercase)
    width = matrix.shape[1]
    config = sized("lstm", size, len(tokenizer.pieces), embedding_size=width)
    model = Model(encoder_of(config), None, {})
    initialise(model, config.init_std, seed=0)
    table = model.encoder.embeddings.tokens.weight
    with torch.no_grad():
        table[len(SPECIAL) :] = torch.from_numpy(matrix[list(place.values())])
        table[tokenizer.vocabulary.unknown] = torch.from_numpy(matrix.mean(0))
    return model, tokenizer
