"""Chinese words by jieba's dictionary (github.com/fxsjy/jieba)."""

import warnings
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from clozeworks.core.errors import UserError
from clozeworks.text.segmenters.base import Segmenter


class Jieba(Segmenter):
    """Words of jieba's dictionary, others guessed from how characters join (extra `zh`)."""

    name = "jieba"

    def __init__(self) -> None:
        try:
            self.version = version("jieba")
        except PackageNotFoundError as error:
            raise UserError(
                "words by jieba need the package jieba: pip install 'clozeworks[zh]', or give "
                "--words characters"
            ) from error

    def cut(self, run: str) -> Iterable[str]:
        words: Iterable[str] = _dictionary().cut(run)
        return words


@lru_cache
def _dictionary() -> Any:
    """A segmenter of our own, read from jieba's dictionary: a second, some 100 MB.

    Its own loading would talk to stderr and keep a copy in the shared temporary folder, which
    another version or another person may have written; and words that a script added to jieba's
    global dictionary must not change shards.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba
    own = jieba.Tokenizer()
    with own.get_dict_file() as stream:
        own.FREQ, own.total = own.gen_pfdict(stream)
    own.initialized = True
    return own
