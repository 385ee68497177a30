"""A probe of a model in training: how well do its frozen vectors tell labelled texts apart?"""

import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Sequence
from clozeworks.data.read import read_examples
from clozeworks.data.split import hold_out, text_hash
from clozeworks.inference.vectors import vectors
from clozeworks.metrics.classify import Floats
from clozeworks.model.heads import Model
from clozeworks.tasks import create
from clozeworks.tasks.classify import Classify, ClassifyExample, single_label
from clozeworks.text.tokenizer import Tokenizer

JUDGED_SHARE = 0.3
"""Share of the rows, by a hash of their text, that the classifier is judged on."""
SAMPLE = 128
"""Rows on which the time a row takes is measured."""
FEWEST = 200
"""Rows that are used however little time there is, as far as there are so many."""
STRENGTH = 0.1
"""Inverse strength of the penalty; the vectors' values are scaled to a variance of one."""

ACCURACIES = ("probe_accuracy", "probe_accuracy_first")
"""What a probe's numbers are called."""


class ProbeSettings(Settings):
    """A labelled file on which the model's vectors are probed while it is pretrained."""

    free: ClassVar[frozenset[str]] = frozenset({"data"})

    data: Path | None = None
    """Labelled texts: a few hundred to a few thousand rows; absent: no probe."""
    text: str = "text"
    """Column of the text."""
    text_pair: str | None = None
    """Column of a second text, where the class is of the pair."""
    label: str = "label"
    """Column of the class."""
    encoding: str = "utf-8"
    """Character encoding of the file."""
    format: str | None = None
    """Form of the file, where its name does not tell it."""
    times: int = Field(default=5, ge=1)
    """How often in a run, evenly spread; at the judgement that comes next."""
    steps: list[int] = []
    """The steps after which to probe, instead of `times`."""
    seconds: float = Field(default=20, gt=0)
    """About how long one probe may take: where the rows are too many, fewer are used, chosen once
    for the whole run."""


@dataclass(frozen=True)
class Probe:
    """Tokenised rows with their classes, divided once and for all."""

    train: list[Sequence]
    judged: list[Sequence]
    classes: Ints
    """Class of each row, those of `train` first: [N] int64."""

    @classmethod
    def of(cls, settings: ProbeSettings, tokenizer: Tokenizer, max_length: int) -> "Probe":
        """Read the file, rows in the order of a hash of their text.

        Raises UserError for a row without a label, or fewer than two classes.
        """
        examples = _read(settings)
        labels = sorted({single_label(e.label or "") for e in examples})
        if len(labels) < 2:
            raise UserError(
                f"{settings.data} has a single label {labels[0]!r}; a probe needs two or more"
            )
        task = create("classify", {"max_length": max_length}, tokenizer.vocabulary, labels)
        train, judged = hold_out(examples, JUDGED_SHARE, key=task.key, label=task.stratum)
        features = [[s for (s,) in task.features(part, tokenizer)] for part in (train, judged)]
        classes = [labels.index(single_label(e.label or "")) for e in (*train, *judged)]
        return cls(features[0], features[1], np.array(classes, dtype=np.int64))

    @property
    def majority(self) -> float:
        """Share of the judged rows that the most frequent class of the others makes up."""
        often, _ = Counter(self.classes[: len(self.train)].tolist()).most_common(1)[0]
        return float(np.mean(self.classes[len(self.train) :] == often))

    def within(self, model: Model, seconds: float) -> "Probe":
        """The probe, or its first rows where all would take longer; measured on a few."""
        rows = len(self.classes)
        if rows <= FEWEST:
            return self
        few = self.first(min(SAMPLE, rows))
        few.accuracies(model)  # the first pass is slower than any that follows
        began = time.perf_counter()
        few.accuracies(model)
        each = (time.perf_counter() - began) / len(few.classes)
        return self.first(max(FEWEST, int(seconds / each)))

    def first(self, rows: int) -> "Probe":
        """At most so many rows, train and judged in their share."""
        total = len(self.classes)
        if rows >= total:
            return self
        train = max(2, round(rows * len(self.train) / total))
        judged = max(1, rows - train)
        own = self.classes[: len(self.train)][:train]
        others = self.classes[len(self.train) :][:judged]
        return Probe(self.train[:train], self.judged[:judged], np.concatenate([own, others]))

    def accuracies(self, model: Model) -> dict[str, float]:
        """Accuracy from the mean of the tokens' vectors, and from the first token's alone.

        Nothing about the model changes, its mode and every generator of random numbers included.
        """
        found = vectors(model, [*self.train, *self.judged])
        return dict(zip(ACCURACIES, map(self._accuracy, (found.mean, found.first)), strict=True))

    def _accuracy(self, rows: Floats) -> float:
        cut = len(self.train)
        gold = self.classes[:cut]
        if len(np.unique(gold)) < 2 or not np.isfinite(rows).all():
            return float(np.mean(self.classes[cut:] == np.bincount(gold).argmax()))
        # most runs have no probe, and scikit-learn takes a second and 70 MB
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regression = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a glance
            fitted = make_pipeline(StandardScaler(), regression).fit(rows[:cut], gold)
        return float(np.mean(fitted.predict(rows[cut:]) == self.classes[cut:]))


def _read(settings: ProbeSettings) -> list[ClassifyExample]:
    """The labelled rows, sorted by a hash of their text, so that any first few are a fair draw."""
    assert settings.data is not None
    columns = {"text": settings.text, "label": settings.label}
    if settings.text_pair is not None:
        columns["text_pair"] = settings.text_pair

    def labelled(example: ClassifyExample) -> None:
        if example.label is None:
            raise UserError("no label; label it, or remove the row")

    rows = read_examples(
        settings.data,
        ClassifyExample,
        columns,
        encoding=settings.encoding,
        format=settings.format,
        check=labelled,
    )
    return sorted(rows, key=lambda e: (text_hash(Classify.key(e)), str(e.label)))
