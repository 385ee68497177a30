"""Judging a model that answers questions from a text."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Ints, Record
from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import QUOTED_ROWS, quoted
from clozeworks.evaluation.classify_sections import f1_figure, percent, slices_table
from clozeworks.evaluation.compare import Interval, Marked, Row, digest_rows, marks_of, resampled
from clozeworks.evaluation.sections import Column, Number, Numbers, Quote, Quotes, Section, Table
from clozeworks.evaluation.slices import Slice, slices
from clozeworks.metrics.qa import QaMetrics, Rules, cmrc_score, qa_metrics, squad_score
from clozeworks.tasks.base import Task
from clozeworks.tasks.qa import QaConfig, QaExample, QaPrediction

AROUND = 60
"""Characters of the text that are quoted on either side of an answer."""
RULES: dict[Rules, str] = {"squad": "answers_rules_squad", "cmrc": "answers_rules_cmrc"}
"""What a page says of the rules."""


class QuestionKind(Record):
    """Questions that begin alike, or ask of the same thing."""

    kind: str
    rows: int
    exact: float
    f1: float


class AnsweredRow(Row):
    """A question that was answered wrongly."""

    question: str
    around: str
    """The text around the answer given, or its beginning."""
    gold: list[str]
    """None where the text has no answer."""
    answer: str | None
    confidence: float


class AnswersEvaluation(Marked):
    """All that is known of one such model on one set of rows; right is an exact answer."""

    task: Literal["qa"] = "qa"
    rules: Rules
    """By which answers were compared."""
    metrics: QaMetrics
    exact: Interval
    f1: Interval
    kinds: list[QuestionKind]
    """By the word that asks, the most frequent first."""
    slices: list[Slice]
    """By length and language of the text."""
    mistakes: list[AnsweredRow]
    """The surest first."""


ASKING = (
    *(
        "when",
        "where",
        "who",
        "whom",
        "whose",
        "which",
        "why",
        "what",
        "how many",
        "how much",
        "how",
    ),
    *(
        "多少",
        "几",
        "哪",
        "谁",
        "什么时候",
        "何时",
        "为什么",
        "为何",
        "怎么",
        "怎样",
        "如何",
        "什么",
        "何",
    ),
)
"""What questions ask by; the first that occurs decides, of two at one place the longer."""


def judge_answers(
    task: Task, predictions: Sequence[QaPrediction], examples: Sequence[QaExample], name: str
) -> AnswersEvaluation:
    """Judge one prediction a row, by the rules the model was trained with.

    Raises UserError for no rows, or a row without gold answers.
    """
    assert isinstance(task.config, QaConfig)
    gold = [_gold(row, example) for row, example in enumerate(examples, 1)]
    given = [p.answer or "" for p in predictions]
    metrics = qa_metrics(gold, given, task.config.rules)
    score = squad_score if task.config.rules == "squad" else cmrc_score
    scores = np.array([score(g, p) for g, p in zip(gold, given, strict=True)], dtype=np.float64)
    right = scores[:, 0] > 0

    def exact(rows: Ints) -> float:
        return float(scores[rows, 0].mean())

    def f1(rows: Ints) -> float:
        return float(scores[rows, 1].mean())

    intervals = resampled(exact, len(scores)), resampled(f1, len(scores))
    assert intervals[0] is not None and intervals[1] is not None
    rows = ([e.context, e.question, *g] for e, g in zip(examples, gold, strict=True))
    return AnswersEvaluation(
        name=name,
        rows_digest=digest_rows(rows),
        marks=marks_of(right),
        rules=task.config.rules,
        metrics=metrics,
        exact=intervals[0],
        f1=intervals[1],
        kinds=_kinds([e.question for e in examples], scores),
        slices=slices(
            [e.context for e in examples],
            right,
            np.array([p.answer is not None for p in predictions]),
        ),
        mistakes=_mistakes(examples, predictions, gold, scores),
    )


def _gold(row: int, example: QaExample) -> list[str]:
    if example.answers is None:
        raise UserError(f"row {row} has no answers; give an empty list where the text has none")
    return example.answers.text


def _kinds(questions: Sequence[str], scores: np.ndarray) -> list[QuestionKind]:
    kinds = np.array([_asks(question) for question in questions])
    names, counts = np.unique(kinds, return_counts=True)
    found = []
    for name in names[np.argsort(-counts, kind="stable")].tolist():
        exact, f1 = scores[kinds == name].mean(0).tolist()
        rows = int((kinds == name).sum())
        found.append(QuestionKind(kind=name, rows=rows, exact=exact, f1=f1))
    return found


def _asks(question: str) -> str:
    """The word a question asks by; a dash where there is none of those known."""
    text = f" {question.lower()} ".replace("?", " ")
    places = ((text.find(f" {word} " if word.isascii() else word), word) for word in ASKING)
    found = [(place + word.isascii(), -len(word), word) for place, word in places if place >= 0]
    return min(found)[2] if found else "–"


def _mistakes(
    examples: Sequence[QaExample],
    predictions: Sequence[QaPrediction],
    gold: Sequence[list[str]],
    scores: np.ndarray,
) -> list[AnsweredRow]:
    wrong = [i for i in range(len(examples)) if scores[i, 1] < 1]
    wrong.sort(key=lambda i: (scores[i, 1] > 0, -predictions[i].confidence))
    return [
        AnsweredRow(
            row=i + 1,
            question=quoted(examples[i].question),
            around=_around(examples[i].context, predictions[i]),
            gold=sorted(set(gold[i]), key=gold[i].index),
            answer=predictions[i].answer,
            confidence=predictions[i].confidence,
        )
        for i in wrong[:QUOTED_ROWS]
    ]


def _around(text: str, prediction: QaPrediction) -> str:
    if prediction.start is None or prediction.end is None:
        return quoted(text)
    start, end = max(0, prediction.start - AROUND), prediction.end + AROUND
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def answers_sections(
    evaluations: Sequence[AnswersEvaluation], language: str = "en"
) -> list[Section]:
    """The first in full, others beside it in the tables."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _kind_table(evaluations, words)]
    named = [(kind.kind, kind.f1) for kind in main.kinds]
    made += f1_figure(named, words, "asking_caption")
    made.append(slices_table([(e.name, e.slices) for e in evaluations], words, "exact_answers"))
    if main.mistakes:
        items = [_quote(row, words) for row in main.mistakes]
        notes = [words["answers_mistakes_note"]]
        made.append(Quotes(title=words["mistakes"], notes=notes, items=items))
    return made


def _summary(main: AnswersEvaluation, words: Words) -> Numbers:
    metrics = main.metrics
    said = words["answers_summary"].format(
        name=main.name,
        rows=metrics.rows,
        exact=percent(main.exact.estimate),
        f1=percent(main.f1.estimate),
        low=percent(main.f1.low),
        high=percent(main.f1.high),
    )
    items = [
        ("exact_answers", main.exact.estimate, "exact_answers_remark"),
        ("answers_f1", main.f1.estimate, "answers_f1_remark"),
        ("answerable_f1", metrics.answerable_f1, "answerable_f1_remark"),
        ("unanswerable_right", metrics.unanswerable_right, "unanswerable_right_remark"),
    ]
    numbers = [Number(value=percent(v), name=words[n], remark=words[r]) for n, v, r in items]
    notes = [said, words[RULES[main.rules]]]
    return Numbers(title=words["summary"], notes=notes, items=numbers)


def _kind_table(evaluations: Sequence[AnswersEvaluation], words: Words) -> Table:
    main, *others = evaluations
    names = [words["rows"], words["exact_answers"], words["answers_f1"]]
    names += [words["f1_of"].format(name=other.name) for other in others]
    by_kind = [{kind.kind: kind for kind in other.kinds} for other in others]
    return Table(
        title=words["asking"],
        notes=[words["asking_note"]],
        columns=[Column(name=words["asked_by"], numeric=False), *(Column(name=n) for n in names)],
        rows=[
            [k.kind, str(k.rows), percent(k.exact), percent(k.f1)]
            + [percent(known[k.kind].f1) for known in by_kind]
            for k in main.kinds
        ],
    )


def _quote(row: AnsweredRow, words: Words) -> Quote:
    gold = " / ".join(row.gold) or words["no_answer"]
    return Quote(
        texts=[row.question, row.around],
        remarks=[
            words["quote_gold"].format(label=gold),
            words["quote_answer"].format(label=row.answer or words["no_answer"]),
            words["quote_confidence"].format(confidence=percent(row.confidence)),
            words["quote_row"].format(row=row.row),
        ],
    )
