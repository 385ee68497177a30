"""The ranking to beat: BM25, which counts the words that a query and a text have in common."""

import re
from collections import Counter
from collections.abc import Sequence
from math import log

from clozeworks.data.split import text_hash

SATURATION = 1.5
"""How soon more of the same word says nothing more (k1 of Robertson and Zaragoza 2009)."""
LENGTH = 0.75
"""How far a long text counts its words for less (b there)."""

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")


def lexical_orders(queries: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[int]]:
    """The numbers of each query's candidates, the best first.

    How rare a word is, is counted over all different candidates. Those of one score stand in an
    order that only their texts decide, so that the order given tells nothing.
    """
    holding: Counter[str] = Counter()
    seen: set[int] = set()
    total = 0
    for text in (text for own in candidates for text in own):
        if (key := text_hash(text)) not in seen:
            seen.add(key)
            counts = _terms(text)
            holding.update(counts.keys())
            total += counts.total()
    mean = total / max(1, len(seen)) or 1.0
    rarity = {t: log(1 + (len(seen) - n + 0.5) / (n + 0.5)) for t, n in holding.items()}

    def score(query: Counter[str], counts: Counter[str]) -> float:
        length = 1 - LENGTH + LENGTH * counts.total() / mean
        shared = query.keys() & counts.keys()
        return sum(
            rarity[t] * counts[t] * (SATURATION + 1) / (counts[t] + SATURATION * length)
            for t in sorted(shared)
        )

    orders = []
    for query, own in zip(queries, candidates, strict=True):
        asked = _terms(query)
        keys = [(-score(asked, _terms(text)), text_hash(text)) for text in own]
        orders.append(sorted(range(len(own)), key=lambda i: keys[i]))  # used at once
    return orders


def _terms(text: str) -> Counter[str]:
    """The words of a text, and of Chinese its characters and pairs of them."""
    words = _WORD.findall(text.casefold())
    pairs = re.findall(rf"(?=([{_HAN}]{{2}}))", text)
    return Counter([*words, *pairs])
