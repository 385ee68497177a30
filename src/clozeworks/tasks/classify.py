"""Classification of texts and pairs of texts: one class, any number of labels, or a number."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.config import Settings
from clozeworks.core.records import Example, Prediction, Sequence, Target, Vocabulary
from clozeworks.data.batches import Batch, Group
from clozeworks.metrics.calibrate import TARGET
from clozeworks.model.heads import AnyEncoder, Model
from clozeworks.tasks._answers import ANSWERS, Array
from clozeworks.tasks._labels import names_alone, single_label
from clozeworks.tasks._predictions import (
    ClassifyPrediction,
    LabelsPrediction,
    NumberPrediction,
    PathPrediction,
)
from clozeworks.tasks.base import Draw, Output, Part, Task
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import alone, beside

__all__ = [
    "Classify",
    "ClassifyConfig",
    "ClassifyExample",
    "ClassifyPrediction",
    "LabelsPrediction",
    "NumberPrediction",
    "PathPrediction",
    "single_label",
]

Kind = Literal["single", "multi", "regression"]


class ClassifyConfig(Settings):
    """How texts are read and classes answered."""

    max_length: int = Field(default=128, ge=8)
    """Longest sequence in tokens, special tokens included; longer texts are cut, and counted,
    unless --overlap has them read in windows."""
    overlap: int | None = Field(default=None, ge=0)
    """Tokens that two windows of a longer text share; of a pair the first text is read in windows,
    each beside the second, or half a window of it. Absent: no windows."""
    join: Literal["mean", "max"] = "mean"
    """What the scores of a text in several windows are, in training too: their mean, or of each
    label the highest."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pooled values dropped before the classifier in training."""
    kind: Kind = "single"
    """What a text is given: one class (single), any number of labels (multi), or a number
    (regression)."""
    levels: str = ""
    """Sign between the levels of a label that is a path, such as ## in a##b##c; absent: labels are
    no paths."""
    separator: str = Field(default="|", min_length=1)
    """Sign between several labels in one cell."""
    class_weights: Literal["equal", "balanced"] = "equal"
    """What classes count in training: as many rows as they have, or all alike, rare ones more."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the right answer's probability that is spread over all answers in training."""
    focus: float = Field(default=0.0, ge=0)
    """Exponent of the focal loss, which counts rows less the surer they are right; 0: all alike."""
    target: float = Field(default=TARGET, ge=0, le=1)
    """Share of right answers to reach on the dev set by answering "I don't know" to the least
    certain texts; 0 answers always."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Least probability of an answer, or of each of any number of labels; below it, "I don't know",
    or the label is not given. Absent: what the dev set told."""

    @model_validator(mode="after")
    def _fits_numbers(self) -> Self:
        if self.kind == "regression":
            fields = ("levels", "class_weights", "smoothing", "focus", "threshold")
            for name in fields:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is about classes, and regression has none")
        if self.target != TARGET and self.kind != "single":
            raise ValueError('target is about answering "I don\'t know", which needs kind single')
        if self.overlap is not None and self.overlap + 8 > self.max_length:
            raise ValueError(
                f"overlap {self.overlap} leaves no room in max_length {self.max_length}"
            )
        if self.overlap is None and self.join != "mean":
            raise ValueError("join is about windows; give --overlap, too")
        if self.kind != "multi" and self.separator != type(self).model_fields["separator"].default:
            raise ValueError("separator is between several labels; give --kind multi, too")
        if self.levels and self.levels == self.separator:
            raise ValueError(f"levels and separator are both {self.levels!r}; choose another")
        return self


class ClassifyExample(Example):
    """A text, or a pair of texts, and its class."""

    text: str
    """The text to classify."""
    text_pair: str | None = None
    """A second text, where the class is of the pair."""
    label: str | list[str] | None = None
    """The class, the labels, or the number; not needed to predict."""

    _names = field_validator("label")(names_alone)


class Classify(Task):
    """Give texts or pairs of texts a class, any number of labels, or a number."""

    name = "classify"
    asked_with = frozenset({"text_pair"})
    Config, Example, Answer = ClassifyConfig, ClassifyExample, Prediction
    pooled = True
    free = frozenset({"separator", "threshold"})
    config: ClassifyConfig

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self.answer = ANSWERS[self.config.kind](self.config, self.labels)
        """What the logits mean."""
        self.Answer = self.answer.Answer
        self.windows = self.config.overlap is not None
        self.sequences_each = 8 if self.windows else 1

    @property
    def question(self) -> str:
        c = self.config
        more = {"levels": c.levels, "separator": c.separator if c.kind == "multi" else ""}
        told = "".join(f", {name} {value!r}" for name, value in more.items() if value)
        return f"{self.name!r} of kind {c.kind!r}{told}"

    def features(
        self, examples: Items[ClassifyExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        if self.windows:
            return self._windows(examples, tokenizer)
        length = self.config.max_length
        if any(e.text_pair is not None for e in examples):
            return [[tokenizer.encode(e.text, e.text_pair, max_length=length)] for e in examples]
        texts = [e.text for e in examples]
        return [[s] for s in tokenizer.encode_batch(texts, max_length=length, spans=False)]

    def _windows(
        self, examples: Items[ClassifyExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        """Each text in windows; of a pair the second is in all of them.

        Where both do not fit, the second is cut to half a window, and windows share at most half of
        what is left for the first.
        """
        form, length, overlap = tokenizer.form, self.config.max_length, self.config.overlap or 0
        texts = tokenizer.tokenize([e.text for e in examples])
        pairs = iter(tokenizer.tokenize([e.text_pair for e in examples if e.text_pair is not None]))
        room, found = length - form.pair_length, []
        for example, ids in zip(examples, texts, strict=True):
            if example.text_pair is None:
                found.append(alone(ids, form, (length, overlap)))
                continue
            kept = next(pairs)
            most = max(room // 2, room - len(ids))
            limits = length, min(overlap, (room - len(kept[:most])) // 2)
            first, *others = beside(kept[:most], ids, form, limits, moving_first=True)
            found.append([replace(first, truncated=max(0, len(kept) - most)), *others])
        return found

    def is_labelled(self, example: ClassifyExample) -> bool:
        label = example.label
        if label is None or self.config.kind == "multi":
            return label is not None
        return bool(label.strip() if isinstance(label, str) else label)

    def stratum(self, example: ClassifyExample) -> str:
        return self.answer.stratum(example.label)

    def labels_in(self, examples: Items[ClassifyExample]) -> list[str]:
        return self.answer.labels_in([example.label for example in examples])

    def check(self, example: ClassifyExample) -> None:
        super().check(example)
        self.answer.check(example.label)

    def target(self, example: ClassifyExample) -> Target:
        return -1 if not self.is_labelled(example) else self.answer.target(example.label)

    def look_over(self, groups: Items[Group]) -> None:
        self.calibration = self.answer.look_over(np.stack([group.target for group in groups]))

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `label`: classes [G] int64; labels [G, K] fp32, 0 or 1; or numbers [G] fp32.

        And `owners` [N] int64, where there may be windows: the number of each one's text.
        """
        gold: Array = np.array([group.target for group in groups], self.answer.dtype)
        more = {}
        if self.windows:
            counts = torch.tensor([len(group.sequences) for group in groups])
            more["owners"] = torch.repeat_interleave(torch.arange(len(groups)), counts)
        return batch.with_targets(label=torch.from_numpy(gold), **more)

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return self.answer.head(encoder, self.config.dropout, self.calibration)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return model.pooled_rows(batch)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"classify": self.answer.count(batch.targets["label"])}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        gold, logits = batch.targets["label"], self._logits(model, rows, batch)
        if self.windows:
            owners = batch.targets["owners"][:, None].expand_as(logits)
            rule = "amax" if self.config.join == "max" else "mean"
            empty = logits.new_zeros(len(gold), logits.shape[1])
            logits = empty.scatter_reduce(0, owners, logits, rule, include_self=False)
        return {"classify": self.answer.loss(logits, gold)}

    def _logits(self, model: Model, rows: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = model.heads["classify"](model.pooled(rows, batch)).float()
        return logits

    def predict(self, model: Model, batch: Batch) -> Output:
        """`logits` [N, K] fp32."""
        encoder = model.encoder
        read = model.pooled_rows(batch)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"logits": self._logits(model, rows, batch)}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """`logits` and `probs` [K]: of classes and labels probabilities, of a number itself."""
        probs = self.answer.probs(output["logits"], self.calibration)
        return [
            {"logits": raw, "probs": shares}
            for raw, shares in zip(output["logits"].tolist(), probs.tolist(), strict=True)
        ]

    def join(self, example: ClassifyExample, parts: list[Part]) -> Prediction:
        return self.answer.prediction(self._probs(parts), self.calibration)

    def _probs(self, parts: list[Part]) -> list[float]:
        """What `decode` says of the one window, or the same of all windows' scores together."""
        if len(parts) == 1:
            probs: list[float] = parts[0]["probs"]
            return probs
        logits = torch.tensor([self._joined(parts)], dtype=torch.float32)
        found: list[float] = self.answer.probs(logits, self.calibration)[0].tolist()
        return found

    def _joined(self, parts: list[Part]) -> list[float]:
        """The scores of all windows together, as in training."""
        windows = np.array([part["logits"] for part in parts], dtype=np.float64)
        joined = windows.max(0) if self.config.join == "max" else windows.mean(0)
        found: list[float] = joined.tolist()
        return found

    def calibrate(self, examples: Items[ClassifyExample], parts: Items[list[Part]]) -> Calibration:
        """From the dev logits: how sure one may be, and how sure is sure enough."""
        logits = np.array([self._joined(part) for part in parts], dtype=np.float64)
        gold = np.stack([np.asarray(self.target(example)) for example in examples])
        return self.answer.calibrate(logits, gold)

    def as_set(self, calibration: Calibration) -> Calibration:
        least = self.config.threshold
        if least is None:
            return calibration
        each = [least] * len(self.labels) if self.config.kind == "multi" else None
        return calibration.model_copy(update={"threshold": least, "thresholds": each})

    def remarks(self, examples: Items[ClassifyExample], parts: Items[list[Part]]) -> list[str]:
        # the parts' own probabilities are those of before the calibration
        logits = torch.tensor([self._joined(part) for part in parts], dtype=torch.float32)
        probs = self.answer.probs(logits, self.calibration).tolist()
        given = [self.answer.prediction(shares, self.calibration) for shares in probs]
        return self.answer.remarks(given, [e.label for e in examples], self.calibration)

    def metrics(
        self, predictions: Items[Any], examples: Items[ClassifyExample]
    ) -> Mapping[str, float]:
        return self.answer.metrics(predictions, [e.label for e in examples])
