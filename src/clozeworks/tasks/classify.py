"""Single-label classification of a text or a pair of texts."""

from clozeworks.core.records import Example, Prediction


class ClassifyExample(Example):
    """A text, or a pair of texts, and its class."""

    text: str
    """The text to classify."""
    text_pair: str | None = None
    """A second text, where the class is of the pair."""
    label: str | None = None
    """The class; not needed to predict."""


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
