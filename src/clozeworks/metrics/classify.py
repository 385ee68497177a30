"""How well one label per row was guessed: accuracy, averages, classes, confusions, ROC.

scikit-learn is imported where it counts: it takes a second and 70 MB, and every verb comes by here.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.records import Ints, Record

Floats = npt.NDArray[np.float64]

CURVE_POINTS = 200
"""Points kept of a curve: more than a page can show, few enough to store."""


class ClassRow(Record):
    """One class against the rest; a ratio whose denominator is zero is 0."""

    label: str
    precision: float
    recall: float
    f1: float
    gold: int
    """Rows of this class."""
    predicted: int
    """Rows given this class."""
    auc: float | None = None
    """Area under the one-vs-rest ROC curve; None where rows are all or none of this class."""


class Averages(Record):
    """Precision, recall and F1 averaged one way over the classes."""

    precision: float
    recall: float
    f1: float


class RocCurve(Record):
    """The trade between hits and false alarms as the threshold on one class's score falls."""

    positive: str
    """The class whose score is thresholded."""
    false_positive_rate: list[float]
    true_positive_rate: list[float]


class ClassifyMetrics(Record):
    """Every number of single-label classification; abstaining plays no part here."""

    rows: int
    accuracy: float
    macro: Averages
    """Mean over the classes that occur among gold or predicted labels, as scikit-learn has it."""
    micro: Averages
    weighted: Averages
    """Mean over the classes weighted by their gold rows."""
    classes: list[ClassRow]
    """In the order of the labels."""
    confusion: list[list[int]]
    """[K, K] row counts: gold class down, predicted class across."""
    auc: float | None = None
    """Binary: area under the ROC curve; otherwise the mean of the one-vs-rest areas."""
    roc: RocCurve | None = None
    """For two classes only; the second label is the positive one."""


def classify_metrics(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    scores: Floats | None = None,
) -> ClassifyMetrics:
    """Judge predicted labels against gold ones.

    `scores` [N, K] float, one column a label in their order, any increasing scale; without it
    there are no ROC numbers. Raises UserError for no rows, a label outside `labels`, or scores
    that are not numbers.
    """
    names = list(labels)
    right = label_indices(gold, names)
    guess = label_indices(predicted, names)
    if scores is not None and not np.isfinite(scores).all():
        raise UserError("the scores hold NaN or infinity: training diverged; lower the lr")
    areas = _areas(right, scores, len(names))
    known = [area for area in areas if area is not None]
    return ClassifyMetrics(
        rows=len(right),
        accuracy=float(np.mean(right == guess)),
        macro=_averages(right, guess, "macro"),
        micro=_averages(right, guess, "micro"),
        weighted=_averages(right, guess, "weighted"),
        classes=_class_rows(right, guess, names, areas),
        confusion=_confusion(right, guess, len(names)),
        auc=float(np.mean(known)) if known else None,
        roc=_roc(right, scores, names),
    )


def label_indices(values: Sequence[str], labels: Sequence[str]) -> Ints:
    """Positions in `labels` of each value, [N] int64; raises UserError for none or a stranger."""
    if not len(values):
        raise UserError("there are no rows to judge; check that the file is not empty")
    position = {label: i for i, label in enumerate(labels)}
    for row, value in enumerate(values):
        if value not in position:
            raise UserError(
                f"row {row + 1}: label {value!r} was never seen in training"
                f"{suggestion(value, labels)}; correct it, or train with it"
            )
    return np.array([position[value] for value in values], dtype=np.int64)


def thinned(position: Floats, points: int = CURVE_POINTS) -> Ints:
    """Indices of at most `points` values, evenly spread along ascending `position`, ends kept."""
    if len(position) <= points:
        return np.arange(len(position))
    marks = np.linspace(position[0], position[-1], points - 1)
    found = np.searchsorted(position, marks).clip(max=len(position) - 1)
    return np.unique(np.append(found, len(position) - 1))


def _confusion(right: Ints, guess: Ints, classes: int) -> list[list[int]]:
    # scikit-learn's own warns where only one class occurs, even when told all the labels
    counts = np.bincount(right * classes + guess, minlength=classes**2)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def _averages(right: Ints, guess: Ints, average: str) -> Averages:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        right, guess, labels=np.union1d(right, guess), average=average, zero_division=0
    )
    return Averages(precision=float(precision), recall=float(recall), f1=float(f1))


def _class_rows(
    right: Ints, guess: Ints, labels: Sequence[str], areas: list[float | None]
) -> list[ClassRow]:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, gold = precision_recall_fscore_support(
        right, guess, labels=range(len(labels)), average=None, zero_division=0
    )
    predicted = np.bincount(guess, minlength=len(labels))
    return [
        ClassRow(
            label=label,
            precision=float(precision[k]),
            recall=float(recall[k]),
            f1=float(f1[k]),
            gold=int(gold[k]),
            predicted=int(predicted[k]),
            auc=areas[k],
        )
        for k, label in enumerate(labels)
    ]


def _areas(right: Ints, scores: Floats | None, classes: int) -> list[float | None]:
    if scores is None:
        return [None] * classes
    from sklearn.metrics import roc_auc_score

    return [
        float(roc_auc_score(right == k, scores[:, k]))
        if 0 < np.count_nonzero(right == k) < len(right)
        else None
        for k in range(classes)
    ]


def _roc(right: Ints, scores: Floats | None, labels: Sequence[str]) -> RocCurve | None:
    if scores is None or len(labels) != 2 or len(np.unique(right)) != 2:
        return None
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(right == 1, scores[:, 1])
    kept = thinned(false + true)
    return RocCurve(
        positive=labels[1],
        false_positive_rate=false[kept].tolist(),
        true_positive_rate=true[kept].tolist(),
    )
