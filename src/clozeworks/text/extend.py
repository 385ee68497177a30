"""More pieces for a vocabulary: those that would save a corpus most tokens, or those of a file."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from clozeworks.core.errors import UserError
from clozeworks.core.files import read_lines
from clozeworks.core.log import Meter, say
from clozeworks.text.alphabet import is_chinese
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.train import TokenizerSettings, train_pieces

CANDIDATES = 30_000
"""Size of the vocabulary that is trained on the corpus to choose from."""
WORDS_HELD = 1 << 20
"""Different words counted at once; past that, the rarest are forgotten."""
LONGEST = 100
"""Characters of the longest word that WordPiece looks at."""


def cut(piece: str, known: Collection[str]) -> list[str] | None:
    """The known pieces that `piece` falls into, greedily from the left; None where one is missing.

    A piece that begins with `##` is cut as what follows inside a word.
    """
    text, start = piece.removeprefix("##"), 0
    found = []
    while start < len(text):
        before = "##" if start or text != piece else ""
        ends = range(len(text), start, -1)
        part = next((p for end in ends if (p := before + text[start:end]) in known), None)
        if part is None:
            return None
        found.append(part)
        start += len(part) - len(before)
    return found


@dataclass
class Words:
    """The words of a corpus as a tokenizer sees them, and how often each occurs."""

    counts: Counter[str]

    @classmethod
    def of(cls, lines: Iterable[str], tokenizer: Tokenizer) -> "Words":
        """Count; of more than WORDS_HELD different words the rarest are forgotten on the way."""
        counts: Counter[str] = Counter()
        least = 1
        with Meter("counting words", None, "lines") as meter:
            for line in lines:
                counts.update(tokenizer.words(line))
                meter.advance(1)
                while len(counts) > WORDS_HELD:
                    counts = Counter({w: n for w, n in counts.items() if n > least})
                    least += 1
        return cls(Counter({w: n for w, n in counts.items() if len(w) <= LONGEST}))

    def tokens(self, known: Collection[str]) -> tuple[int, int]:
        """How many tokens the words become with these pieces, and how many of them are [UNK]."""
        total = unknown = 0
        for word, count in self.counts.items():
            pieces = cut(word, known)
            total += count * len(pieces or [word])
            unknown += count if pieces is None else 0
        return total, unknown


def find_pieces(
    lines: Callable[[], Iterable[str]], tokenizer: Tokenizer, count: int, least: int
) -> tuple[list[str], Words]:
    """At most `count` new pieces for the corpus, most useful first, and the corpus's words.

    Chinese characters that the vocabulary lacks come first, the most frequent before the others;
    then, of the pieces of a vocabulary trained on the corpus, again and again the one that saves
    most tokens once those before it are there. None saves, or is seen, fewer than `least` times.
    The same corpus gives the same pieces; memory grows with the number of different words, up to
    a million. Raises UserError if no piece is worth adding.
    """
    words = Words.of(lines(), tokenizer)
    known = set(tokenizer.pieces)
    chosen = _missing_characters(words, known, least)[:count]
    settings = TokenizerSettings(
        vocab_size=CANDIDATES + 2 * count,
        lowercase=bool(tokenizer.lowercase),
        fold=tokenizer.fold,
    )
    trained = train_pieces(lines, settings)
    candidates = [piece for piece in trained if piece not in known and piece not in chosen]
    chosen += _best(candidates, words, known | set(chosen), count - len(chosen), least)
    if not chosen:
        raise UserError(
            f"no piece would save {least} tokens or more: the vocabulary fits this text already; "
            "give more text, or pretrain on it as it is"
        )
    return chosen, words


def _missing_characters(words: Words, known: Collection[str], least: int) -> list[str]:
    """Chinese characters that no piece stands for, the most frequent first."""
    found = [
        (-count, word)
        for word, count in words.counts.items()
        if len(word) == 1 and count >= least and word not in known and is_chinese(word)
    ]
    return [word for _, word in sorted(found)]


def _best(
    candidates: list[str], words: Words, known: set[str], count: int, least: int
) -> list[str]:
    """Choose greedily: a piece's gain is counted anew whenever it seems to be the best.

    Counting lazily is exact where a piece never becomes more useful through another (Minoux 1978),
    and near it here.
    """
    costs = {word: _cost(word, known) for word in words.counts}
    places = _places(candidates, costs)
    bounds = {p: sum(words.counts[w] * (costs[w] - 1) for w in places[p]) for p in places}
    waiting = [(-bound, piece, -1) for piece, bound in bounds.items() if bound >= least]
    heapq.heapify(waiting)
    chosen: list[str] = []
    while waiting and len(chosen) < count:
        _, piece, counted = heapq.heappop(waiting)
        known.add(piece)
        if counted == len(chosen):
            chosen.append(piece)
            costs |= {word: _cost(word, known) for word in places[piece]}
            continue
        gain = sum(words.counts[w] * (costs[w] - _cost(w, known)) for w in places[piece])
        known.remove(piece)
        if gain >= least:
            heapq.heappush(waiting, (-gain, piece, len(chosen)))
    return chosen


def _cost(word: str, known: Collection[str]) -> int:
    """Tokens a word becomes; an unknown one costs a token each character, and one more."""
    pieces = cut(word, known)
    return len(word) + 1 if pieces is None else len(pieces)


def _places(candidates: Iterable[str], costs: dict[str, int]) -> dict[str, list[str]]:
    """For each candidate the words, of those not one token already, in which it could be used."""
    wanted = set(candidates)
    longest = max((len(piece.removeprefix("##")) for piece in wanted), default=0)
    places: dict[str, list[str]] = defaultdict(list)
    for word, cost in costs.items():
        if cost > 1:
            for piece in sorted(_parts(word, longest) & wanted):
                places[piece].append(word)
    return places


def _parts(word: str, longest: int) -> set[str]:
    """Every piece that could stand somewhere in a word."""
    return {
        ("##" if start else "") + word[start:end]
        for start in range(len(word))
        for end in range(start + 1, min(len(word), start + longest) + 1)
    }


def read_pieces(path: Path, tokenizer: Tokenizer, encoding: str = "utf-8") -> list[str]:
    """New pieces from a file, one a line, `##` before what stands inside a word.

    Each is brought to the form in which the tokenizer sees text; blank lines and pieces already
    known are passed over. Raises UserError naming a line that no single piece can stand for.
    """
    known, chosen = set(tokenizer.pieces), dict[str, None]()
    passed = 0
    for number, line in enumerate(read_lines(path, encoding), 1):
        if not line.strip():
            continue
        piece = _as_seen(line.strip(), tokenizer, f"{path}, line {number}")
        passed += piece in known
        if piece not in known:
            chosen[piece] = None
    if passed:
        say(f"{path}: {passed:,} pieces are in the vocabulary already")
    if not chosen:
        raise UserError(f"{path} names no piece that the vocabulary lacks; nothing is to be added")
    return list(chosen)


def _as_seen(line: str, tokenizer: Tokenizer, where: str) -> str:
    inside = "##" if line.startswith("##") and len(line) > 2 else ""
    words = tokenizer.words(line.removeprefix(inside))
    if len(words) != 1:
        raise UserError(
            f"{where}: the tokenizer takes {line!r} apart into {len(words)} words before it looks "
            "for pieces, so that no piece can stand for it; give its words, one a line"
        )
    if len(words[0]) > LONGEST:
        raise UserError(f"{where}: over {LONGEST} characters a word is [UNK]; leave it out")
    return inside + words[0]
