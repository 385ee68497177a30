"""Sentence-order prediction: do two segments stand as they were written? (Lan et al. 2020, 3.1)"""

from typing import Literal

from clozeworks.core.config import Settings
from clozeworks.core.records import Example, Prediction
from clozeworks.data.pairs import Pairs
from clozeworks.tasks.nsp import Nsp


class SopConfig(Settings):
    """Sentence-order prediction has nothing to set; how pairs are cut belongs to the data."""


class SopExample(Example):
    """Two texts, and whether they stand as they were written."""

    text: str
    """The first text."""
    text_pair: str
    """The second text."""
    label: Literal["ordered", "swapped"] | None = None
    """The truth; not needed to predict."""


class SopPrediction(Prediction):
    """Whether two texts stand as they were written."""

    label: Literal["ordered", "swapped"]
    probability: float
    """Probability that they do."""


class Sop(Nsp):
    """Tell two consecutive segments from the same two swapped (pretraining)."""

    name = "sop"
    Config, Example, Answer = SopConfig, SopExample, SopPrediction  # type: ignore[assignment]
    words = ("ordered", "swapped")

    @property
    def pairs(self) -> Pairs:
        return "order"
