"""Single-label classification of a text or a pair of texts."""

from collections.abc import Mapping
from collections.abc import Sequence as Items

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.records import Example, Prediction, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.metrics.calibrate import TARGET
from clozeworks.metrics.calibrate import calibrate as fit_calibration
from clozeworks.model.heads import AnyEncoder, ClassHead, Model
from clozeworks.tasks.base import Draw, Output, Part, Task
from clozeworks.text.tokenizer import Tokenizer

FEW = 50
"""Rows below which a threshold fitted on them says little."""


class ClassifyConfig(Settings):
    """How texts are read and classes answered."""

    max_length: int = Field(default=128, ge=8)
    """Longest sequence in tokens, special tokens included; longer texts are cut, and counted."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pooled values dropped before the classifier in training."""
    target: float = Field(default=TARGET, ge=0, le=1)
    """Share of right answers to reach on the dev set by answering "I don't know" to the least
    certain texts; 0 answers always."""


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


class Classify(Task):
    """Sort texts, or pairs of texts, into classes, with a calibrated "I don't know"."""

    name = "classify"
    Config, Example, Answer = ClassifyConfig, ClassifyExample, ClassifyPrediction
    pooled = True
    config: ClassifyConfig

    def features(
        self, examples: Items[ClassifyExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        length = self.config.max_length
        if any(e.text_pair is not None for e in examples):
            return [[tokenizer.encode(e.text, e.text_pair, max_length=length)] for e in examples]
        texts = [e.text for e in examples]
        return [[s] for s in tokenizer.encode_batch(texts, max_length=length, spans=False)]

    def stratum(self, example: ClassifyExample) -> str:
        """Its class."""
        return str(example.label)

    def labels_in(self, examples: Items[ClassifyExample]) -> list[str]:
        """The classes, numbers by their size and before words."""
        found = {str(example.label) for example in examples}
        if len(found) < 2:
            raise UserError(f"there is a single label {min(found)!r}; two or more are needed")
        return sorted(found, key=_numbers_first)

    def target(self, example: ClassifyExample) -> int:
        if example.label is None:
            return -1
        if example.label not in self.labels:
            raise UserError(
                f"label {example.label!r} was never seen in training"
                f"{suggestion(example.label, self.labels)}"
            )
        return self.labels.index(example.label)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `label` [N] int64."""
        return batch.with_targets(label=torch.tensor([group.target for group in groups]))

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ClassHead(encoder, len(self.labels), self.config.dropout)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return model.pooled_rows(batch)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"classify": float(len(batch.targets["label"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits = model.heads["classify"](model.pooled(rows, batch)).float()
        return {"classify": F.cross_entropy(logits, batch.targets["label"], reduction="sum")}

    def predict(self, model: Model, batch: Batch) -> Output:
        """`logits` [N, K] fp32."""
        encoder = model.encoder
        read = model.pooled_rows(batch)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"logits": model.heads["classify"](model.pooled(rows, batch)).float()}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        probs = torch.softmax(output["logits"] / self.calibration.temperature, -1)
        return [
            {"logits": raw, "probs": shares}
            for raw, shares in zip(output["logits"].tolist(), probs.tolist(), strict=True)
        ]

    def join(self, example: ClassifyExample, parts: list[Part]) -> ClassifyPrediction:
        probs: list[float] = parts[0]["probs"]
        confidence = max(probs)
        best = self.labels[probs.index(confidence)]
        return ClassifyPrediction(
            label=best if confidence >= self.calibration.threshold else None,
            best=best,
            confidence=confidence,
            scores=dict(zip(self.labels, probs, strict=True)),
        )

    def calibrate(self, examples: Items[ClassifyExample], parts: Items[list[Part]]) -> Calibration:
        """Temperature, then threshold, on the dev logits."""
        logits = np.array([part[0]["logits"] for part in parts], dtype=np.float64)
        gold = np.array([self.target(example) for example in examples], dtype=np.int64)
        return fit_calibration(logits, gold, target=self.config.target)

    def remarks(self, examples: Items[ClassifyExample], parts: Items[list[Part]]) -> list[str]:
        """What temperature and threshold came to, what they give on dev, and if it is enough."""
        found, rows, target = self.calibration, len(examples), self.config.target
        answers = [(self.join(e, p), e) for e, p in zip(examples, parts, strict=True)]
        given = [(answer.label, e.label) for answer, e in answers if answer.label is not None]
        right = sum(label == gold for label, gold in given) / max(1, len(given))
        said = [
            f"calibrated on dev: temperature {found.temperature:.2f}; below a probability of "
            f'{found.threshold:.2f} the answer is "I don\'t know": {len(given) / rows:.1%} of dev '
            f"answered, {right:.1%} of that right"
        ]
        if right < target:
            said.append(
                f"no threshold brings dev to the target of {target:.0%} right: more data, or "
                "--target"
            )
        if rows < FEW:
            said.append(f"dev has only {rows} rows: take its numbers, and that threshold, as rough")
        return said

    def metrics(
        self, predictions: Items[ClassifyPrediction], examples: Items[ClassifyExample]
    ) -> Mapping[str, float]:
        right = sum(p.best == e.label for p, e in zip(predictions, examples, strict=True))
        return {"accuracy": right / max(1, len(examples))}


def _numbers_first(label: str) -> tuple[int, float, str]:
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)
