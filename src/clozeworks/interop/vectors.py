"""Word vectors from GloVe and Word2Vec files, text and binary, put into a BiLSTM."""

import codecs
from array import array
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clozeworks.core.errors import UserError
from clozeworks.core.files import explained, open_binary, sound_lines
from clozeworks.core.log import say
from clozeworks.model.encoder import initialise
from clozeworks.model.families import sized
from clozeworks.model.heads import Model, encoder_of
from clozeworks.text.alphabet import is_chinese
from clozeworks.text.lexicon import out_of_reach, word_tokenizer
from clozeworks.text.tokenizer import SPECIAL, Tokenizer

SUFFIXES = (".vec", ".glove", ".word2vec", ".w2v")
WIDEST = 65_536
"""Most numbers a vector may have."""
PACKED = 1_032
"""How many times smaller gzip can make a file."""
_WEIGHTS = (b"PK\x03\x04", b"\x80\x02")
"""How PyTorch's files of weights begin."""
JUDGED = 20_000
"""Words by which a file is judged to be Chinese, its first."""
Floats = npt.NDArray[np.float32]


def is_vectors(path: Path) -> bool:
    """Whether a path names a file of word vectors: by its ending, packed (.gz) or not."""
    return path.is_file() and _inner(path).suffix.lower() in (*SUFFIXES, ".txt", ".bin")


def _inner(path: Path) -> Path:
    return path.with_suffix("") if path.suffix == ".gz" else path


def read_vectors(path: Path, limit: int | None = None) -> tuple[list[str], Floats]:
    """Words and their vectors [n, E] fp32, in the file's order, each word once.

    A file that starts with its own sizes is Word2Vec's, any other text GloVe's; `.bin` is binary.
    Raises UserError if it is none of these, cut short, or holds NaN or infinity.
    """
    read = _read_binary if _inner(path).suffix.lower() == ".bin" else _read_text
    with explained(path, "read"):
        try:
            words, matrix = read(path, limit)
        except (ValueError, EOFError, IndexError, TypeError, OverflowError) as error:
            raise UserError(
                f"{path} cannot be read as word vectors ({error}); every line should hold a word "
                "and its numbers, all of them as many"
            ) from error
    first: dict[str, int] = {}
    for i, word in enumerate(words):
        if word is not None:  # the library's place for a word that came before
            first.setdefault(word, i)
    if len(first) < len(words):
        say(f"{len(words) - len(first):,} words were there before: the first of each counts")
        matrix = matrix[list(first.values())]
    return list(first), _finite(path, list(first), matrix)


def _finite(path: Path, words: list[str], matrix: Floats) -> Floats:
    """The matrix; raises UserError naming the first word whose vector is none."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path}: the vector of {words[bad[0]]!r} holds NaN or infinity; remove its line"
        )
    return matrix


# === Text ===


def _read_text(path: Path, limit: int | None) -> tuple[list[str | None], Floats]:
    """Raises ValueError at a line that is not one."""
    words: list[str | None] = []
    numbers = array("f")
    with open_binary(path) as raw:
        lines = sound_lines(raw, path)
        first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
        sizes = _sizes(first)
        width = sizes[1] if sizes else _numbers_at_end(first)
        rows = enumerate(lines if sizes else chain([first], lines), 2 if sizes else 1)
        for number, line in rows:
            if len(words) == limit:
                break
            if line[:1].isspace():  # a word that is white space, or no line at all
                continue
            words.append(_take(line, width, number, numbers))
    if sizes and len(words) < min(sizes[0], limit or sizes[0]):
        raise ValueError(f"it speaks of {sizes[0]:,} words, but holds {len(words):,}")
    return words, np.frombuffer(numbers, dtype=np.float32).reshape(-1, width)


def _sizes(line: bytes) -> tuple[int, int] | None:
    """How many words and numbers a file's first line says there are; None if it does not say."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    count, width = map(int, parts)
    if not 0 < width <= WIDEST:
        raise ValueError(f"it speaks of {width:,} numbers a word, not of 1 to {WIDEST:,}")
    return count, width


def _numbers_at_end(line: bytes) -> int:
    """How many numbers a line ends in; its first part is a word."""
    parts = line.split()[1:]
    width = next((i for i, part in enumerate(reversed(parts)) if not _is_number(part)), len(parts))
    if not 0 < width <= WIDEST:
        raise ValueError("the first line does not end in numbers")
    return width


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _take(line: bytes, width: int, number: int, numbers: "array[float]") -> str:
    """The word of a line, spaces in it or not; its numbers are put after the others."""
    word, *parts = line.rsplit(None, width)
    if len(parts) < width:
        raise ValueError(f"line {number:,} has fewer than {width} numbers")
    numbers.extend(map(float, parts))
    last = word.split()[-1]
    if last != word and b"." in last and _is_number(last):
        raise ValueError(f"line {number:,} has more than {width} numbers")
    return word.decode("utf-8", "replace")


# === Binary ===


def _read_binary(path: Path, limit: int | None) -> tuple[list[str | None], Floats]:
    """By gensim, once the sizes at the file's beginning are seen to fit into it."""
    with open_binary(path) as stream:
        first = stream.readline(64)
    if path.suffix != ".gz" and first.startswith(_WEIGHTS):
        raise UserError(f"{path} holds a model's weights; name its folder: {path.parent}")
    sizes = _sizes(first)
    if sizes is None:
        raise ValueError("it does not begin with its sizes, as Word2Vec's binary files do")
    count, width = sizes
    room = path.stat().st_size * (PACKED if path.suffix == ".gz" else 1)
    if min(count, limit or count) * (4 * width + 1) > room:
        raise ValueError(f"it speaks of {count:,} words of {width} numbers, more than it can hold")
    try:
        from gensim.models import KeyedVectors
    except ImportError as error:
        raise UserError(
            f"reading {path} needs gensim: pip install 'clozeworks[vectors]'"
        ) from error
    found = KeyedVectors.load_word2vec_format(
        str(path), binary=True, limit=limit, unicode_errors="replace"
    )
    return list(found.index_to_key), np.asarray(found.vectors, dtype=np.float32)


# === A model ===


def recurrent_model(words: list[str], matrix: Floats, size: str) -> tuple[Model, Tokenizer]:
    """A BiLSTM whose embedding holds the vectors, and a tokenizer whose pieces are the words.

    The unknown token gets the mean of all vectors, the other special tokens small random ones.
    """
    place = {word: i for i, word in enumerate(words) if word and not word.isspace()}
    for name in SPECIAL:
        place.pop(name, None)
    if not place:
        raise UserError("the file holds no words")
    tokenizer = _tokenizer_of(list(place))
    width = matrix.shape[1]
    config = sized("lstm", size, len(tokenizer.pieces), embedding_size=width)
    model = Model(encoder_of(config), None, {})
    initialise(model, config.init_std, seed=0)
    table = model.encoder.embeddings.tokens.weight
    with torch.no_grad():
        table[len(SPECIAL) :] = torch.from_numpy(matrix[list(place.values())])
        table[tokenizer.vocabulary.unknown] = torch.from_numpy(matrix.mean(0))
    return model, tokenizer


def _tokenizer_of(words: list[str]) -> Tokenizer:
    """One that cuts Chinese into the words, where most of them are Chinese; else BERT's.

    BERT's own cuts at each Chinese character, and so finds no Chinese word of several.
    """
    lowercase = not any(word != word.lower() for word in words)
    frequent = words[:JUDGED]
    if 2 * sum(any(map(is_chinese, word)) for word in frequent) > len(frequent):
        tokenizer = word_tokenizer(words, lowercase=lowercase)
    else:
        tokenizer = Tokenizer.of([*SPECIAL, *words], lowercase=lowercase, strip_accents=False)
    if missed := out_of_reach(tokenizer):
        say(
            f"{len(missed):,} of {len(words):,} words will never be found in a text (such as "
            f"{', '.join(missed[:3])}), for texts are cut at spaces, punctuation and Chinese "
            "characters: spell them without, or leave their lines out to save memory"
        )
    return tokenizer
