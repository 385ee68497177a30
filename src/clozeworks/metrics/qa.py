"""How well answers were found in a text: SQuAD's rules, and CMRC 2018's for Chinese.

SQuAD: the official evaluate-v2.0.py (Rajpurkar et al. 2018; rajpurkar.github.io/SQuAD-explorer).
CMRC: the official cmrc2018_evaluate.py, version 5 (Cui et al. 2019; github.com/ymcui/cmrc2018).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from clozeworks.core.errors import UserError, choose
from clozeworks.core.records import Record

Rules = Literal["squad", "cmrc"]

CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What CMRC's rules leave out. The official list also has "……", which no single character is."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_HAN = re.compile("[\u4e00-\u9fa5]")
_WORD = re.compile(r"\w+(?:[.,]\w+)*|'\w+|[^\w\s]")


class Score(NamedTuple):
    """What one answer is worth, each from 0 to 1."""

    exact: float
    f1: float


class QaMetrics(Record):
    """Every number of finding answers, as shares from 0 to 1."""

    rows: int
    exact: float
    """The share of answers that equal a gold answer, by the rules of the set."""
    f1: float
    """What the best fitting gold answer and the given one share."""
    answerable: int
    """Questions that have an answer."""
    answerable_exact: float | None
    answerable_f1: float | None
    unanswerable_right: float | None
    """The share of questions without an answer that were given none; None where there are none."""


class Threshold(NamedTuple):
    """Up to which null score an answer is given, and the mean score that comes of it."""

    value: float
    score: float


def qa_metrics(
    gold: Sequence[Sequence[str]], predicted: Sequence[str], rules: Rules = "squad"
) -> QaMetrics:
    """Judge answers, "" for none, against the gold answers of each question, none for no answer.

    Raises UserError for no rows or a different number of them.
    """
    choose(rules, ("squad", "cmrc"), "rules")
    _check(gold, predicted)
    judge = squad_score if rules == "squad" else cmrc_score
    scores = np.array([judge(g, p) for g, p in zip(gold, predicted, strict=True)])
    has = np.array([any(answer.strip() for answer in answers) for answers in gold])
    exact, f1 = scores.mean(axis=0)
    some, none = scores[has], scores[~has]
    return QaMetrics(
        rows=len(scores),
        exact=float(exact),
        f1=float(f1),
        answerable=len(some),
        answerable_exact=float(some[:, 0].mean()) if len(some) else None,
        answerable_f1=float(some[:, 1].mean()) if len(some) else None,
        unanswerable_right=float(none[:, 0].mean()) if len(none) else None,
    )


def squad_score(gold: Sequence[str], predicted: str) -> Score:
    """The best of `predicted` against each gold answer, by SQuAD 2.0's rules.

    Gold answers that are only articles and punctuation do not count; where none is left, "" is the
    answer. Of nothing on either side, F1 is 1 where both are nothing, else 0 (as in 2.0; 1.1 gives
    0 for both, and counts gold answers of punctuation, of which its dev set has a few).
    """
    answers = [answer for answer in gold if normalised(answer)] or [""]
    return _best([_squad_pair(normalised(answer), normalised(predicted)) for answer in answers])


def normalised(text: str) -> str:
    """SQuAD's: lower case, no ASCII punctuation, then no a, an, the, single spaces."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def cmrc_score(gold: Sequence[str], predicted: str) -> Score:
    """The best of `predicted` against each gold answer, by CMRC 2018's rules.

    Exact: equal in lower case without CMRC's punctuation. F1: of the longest run of segments that
    both have. No gold answer is "", as for SQuAD.
    """
    answers = [answer for answer in gold if answer.strip()] or [""]
    return _best([_cmrc_pair(answer, predicted) for answer in answers])


def segments(text: str) -> list[str]:
    """CMRC's mixed segmentation, punctuation left out: Chinese characters, and other words.

    The official script cuts what is not Chinese with NLTK's word_tokenize; here numbers and words
    with inner points and commas stay whole, and other marks and endings such as 's stand alone,
    which is the same but for rarer English contractions. Characters beyond U+9FA5 count as
    letters, as there.
    """
    found: list[str] = []
    for piece in re.split(f"({_HAN.pattern})", _stripped(text)):
        found += [piece] if _HAN.fullmatch(piece) else _WORD.findall(piece)
    return found


def best_threshold(
    scores: Sequence[float], answerable: Sequence[bool], null_scores: Sequence[float]
) -> Threshold:
    """The null score up to which giving an answer pays most (SQuAD 2.0's `find_best_thresh`).

    `scores` are what the answers are worth if all are given, exact or F1; `null_scores` rise with
    the model's belief in no answer. Of values that are equally good the lowest is taken; questions
    with the same null score are decided together, which the official script does not do. An answer
    is to be given where its null score <= `value`. Raises UserError for no rows or different
    numbers of them.
    """
    if not len(scores) == len(answerable) == len(null_scores):
        raise UserError("scores, answerable and null_scores differ in how many questions they have")
    if not len(scores):
        raise UserError("there are no questions to find a threshold with")
    null = np.asarray(null_scores, np.float64)
    if not np.isfinite(null).all():
        raise UserError("the null scores hold NaN or infinity: training diverged; lower the lr")
    order = np.argsort(null, kind="stable")
    null = null[order]
    has = np.asarray(answerable, bool)[order]
    # a question moves from "no answer" to the answer it was given as the threshold passes it
    change = np.asarray(scores, np.float64)[order] - ~has
    totals = np.concatenate([[0.0], change.cumsum()]) + np.count_nonzero(~has)
    ends = np.concatenate([[True], null[1:] != null[:-1], [True]])  # cuts between equal scores drop
    values = np.concatenate([[np.nextafter(null[0], -np.inf)], null])
    best = int(np.argmax(np.where(ends, totals, -np.inf)))
    return Threshold(float(values[best]), float(totals[best] / len(null)))


def _squad_pair(answer: str, given: str) -> Score:
    gold, guess = answer.split(), given.split()
    if not gold or not guess:
        return Score(float(answer == given), float(gold == guess))
    shared = (Counter(gold) & Counter(guess)).total()
    return Score(float(answer == given), 2 * shared / (len(gold) + len(guess)))


def _cmrc_pair(answer: str, given: str) -> Score:
    equal = _stripped(answer) == _stripped(given)
    gold, guess = segments(answer), segments(given)
    if not gold or not guess:
        return Score(float(equal), float(gold == guess))
    return Score(float(equal), 2 * _longest_run(gold, guess) / (len(gold) + len(guess)))


def _stripped(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in CMRC_PUNCTUATION)


def _longest_run(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest run of neighbours that stands in both."""
    longest, before = 0, [0] * (len(b) + 1)
    for item in a:
        here = [0]
        for j, other in enumerate(b):
            here.append(before[j] + 1 if item == other else 0)
        longest, before = max(longest, *here), here
    return longest


def _best(pairs: Sequence[Score]) -> Score:
    return Score(max(p.exact for p in pairs), max(p.f1 for p in pairs))


def _check(gold: Sequence[object], predicted: Sequence[object]) -> None:
    if len(gold) != len(predicted):
        raise UserError(f"{len(gold)} questions and {len(predicted)} answers")
    if not gold:
        raise UserError("there are no questions to judge; check that the file is not empty")
