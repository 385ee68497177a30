"""Multiple choice: which of several options answers a question about a text."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.core.records import Example, Prediction, Sequence
from clozeworks.data.batches import Batch
from clozeworks.metrics.calibrate import fit_temperature, softmax
from clozeworks.model.heads import Model
from clozeworks.tasks._scored import Floats, Naming, Scored, ScoredConfig, listwise, place_of
from clozeworks.tasks.base import Part, few_rows
from clozeworks.text.tokenizer import Tokenizer

ABSENT = -1e6
"""The score of an option that a row with fewer of them has not: a probability of exactly 0."""


class ChoiceConfig(ScoredConfig):
    """How texts and options are read and answers named."""

    kept: ClassVar[str] = "option_length"

    option_length: int = Field(default=64, ge=1)
    """Most tokens of a question with an option; longer ones lose their beginning, which is
    counted."""
    answer_form: Naming = "text"
    """How the right option is named: by its text, its number from 0 or from 1, or its letter."""


class ChoiceExample(Example):
    """A text, a question about it, options, and which of them is right."""

    context: str
    """The text that the question is about."""
    question: str | None = None
    """The question, where there is one."""
    options: list[str]
    """The options, two or more; rows may have different numbers of them."""
    answer: str | None = None
    """The right option: its text, or its number or letter where --answer-form says so."""

    @field_validator("options")
    @classmethod
    def _a_choice(cls, options: list[str]) -> list[str]:
        if len(options) < 2:
            raise ValueError(f"{options} is no choice; give two options or more")
        return options


class ChoicePrediction(Prediction):
    """The option chosen for one row."""

    option: str
    """The likeliest option, as it was given."""
    index: int
    """Its number, counted from 0."""
    confidence: float
    """Its calibrated probability."""
    probabilities: list[float]
    """The calibrated probability of each option, in their order."""


class Choice(Scored):
    """Choose which of several options answers a question about a text."""

    name = "choice"
    asked_with = frozenset({"question"})
    Config, Example, Answer = ChoiceConfig, ChoiceExample, ChoicePrediction
    cut_by = ("option_length",)
    free = frozenset({"answer_form"})
    answers = frozenset({"answer"})
    moving_first = True
    config: ChoiceConfig

    @property
    def question(self) -> str:
        return f"{self.name!r} with answer_form {self.config.answer_form!r}"

    # === Data ===

    def features(
        self, examples: Items[ChoiceExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        """Each option as `[CLS] context [SEP] question option [SEP]`, windows over the context."""
        contexts = tokenizer.tokenize([e.context for e in examples])
        asked = iter(tokenizer.tokenize([text for e in examples for text in _asked(e)]))
        most, found = self.config.option_length, []
        for example, context in zip(examples, contexts, strict=True):
            group: list[Sequence] = []
            for i in range(len(example.options)):
                ids = next(asked)
                kept, cut = ids[-most:], max(0, len(ids) - most)
                group += self.windows_of(kept, context, tokenizer, i, cut)
            found.append(group)
        return found

    @classmethod
    def key(cls, example: ChoiceExample) -> str:
        """The context, so that all questions about it fall on one side."""
        return example.context

    @classmethod
    def shown(cls, example: ChoiceExample) -> tuple[list[str], None]:
        """The context, and the longest of what is read beside it."""
        return [example.context, max(_asked(example), key=len)], None

    def check(self, example: ChoiceExample) -> None:
        super().check(example)
        self.target(example)

    def target(self, example: ChoiceExample) -> int:
        """The number of the right option, from 0; -1 where none is given."""
        if example.answer is None:
            return -1
        try:
            form = self.config.answer_form
            return place_of(example.answer, example.options, form, "answer_form")
        except UserError as error:
            raise UserError(f"answer {error}") from error

    def shares(self, target: int, count: int) -> Floats:
        return np.asarray(np.arange(count) == target, dtype=np.float64)

    # === Model ===

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"choice": float(len(batch.groups) - 1)}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of each group's softmax over its options."""
        return {"choice": listwise(self.joined(model, rows, batch), batch)}

    # === Prediction ===

    def join(self, example: ChoiceExample, parts: list[Part]) -> ChoicePrediction:
        """The best option; each scores what its windows do together."""
        chances = softmax(self.scored(parts)[None], self.calibration.temperature)[0]
        best = int(chances.argmax())
        return ChoicePrediction(
            option=example.options[best],
            index=best,
            confidence=float(chances[best]),
            probabilities=chances.tolist(),
        )

    def calibrate(self, examples: Items[ChoiceExample], parts: Items[list[Part]]) -> Calibration:
        """The temperature at which the dev answers' probabilities are most believable."""
        scores = [self.scored(part) for part in parts]
        table = np.full((len(scores), max(map(len, scores))), ABSENT)
        for row, own in zip(table, scores, strict=True):
            row[: len(own)] = own
        gold = np.array([self.target(example) for example in examples], dtype=np.int64)
        return Calibration(temperature=fit_temperature(table, gold))

    def remarks(self, examples: Items[ChoiceExample], parts: Items[list[Part]]) -> list[str]:
        said = f"calibrated on dev: temperature {self.calibration.temperature:.2f}"
        return [said, *few_rows(len(examples))]

    def metrics(
        self, predictions: Items[ChoicePrediction], examples: Items[ChoiceExample]
    ) -> Mapping[str, float]:
        pairs = zip(predictions, examples, strict=True)
        right = sum(p.index == self.target(e) for p, e in pairs)
        return {"accuracy": right / max(1, len(examples))}


def _asked(example: ChoiceExample) -> list[str]:
    """What is read beside the context for each option: the question, if any, and the option."""
    before = f"{example.question} " if example.question else ""
    return [before + option for option in example.options]
