"""Every Chinese character a word of its own: for text in which nothing better is known."""

from collections.abc import Iterable

from clozeworks.text.segmenters.base import Segmenter


class Characters(Segmenter):
    """Every Chinese character is a word."""

    name = "characters"

    def cut(self, run: str) -> Iterable[str]:
        return run
