"""Segmenters: one file each; how runs of Chinese characters become words."""

from importlib.util import find_spec

from clozeworks.core.errors import choose
from clozeworks.core.registry import Registry
from clozeworks.text.segmenters.base import Segmenter

SEGMENTERS: Registry[type[Segmenter]] = Registry("segmenter", "clozeworks.text.segmenters")


def pick_segmenter(name: str) -> Segmenter | None:
    """The segmenter of this name; `auto` is jieba where it is installed, `none` is None.

    Raises UserError for other names, and for jieba where it is not installed.
    """
    choose(name, ["auto", "none", *SEGMENTERS.names()], "words")
    if name == "none":
        return None
    if name == "auto":
        name = "jieba" if find_spec("jieba") else "characters"
    return SEGMENTERS.get(name)()
