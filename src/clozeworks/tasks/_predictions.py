"""What a classifier answers: a class, a path, labels, or a number."""

from clozeworks.core.records import Prediction


class ClassifyPrediction(Prediction):
    """The class of one text, with its calibrated probability."""

    label: str | None
    """The answer; None is "I don't know": the best class is below the threshold."""
    best: str
    """The most probable class, whether answered or not."""
    confidence: float
    """Its calibrated probability."""
    scores: dict[str, float]
    """The probability of every class."""


class Level(Prediction):
    """One level of a path, and how probable it is."""

    label: str
    confidence: float


class PathPrediction(ClassifyPrediction):
    """The class of one text that is a path; the answer is the deepest level that is sure enough."""

    path: list[Level]
    """The levels of the most probable class, from the top down."""


class LabelsPrediction(Prediction):
    """Any number of labels of one text."""

    labels: list[str]
    """Those whose calibrated probability reaches their threshold, the most probable first."""
    scores: dict[str, float]
    """The probability of every label."""


class NumberPrediction(Prediction):
    """The number given to one text."""

    value: float
