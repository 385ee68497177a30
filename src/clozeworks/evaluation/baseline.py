"""The classifier to beat: TF-IDF of words and characters with logistic regression."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints
from clozeworks.evaluation.catalogue import catalogue
from clozeworks.metrics.calibrate import TARGET, calibrate, softmax
from clozeworks.metrics.classify import Floats, label_indices
from clozeworks.tasks.classify import ClassifyExample, ClassifyPrediction, single_label

GRID = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Inverse strengths of the penalty that are tried on the dev rows."""


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline; it answers like any classifier, with calibrated probabilities."""

    labels: list[str]
    calibration: Calibration
    strength: float
    """The C of the grid that was most accurate on the dev rows."""
    features: FeatureUnion
    regression: LogisticRegression

    @staticmethod
    def name(language: str) -> str:
        """What a page in `language` calls it."""
        return catalogue(language)["tfidf"]

    @classmethod
    def fit(
        cls,
        train: Sequence[ClassifyExample],
        dev: Sequence[ClassifyExample],
        labels: Sequence[str],
        *,
        target: float = TARGET,
        set_as: Callable[[Calibration], Calibration] = lambda calibration: calibration,
    ) -> "Baseline":
        """Fit on train; choose C, temperature and threshold on dev, as a neural model's are.

        `target` and `set_as` are those of the task it stands beside (see `Task.as_set`).

        Raises UserError for no rows, a row without a label or outside `labels`, or one class only.
        """
        gold, dev_gold = _gold(train, labels), _gold(dev, labels)
        if len(np.unique(gold)) < 2:
            raise UserError(f"every training row is {labels[gold[0]]!r}; give rows of two classes")
        features = _features(_joined(train))
        rows = features.fit_transform(_joined(train))
        dev_rows = features.transform(_joined(dev))
        tried = [_regression(rows, gold, strength) for strength in GRID]
        dev_logits = [_logits(model, dev_rows, len(labels)) for model in tried]
        best = int(np.argmax([np.mean(z.argmax(axis=1) == dev_gold) for z in dev_logits]))
        calibration = set_as(calibrate(dev_logits[best], dev_gold, target=target))
        return cls(list(labels), calibration, GRID[best], features, tried[best])

    def predict(self, examples: Sequence[ClassifyExample]) -> list[ClassifyPrediction]:
        """One prediction a row, in order."""
        if not examples:
            return []
        logits = _logits(
            self.regression, self.features.transform(_joined(examples)), len(self.labels)
        )
        return [self._prediction(row) for row in softmax(logits, self.calibration.temperature)]

    def _prediction(self, chances: Floats) -> ClassifyPrediction:
        best = int(chances.argmax())
        confidence = float(chances[best])
        return ClassifyPrediction(
            label=self.labels[best] if confidence >= self.calibration.threshold else None,
            best=self.labels[best],
            confidence=confidence,
            scores=dict(zip(self.labels, chances.tolist(), strict=True)),
        )


WORD = r"\w+"


def _features(texts: Sequence[str]) -> FeatureUnion:
    """Words with their neighbours, where there are any, and runs of 1–3 characters, which serve
    Chinese too."""
    chars = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    made = [("char", chars)]
    if any(re.search(WORD, text) for text in texts):
        words = TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), sublinear_tf=True)
        made.insert(0, ("word", words))
    return FeatureUnion(made)


def _regression(rows: csr_matrix, gold: Ints, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000, tol=1e-3).fit(rows, gold)


def _logits(regression: LogisticRegression, rows: csr_matrix, classes: int) -> Floats:
    """Log-probabilities [N, K]; a class no training row has gets far less than any other."""
    logits = np.full((rows.shape[0], classes), -50.0)
    logits[:, regression.classes_] = regression.predict_log_proba(rows)
    return logits


def _gold(examples: Sequence[ClassifyExample], labels: Sequence[str]) -> Ints:
    for row, example in enumerate(examples, 1):
        if example.label is None:
            raise UserError(f"row {row} has no label; the baseline needs one on every row")
    return label_indices([single_label(example.label or "") for example in examples], labels)


def _joined(examples: Sequence[ClassifyExample]) -> list[str]:
    return [e.text if e.text_pair is None else f"{e.text}\n{e.text_pair}" for e in examples]
