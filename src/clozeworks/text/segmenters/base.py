"""What every segmenter answers: the words of a run of Chinese characters."""

from abc import ABC, abstractmethod
from collections.abc import Iterable


class Segmenter(ABC):
    """Cuts Chinese, which has no spaces, into words; made without arguments, loaded at first use.

    The same run must always be cut the same way, in every process.
    """

    name: str
    version = ""
    """What else decides its cuts, such as the version of a dictionary; empty for nothing."""

    @property
    def identity(self) -> str:
        """Name and version: what folders of shards remember."""
        return f"{self.name} {self.version}".strip()

    @abstractmethod
    def cut(self, run: str) -> Iterable[str]:
        """The words of a run of Chinese characters, in order, none empty, nothing left out."""
