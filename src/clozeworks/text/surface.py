"""Pieces of a vocabulary written into a text, as a person would write them."""

from collections.abc import Sequence

MARKS = ("##", "Ġ", "▁")
"""How vocabularies mark pieces: WordPiece those that continue a word; byte-level BPE and
SentencePiece those that begin one."""


def mark_of(pieces: Sequence[str]) -> str:
    """The mark that a vocabulary uses: the most frequent, for single letters may look like one."""
    return max(MARKS, key=lambda mark: sum(piece.startswith(mark) for piece in pieces))


def written(piece: str, mark: str) -> tuple[bool, str]:
    """Whether a piece is written close to what stands before it, and its letters."""
    if mark == "##":
        continues = piece.startswith(mark) and len(piece) > len(mark)
        return continues, piece.removeprefix(mark) if continues else piece
    close = not piece.startswith(mark)
    letters = piece.removeprefix(mark)
    return close, _from_bytes(letters) if mark == "Ġ" else letters


def put(text: str, places: Sequence[tuple[int, int]], pieces: Sequence[str], mark: str) -> str:
    """The text with a piece at each of the places (start, end), which are in order.

    A piece that continues a word loses the space before it. Everything else stays as it is.
    """
    out, last = "", 0
    for (start, end), piece in zip(places, pieces, strict=True):
        place = text[start:end]
        start += len(place) - len(place.lstrip())  # some tokenizers count the space before
        out += text[last:start]
        close, letters = written(piece, mark)
        out = out.rstrip() + letters if close else out + letters
        last = end
    return out + text[last:]


def _from_bytes(letters: str) -> str:
    """What byte-level BPE writes as one letter a byte; others stay as they are."""
    codes = [_BYTES.get(letter) for letter in letters]
    if None in codes:
        return letters
    return bytes(code for code in codes if code is not None).decode("utf-8", "replace")


def _letters() -> dict[str, int]:
    """The letter of each byte: its own where it can be seen, else one from beyond Latin-1."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(256 + i): b for i, b in enumerate(unseen)}


_BYTES = _letters()
