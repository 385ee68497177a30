"""Where sentences begin and end in English and Chinese text."""

import re

LONGEST = 600
"""Characters after which a run without an end mark is cut at a clause or a space."""

_ABBREVIATIONS = """
mr mrs ms dr prof st sr jr rev hon gen col maj capt cmdr lt sgt cpl gov sen rep pres messrs mme
mlle vs cf viz al ca approx e.g i.e a.m p.m ph.d m.d b.a m.a b.sc m.sc d.c u.s u.k u.n e.u jan feb
mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat inc ltd co corp
bros dept univ assn est mt ft ave blvd rd
"""
_BEFORE_NUMBERS = "no nos fig figs vol vols p pp ch sec eq art op ed eds para"
_STARTERS = """
the a an this that these those it he she they we you i his her its their our there here in on at by
for from with after before when while as if but and however although then since during
"""

ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
"""Words whose full stop ends no sentence; common words of their own are left out."""
BEFORE_NUMBERS = frozenset(_BEFORE_NUMBERS.split())
"""Abbreviations only where a number follows: "No. 5" but "He said no."."""
STARTERS = frozenset(_STARTERS.split())
"""Words that, with a capital, begin a new sentence after a dotted abbreviation: "the U.S. The"."""

_CHINESE_END = "。！？｡"
_END = ".!?…" + _CHINESE_END
_CLOSE = re.escape("”’」』）】》〉〕］｝＂\"')]}»›")
_HAN = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U000323af"
# The look-behind keeps a run of marks from being tried again from each of its characters.
_MARK = re.compile(
    rf"([{_END}](?<![{_END}][{_END}])[{_END}]*+)([{_CLOSE}]*+)"
    rf"(?:(?<=[…{_CHINESE_END}{_CLOSE}])|(?=[\s{_HAN}“‘]|\Z))\s*+"
)
_BLANK_LINE = re.compile(r"\n\s*\n")
_CLAUSE = re.compile(r"[，；、：]+[”’」』]*|[,;:]+[”’\"']?\s")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_INITIAL = re.compile(r"[A-Z]")
_INITIAL_AND_STOP = re.compile(r"[A-Z]\.")
_LAST_WORD = re.compile(r"[\w.]*\Z")
_FIRST_WORD = re.compile(r"[^\W\d_]*")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """The sentences of `text` as (first character, one past the last), in order.

    Every character that is not white space lies in exactly one span; no span begins or ends with
    white space. Closing quotes and brackets stay with their sentence. A blank line ends a
    sentence, a single line end does not. A sentence of more than `LONGEST` characters is cut.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for blank in _BLANK_LINE.finditer(text):
        _split(text, start, blank.start(), spans)
        start = blank.end()
    _split(text, start, len(text), spans)
    return spans


def _split(text: str, start: int, stop: int, spans: list[tuple[int, int]]) -> None:
    """Append the sentences of one paragraph to `spans`."""
    start = _skip_space(text, start, stop)
    for mark in _MARK.finditer(text, start, stop):
        if mark.end() < stop and not _ends(text, start, mark):
            continue
        end, after = mark.end(2), mark.end()
        if _opens(text, start, mark):
            end = after = mark.end(1)
        _append(text, start, end, spans)
        start = after
    _append(text, start, start + len(text[start:stop].rstrip()), spans)


def _skip_space(text: str, start: int, stop: int) -> int:
    while start < stop and text[start].isspace():
        start += 1
    return start


def _ends(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether a sentence that began at `start` ends with this mark; text follows it."""
    marks, closing, following = mark[1], mark[2], text[mark.end()]
    if following in "，、；：,;:—–":
        return False
    if any(m in _CHINESE_END for m in marks):
        return True
    if mark.end() == mark.end(2) and following.isascii():  # "a.)b", "wait…what"
        return False
    if following.islower() and (closing or marks[-1] in ".…"):
        return False
    return marks != "." or bool(closing) or not _abbreviates(text, start, mark)


def _abbreviates(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether the full stop belongs to the word before it, an initial or a list number."""
    stop = mark.start()
    found = _LAST_WORD.search(text, max(start, stop - 12), stop)
    word = found[0] if found else ""
    if _INITIAL.fullmatch(word) and (word != "I" or _INITIAL_AND_STOP.match(text, mark.end())):
        return True
    lower = word.lower()
    if _DOTTED.fullmatch(word) and lower not in ("e.g", "i.e"):
        first = _FIRST_WORD.match(text, mark.end())
        return first is None or first[0].lower() not in STARTERS
    if lower in BEFORE_NUMBERS:
        return text[mark.end()].isdigit()
    return lower in ABBREVIATIONS or _numbers(text, start, word, stop)


def _numbers(text: str, start: int, word: str, stop: int) -> bool:
    """Whether the sentence so far is only a number: "1. Introduction"."""
    return word.isdigit() and stop - len(word) == start


def _opens(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether a straight quote right after the mark opens what follows: 他来了。"你好"."""
    if mark[2][:1] != '"' or mark.end() != mark.end(2):
        return False
    return text.count('"', start, mark.start()) % 2 == 0


def _append(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> None:
    """Append one sentence, in parts if it is too long; nothing if it is empty."""
    while end - start > LONGEST:
        cut = _cut(text, start + LONGEST // 2, start + LONGEST)
        spans.append((start, start + len(text[start:cut].rstrip())))
        start = _skip_space(text, cut, end)
    if start < end:
        spans.append((start, end))


def _cut(text: str, low: int, high: int) -> int:
    """The last clause end from `low` to `high`, else the last space, else `high`."""
    clauses = [clause.end() for clause in _CLAUSE.finditer(text, low, high)]
    if clauses:
        return clauses[-1]
    spaces = [place for place in range(low, high) if text[place].isspace()]
    return spaces[-1] if spaces else high
