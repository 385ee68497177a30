"""What a classifier's logits mean: one class of several, labels that are there or not, a number."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.records import Prediction, Target
from clozeworks.metrics.calibrate import calibrate
from clozeworks.metrics.classify import classify_metrics
from clozeworks.metrics.labels import (
    fit_label_temperature,
    fit_label_thresholds,
    label_metrics,
    sigmoid,
)
from clozeworks.metrics.levels import ancestors, closed, raised, summed
from clozeworks.metrics.regress import regress_metrics
from clozeworks.model.heads import AnyEncoder, ClassHead, NumberHead
from clozeworks.model.losses import balanced_classes, balanced_labels, class_loss, label_loss
from clozeworks.tasks._labels import Label, check_path, numbers_first, single_label
from clozeworks.tasks._predictions import (
    ClassifyPrediction,
    LabelsPrediction,
    Level,
    NumberPrediction,
    PathPrediction,
)
from clozeworks.tasks.base import few_rows

Array = npt.NDArray[Any]

LARGEST = 1e6
"""Numbers beyond it would be learned in fp32 with hardly a digit right."""
VALUE = "value"
"""The name of the one output of a regression."""


class Wishes(Protocol):
    """What is read of the task's settings."""

    @property
    def levels(self) -> str: ...
    @property
    def separator(self) -> str: ...
    @property
    def class_weights(self) -> str: ...
    @property
    def smoothing(self) -> float: ...
    @property
    def focus(self) -> float: ...
    @property
    def target(self) -> float: ...
    @property
    def threshold(self) -> float | None: ...


class Answer(ABC):
    """How gold answers become targets, and logits become answers."""

    Answer: type[Prediction]
    dtype: ClassVar[type] = np.float32
    """Of the targets."""

    def __init__(self, config: Wishes, labels: list[str]) -> None:
        self.config, self.labels = config, labels

    def stratum(self, label: Label) -> str:
        """The kind of Example, for a dev set held out of each kind evenly."""
        return ""

    @abstractmethod
    def labels_in(self, found: Items[Label]) -> list[str]:
        """The names of the outputs."""

    @abstractmethod
    def check(self, label: Label) -> None:
        """Raise UserError for a label that could never be learned."""

    @abstractmethod
    def target(self, label: Label) -> Target:
        """What is to be learned; raises UserError for a label that was never seen."""

    @abstractmethod
    def look_over(self, targets: Array) -> Calibration:
        """See the targets of all training rows once; returns what training begins with."""

    def head(self, encoder: AnyEncoder, dropout: float, calibration: Calibration) -> nn.Module:
        """A fresh head: an output for each label."""
        return ClassHead(encoder, len(self.labels), dropout)

    def count(self, gold: Tensor) -> float:
        """What the loss of these rows is divided by, over a whole step."""
        return float(gold.numel())

    @abstractmethod
    def loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        """The sum over rows: logits [N, K]."""

    @abstractmethod
    def probs(self, logits: Tensor, calibration: Calibration) -> Tensor:
        """Calibrated probabilities [N, K]."""

    @abstractmethod
    def prediction(self, probs: list[float], calibration: Calibration) -> Prediction:
        """The answer of one row."""

    def calibrate(self, logits: Array, gold: Array) -> Calibration:
        """From dev logits [N, K] and targets."""
        return Calibration()

    def remarks(self, given: Items[Any], gold: Items[Label], calibration: Calibration) -> list[str]:
        """What the dev set decided, and whether it is too small for that, in sentences."""
        return few_rows(len(gold))

    @abstractmethod
    def metrics(self, given: Items[Any], gold: Items[Label]) -> Mapping[str, float]:
        """The few numbers that sum up; all of them better when larger."""

    def _known(self, label: str) -> int:
        if label not in self.labels:
            raise UserError(
                f"label {label!r} was never seen in training{suggestion(label, self.labels)}"
            )
        return self.labels.index(label)


class Single(Answer):
    """One class of several, with a calibrated "I don't know"."""

    dtype = np.int64

    def __init__(self, config: Wishes, labels: list[str]) -> None:
        super().__init__(config, labels)
        self.weights: Tensor | None = None
        self.Answer = PathPrediction if config.levels else ClassifyPrediction

    def stratum(self, label: Label) -> str:
        return single_label(label)

    def check(self, label: Label) -> None:
        check_path(single_label(label), self.config.levels)

    def labels_in(self, found: Items[Label]) -> list[str]:
        names = {single_label(label) for label in found}
        if len(names) < 2:
            raise UserError(f"there is a single label {min(names)!r}; two or more are needed")
        return sorted(names, key=numbers_first)

    def target(self, label: Label) -> int:
        return self._known(single_label(label))

    def look_over(self, targets: Array) -> Calibration:
        if self.config.class_weights == "balanced":
            self.weights = balanced_classes(torch.from_numpy(targets), len(self.labels))
        return Calibration()

    def count(self, gold: Tensor) -> float:
        return float(len(gold)) if self.weights is None else float(self.weights[gold].sum())

    def loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        how = {"smoothing": self.config.smoothing, "focus": self.config.focus}
        return class_loss(logits, gold, weights, **how)

    def probs(self, logits: Tensor, calibration: Calibration) -> Tensor:
        return torch.softmax(logits / calibration.temperature, -1)

    def prediction(self, probs: list[float], calibration: Calibration) -> ClassifyPrediction:
        confidence = max(probs)
        best = self.labels[probs.index(confidence)]
        scores = dict(zip(self.labels, probs, strict=True))
        said: dict[str, Any] = {"best": best, "confidence": confidence, "scores": scores}
        if not self.config.levels:
            answer = best if confidence >= calibration.threshold else None
            return ClassifyPrediction(label=answer, **said)
        whole = summed(scores, self.config.levels)
        path = [
            Level(label=level, confidence=min(1.0, whole[level]))
            for level in ancestors(best, self.config.levels)
        ]
        sure = [level.label for level in path if level.confidence >= calibration.threshold]
        return PathPrediction(label=sure[-1] if sure else None, path=path, **said)

    def calibrate(self, logits: Array, gold: Array) -> Calibration:
        return calibrate(logits, gold, target=self.config.target)

    def remarks(
        self, given: Items[ClassifyPrediction], gold: Items[Label], calibration: Calibration
    ) -> list[str]:
        rows, target = len(gold), self.config.target
        pairs = zip(given, map(single_label, gold), strict=True)
        answers = [self._is_right(p.label, g) for p, g in pairs if p.label is not None]
        right = sum(answers) / max(1, len(answers))
        said = [
            f"calibrated on dev: temperature {calibration.temperature:.2f}; below a probability of "
            f'{calibration.threshold:.2f} the answer is "I don\'t know": {len(answers) / rows:.1%} '
            f"of dev answered, {right:.1%} of that right"
        ]
        if self.config.threshold is None and right < target:
            said.append(
                f"no threshold brings dev to the target of {target:.0%} right: more data, or "
                "--target"
            )
        return said + few_rows(rows)

    def _is_right(self, label: str, gold: str) -> bool:
        """Whether an answer is the class, or a level above it."""
        return label in (ancestors(gold, self.config.levels) if self.config.levels else [gold])

    def metrics(self, given: Items[ClassifyPrediction], gold: Items[Label]) -> Mapping[str, float]:
        sign, best, right = self.config.levels, [p.best for p in given], [*map(single_label, gold)]
        if not best:
            return dict.fromkeys(["accuracy", "macro_f1", *["top_accuracy"] * bool(sign)], 0.0)
        judged = classify_metrics(right, best, self.labels)
        found = {"accuracy": judged.accuracy, "macro_f1": judged.macro.f1}
        if sign:
            tops = ((ancestors(name, sign)[0] for name in names) for names in (best, right))
            found["top_accuracy"] = sum(a == b for a, b in zip(*tops, strict=True)) / len(best)
        return found


class Multi(Answer):
    """Any number of labels, each with its own threshold."""

    Answer = LabelsPrediction

    def __init__(self, config: Wishes, labels: list[str]) -> None:
        super().__init__(config, labels)
        self.weights: Tensor | None = None

    def stratum(self, label: Label) -> str:
        return " ".join(sorted(self._several(label)))

    def check(self, label: Label) -> None:
        for name in self._several(label):
            check_path(name, self.config.levels)

    def labels_in(self, found: Items[Label]) -> list[str]:
        names = {name for label in found for name in self._several(label)}
        if not names:
            raise UserError("no row has a label; give some")
        return sorted(names, key=numbers_first)

    def _several(self, label: Label) -> list[str]:
        """The labels of a cell or list; of paths, every level."""
        parts = label.split(self.config.separator) if isinstance(label, str) else label or []
        names = list(dict.fromkeys(filter(None, (part.strip() for part in parts))))
        return closed(names, self.config.levels) if self.config.levels else names

    def target(self, label: Label) -> Array:
        found = np.zeros(len(self.labels), dtype=np.float32)
        found[[self._known(name) for name in self._several(label)]] = 1
        return found

    def look_over(self, targets: Array) -> Calibration:
        if self.config.class_weights == "balanced":
            self.weights = balanced_labels(torch.from_numpy(targets))
        return Calibration()

    def loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        how = {"smoothing": self.config.smoothing, "focus": self.config.focus}
        return label_loss(logits, gold, weights, **how)

    def probs(self, logits: Tensor, calibration: Calibration) -> Tensor:
        return torch.sigmoid(logits / calibration.temperature)

    def prediction(self, probs: list[float], calibration: Calibration) -> LabelsPrediction:
        scores = dict(zip(self.labels, probs, strict=True))
        if self.config.levels:
            scores = raised(scores, self.config.levels)
        enough = dict(zip(self.labels, self._thresholds(calibration), strict=True))
        given = [name for name, score in scores.items() if score >= enough[name]]
        if self.config.levels:
            given = [name for name in closed(given, self.config.levels) if name in scores]
        return LabelsPrediction(labels=sorted(given, key=lambda n: -scores[n]), scores=scores)

    def _thresholds(self, calibration: Calibration) -> list[float]:
        return calibration.thresholds or [0.5] * len(self.labels)

    def calibrate(self, logits: Array, gold: Array) -> Calibration:
        temperature = fit_label_temperature(logits, gold)
        chances = sigmoid(logits, temperature)
        if sign := self.config.levels:  # thresholds are compared with raised ones
            rows = [raised(dict(zip(self.labels, row, strict=True)), sign) for row in chances]
            chances = np.array([list(row.values()) for row in rows])
        thresholds = fit_label_thresholds(chances, gold)
        return Calibration(temperature=temperature, thresholds=thresholds)

    def remarks(
        self, given: Items[LabelsPrediction], gold: Items[Label], calibration: Calibration
    ) -> list[str]:
        found = self.metrics(given, gold)
        low, high = min(calibration.thresholds or [0.5]), max(calibration.thresholds or [0.5])
        own = ", each from its own" if self.config.threshold is None else ", as set"
        said = (
            f"calibrated on dev: temperature {calibration.temperature:.2f}; a label is given from "
            f"a probability of {low:.2f} to {high:.2f} on{own}: micro F1 "
            f"{found['micro_f1']:.4f} there"
        )
        return [said, *few_rows(len(gold))]

    def metrics(self, given: Items[LabelsPrediction], gold: Items[Label]) -> Mapping[str, float]:
        there = np.array([self.target(label) for label in gold]).reshape(-1, len(self.labels)) > 0
        names = [set(p.labels) for p in given]
        found = np.array([[label in row for label in self.labels] for row in names], dtype=bool)
        metrics = label_metrics(there, found.reshape(there.shape), self.labels)
        return {
            "micro_f1": metrics.micro.f1,
            "macro_f1": metrics.macro.f1,
            "exact": metrics.exact,
        }


class Number(Answer):
    """A number on a scale of its own, learned as how far it is from the mean of training."""

    Answer = NumberPrediction

    def __init__(self, config: Wishes, labels: list[str]) -> None:
        super().__init__(config, labels)
        self.start = Calibration()
        """The scale of the training numbers, once they were looked over."""

    def labels_in(self, found: Items[Label]) -> list[str]:
        if len({self.target(label) for label in found}) < 2:
            raise UserError("every row has the same number; there is nothing to learn")
        return [VALUE]

    def check(self, label: Label) -> None:
        self.target(label)

    def target(self, label: Label) -> float:
        try:
            value = float(single_label(label))
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise UserError(f"label {label!r} is no number; regression learns numbers")
        if abs(value) > LARGEST:
            raise UserError(f"label {label!r} is too large to be learned; scale the numbers")
        return value

    def look_over(self, targets: Array) -> Calibration:
        """The mean, and a power of two near the spread: by such a one nothing is rounded."""
        spread = max(targets.std(), 1e-6 * np.abs(targets).max())  # closer ones are one in fp32
        unit = 2.0 ** round(np.log2(spread))
        self.start = Calibration(zero=float(targets.mean()), unit=unit)
        return self.start

    def head(self, encoder: AnyEncoder, dropout: float, calibration: Calibration) -> nn.Module:
        return NumberHead(encoder, dropout, calibration.zero, calibration.unit)

    def loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        far = (logits[:, 0] - gold) / self.start.unit
        return far.square().sum()

    def probs(self, logits: Tensor, calibration: Calibration) -> Tensor:
        return logits

    def prediction(self, probs: list[float], calibration: Calibration) -> NumberPrediction:
        return NumberPrediction(value=probs[0])

    def calibrate(self, logits: Array, gold: Array) -> Calibration:
        """The scale it was trained on."""
        return self.start

    def metrics(self, given: Items[NumberPrediction], gold: Items[Label]) -> Mapping[str, float]:
        if not gold:
            return {"pearson": 0.0, "spearman": 0.0}
        found = regress_metrics([self.target(g) for g in gold], [p.value for p in given])
        return {"pearson": found.pearson or 0.0, "spearman": found.spearman or 0.0}


ANSWERS: dict[str, type[Answer]] = {"single": Single, "multi": Multi, "regression": Number}
