"""What a person asks of a text, and is answered."""

from clozeworks.core.records import Example, Prediction, Record


class Answers(Record):
    """The right answers, none where the text has none; in the form of SQuAD."""

    text: list[str]
    """Each as it stands in the text."""
    answer_start: list[int]
    """The first character of each, counted from 0; -1 where it does not stand there literally."""


class QaExample(Example):
    """A question, a text, and the answers."""

    context: str
    """The text in which the answer is looked for."""
    question: str
    """The question."""
    answers: Answers | None = None
    """The answers; not needed to predict."""


class Candidate(Record):
    """A stretch of the text that may be the answer."""

    text: str
    start: int
    """Its first character."""
    end: int
    """One past its last."""
    probability: float
    """Among the KEPT likeliest and no answer."""


class QaPrediction(Prediction):
    """The answer to one question."""

    answer: str | None
    """As it stands in the text; None where it is not there."""
    start: int | None
    """Its first character."""
    end: int | None
    """One past its last."""
    confidence: float
    """The probability of what was answered."""
    margin: float
    """How much more no answer scores than the best one."""
    candidates: list[Candidate]
    """The likeliest answers, whether given or not, the first first."""


def texts_of(example: QaExample) -> list[str]:
    """The right answers as they are written; none where the text has none."""
    return [] if example.answers is None else example.answers.text
