"""The sections of a report that say what an Evaluation of a classifier, or several, holds."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify import Evaluation, JudgedRow
from clozeworks.evaluation.compare import Difference, Interval, differences, proportion
from clozeworks.evaluation.figures import (
    MOST_BARS,
    Axes,
    Line,
    curves_panel,
    legend,
    reliability_panel,
    shares_panel,
)
from clozeworks.evaluation.matrix import NAMED_COLUMNS
from clozeworks.evaluation.sections import (
    Column,
    Figure,
    Matrix,
    Number,
    Numbers,
    Quote,
    Quotes,
    Section,
    Table,
    Text,
)
from clozeworks.evaluation.slices import Slice
from clozeworks.metrics.calibrate import ReliabilityBin
from clozeworks.metrics.classify import Averages, ClassRow

LONGEST_OPEN_TABLE = 30
"""A table of more classes is shown folded."""
MIX_UPS = 10


def classify_sections(evaluations: Sequence[Evaluation], language: str = "en") -> list[Section]:
    """What to show of the first model in full, and of the others beside it.

    Raises UserError unless all were judged on the same rows, or for an unknown language.
    """
    words = catalogue(language)
    main = evaluations[0]
    gains = differences(evaluations)
    made: list[Section] = [_summary(main, gains, words)]
    if gains:
        made.append(_comparison(evaluations, words))
    made += [_coverage(evaluations, words), *_levels(evaluations, words)]
    made.append(_classes(evaluations, words))
    made += [_confusion(main, words), *_mix_ups(main, words)]
    if main.metrics.roc is not None:
        made.append(_roc(evaluations, words))
    named = [(e.name, e.slices) for e in evaluations]
    sure = (
        Sureness(e.name, e.calibration_error, e.calibration.temperature, e.reliability)
        for e in evaluations
    )
    made += [reliability_figure(sure, words), slices_table(named, words, "accuracy", some=True)]
    return [*made, _mistakes(main, words), *_unanswered(main, words)]


def _summary(main: Evaluation, gains: Sequence[Difference], words: Words) -> Numbers:
    items = [
        ("accuracy", percent(main.accuracy.estimate), "accuracy_remark"),
        ("macro_f1", percent(main.metrics.macro.f1), "macro_f1_remark"),
        ("coverage", percent(main.answers.coverage), "coverage_remark"),
        ("answered_accuracy", percent(main.answers.accuracy), "answered_accuracy_remark"),
        ("calibration_error", percent(main.calibration_error), "calibration_error_remark"),
    ]
    if main.metrics.auc is not None:
        kind = "auc_binary_remark" if len(main.labels) == 2 else "auc_many_remark"
        items.append(("auc", f"{main.metrics.auc:.3f}", kind))
    said = words["summary_accuracy"].format(
        name=main.name,
        right=main.marks.count("1"),
        rows=main.metrics.rows,
        accuracy=percent(main.accuracy.estimate),
        low=percent(main.accuracy.low),
        high=percent(main.accuracy.high),
    )
    return Numbers(
        title=words["summary"],
        notes=[said, _answering(main, words), *(_difference(g, words) for g in gains)],
        items=[Number(value=v, name=words[n], remark=words[r]) for n, v, r in items],
    )


def _answering(main: Evaluation, words: Words) -> str:
    """What the threshold does to these rows, in a sentence."""
    answers, threshold = main.answers, f"{main.calibration.threshold:.2f}"
    if answers.unanswered == 0:
        return words["summary_all_answered"]
    if answers.answered == 0:
        return words["summary_none_answered"].format(threshold=threshold)
    return words["summary_answers"].format(
        threshold=threshold,
        coverage=percent(answers.coverage),
        accuracy=percent(answers.accuracy),
        unanswered=answers.unanswered,
        wrong=answers.unanswered - answers.unanswered_right,
    )


def _difference(difference: Difference, words: Words) -> str:
    """Which of two models is more accurate, in a sentence that says how sure that is."""
    gain = difference.gain
    if not difference.clear:
        verdict = "undecided"
    elif gain.estimate > 0:
        verdict = "ahead"
    else:
        verdict = "behind"
        gain = Interval(estimate=-gain.estimate, low=-gain.high, high=-gain.low)
    return words[verdict].format(
        name=difference.name,
        other=difference.other,
        points=_points(gain.estimate),
        low=_points(gain.low),
        high=_points(gain.high),
    )


def _comparison(evaluations: Sequence[Evaluation], words: Words) -> Table:
    names = ["accuracy", "interval", "macro_f1", "auc", "calibration_error", "threshold"]
    names += ["coverage", "answered_accuracy"]
    return Table(
        title=words["comparison"],
        notes=[words["comparison_note"].format(rows=evaluations[0].metrics.rows)],
        columns=[
            Column(name=words["model"], numeric=False),
            *(Column(name=words[n]) for n in names),
        ],
        rows=[
            [
                e.name,
                percent(e.accuracy.estimate),
                f"{percent(e.accuracy.low)} – {percent(e.accuracy.high)}",
                percent(e.metrics.macro.f1),
                "–" if e.metrics.auc is None else f"{e.metrics.auc:.3f}",
                percent(e.calibration_error),
                f"{e.calibration.threshold:.2f}",
                percent(e.answers.coverage),
                percent(e.answers.accuracy),
            ]
            for e in evaluations
        ],
    )


def _coverage(evaluations: Sequence[Evaluation], words: Words) -> Figure:
    lines = [
        Line(
            words["legend_threshold"].format(
                name=e.name, threshold=f"{e.calibration.threshold:.2f}"
            ),
            e.coverage.coverage,
            e.coverage.accuracy,
            None if e.answers.accuracy is None else (e.answers.coverage, e.answers.accuracy),
        )
        for e in evaluations
    ]
    axes = Axes(words["axis_coverage"], words["axis_answered_accuracy"], True, True)
    return Figure(
        title=words["coverage_title"],
        notes=[words["coverage_note"]],
        panels=[curves_panel(lines, axes, words["coverage_caption"])],
        legend=legend(lines),
    )


def _levels(evaluations: Sequence[Evaluation], words: Words) -> list[Section]:
    """How far down the path of its label a row is right; nothing where labels are no paths."""
    if not evaluations[0].levels:
        return []
    names = [words["rows"]]
    names += [words["accuracy"]] if len(evaluations) == 1 else [e.name for e in evaluations]
    rows = [
        [str(alike[0].level), str(alike[0].rows), *(percent(x.right / x.rows) for x in alike)]
        for alike in zip(*(e.levels for e in evaluations), strict=True)
    ]
    table = Table(
        title=words["levels"],
        notes=[words["levels_note"]],
        columns=[Column(name=words["level"]), *(Column(name=n) for n in names)],
        rows=rows,
    )
    return [table]


def _classes(evaluations: Sequence[Evaluation], words: Words) -> Table:
    main, *others = evaluations
    names = [words[n] for n in ("rows", "given", "precision", "recall", "f1")]
    names += [words["f1_of"].format(name=other.name) for other in others]
    order = sorted(main.metrics.classes, key=lambda row: (not row.gold, row.f1))
    other_rows = [{row.label: row for row in other.metrics.classes} for other in others]
    rows = [[*_class_cells(row), *(_f1(o.get(row.label)) for o in other_rows)] for row in order]
    totals = []
    for kind in ("macro", "weighted", "micro"):
        mine, *theirs = (getattr(e.metrics, kind) for e in evaluations)
        cells = [words[kind], str(main.metrics.rows), str(main.metrics.rows)]
        totals.append([*cells, *_average_cells(mine), *(percent(a.f1) for a in theirs)])
    return Table(
        title=words["classes"],
        notes=[words["classes_note"].format(name=main.name)],
        columns=[Column(name=words["class"], numeric=False), *(Column(name=n) for n in names)],
        rows=rows,
        totals=totals,
        folded=len(rows) > LONGEST_OPEN_TABLE,
    )


def _class_cells(row: ClassRow) -> list[str]:
    precision = percent(row.precision if row.predicted else None)
    recall = percent(row.recall if row.gold else None)
    return [row.label, str(row.gold), str(row.predicted), precision, recall, _f1(row)]


def _f1(row: ClassRow | None) -> str:
    return percent(row.f1 if row is not None and (row.gold or row.predicted) else None)


def _average_cells(averages: Averages) -> list[str]:
    return [percent(averages.precision), percent(averages.recall), percent(averages.f1)]


def _confusion(main: Evaluation, words: Words) -> Matrix:
    note = "confusion_note_named" if len(main.labels) <= NAMED_COLUMNS else "confusion_note"
    return Matrix(
        title=words["confusion"],
        notes=[words[note].format(name=main.name)],
        labels=main.labels,
        counts=main.metrics.confusion,
        down=words["confusion_down"],
        across=words["confusion_across"],
    )


def _mix_ups(main: Evaluation, words: Words) -> list[Section]:
    """The pairs of classes mistaken most often; nothing where the matrix alone says it."""
    counts = main.metrics.confusion
    pairs = [
        (count, i, j)
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    if len(main.labels) <= NAMED_COLUMNS or not pairs:
        return []
    pairs.sort(key=lambda pair: -pair[0])
    names = ("is", "taken_for", "times", "share_of_class")
    table = Table(
        notes=[words["confused_pairs"]],
        columns=[Column(name=words[n], numeric=i > 1) for i, n in enumerate(names)],
        rows=[
            [main.labels[i], main.labels[j], str(count), percent(count / sum(counts[i]))]
            for count, i, j in pairs[:MIX_UPS]
        ],
    )
    return [table]


def _roc(evaluations: Sequence[Evaluation], words: Words) -> Figure:
    """The curves of the first model's second class, of every model that has it second."""
    positive = evaluations[0].labels[1]
    lines = [
        Line(
            words["legend_auc"].format(name=e.name, auc=f"{e.metrics.auc:.3f}"),
            e.metrics.roc.false_positive_rate,
            e.metrics.roc.true_positive_rate,
        )
        for e in evaluations
        if e.metrics.roc is not None and e.metrics.roc.positive == positive
    ]
    axes = Axes(words["axis_false_positive"], words["axis_true_positive"], True, True)
    return Figure(
        title=words["roc"],
        notes=[words["roc_note"].format(positive=positive)],
        panels=[curves_panel(lines, axes, words["roc_caption"], diagonal=True)],
        legend=legend(lines),
    )


def f1_figure(named: Sequence[tuple[str, float]], words: Words, caption: str) -> list[Figure]:
    """F1 by name, in the order given, under the table before it; none where there is nothing."""
    if not named:
        return []
    said = words[caption]
    if len(named) > MOST_BARS:
        said += words["bars_shown"].format(shown=MOST_BARS, all=len(named))
    return [Figure(panels=[shares_panel(named, Axes(words["f1"], "", x_share=True), said)])]


class Sureness(NamedTuple):
    """How sure a model is, and how often it is right when it is so sure."""

    name: str
    error: float
    """Its expected calibration error."""
    temperature: float
    bins: Sequence[ReliabilityBin]


def reliability_figure(models: Iterable[Sureness], words: Words) -> Figure:
    """What each model promises against what is true, a panel each."""
    axes = Axes(words["axis_confidence"], words["axis_accuracy"], True, True)
    panels = []
    for model in models:
        error, temperature = percent(model.error), f"{model.temperature:.2f}"
        caption = words["reliability_caption"].format(
            name=model.name, error=error, temperature=temperature
        )
        panels.append(reliability_panel(model.bins, axes, caption))
    return Figure(title=words["reliability"], notes=[words["reliability_note"]], panels=panels)


def slices_table(
    judged: Sequence[tuple[str, Sequence[Slice]]], words: Words, share: str, *, some: bool = False
) -> Table:
    """Slices of one model, or of several by name: the share that is right is called words[share].

    `some`: whether some rows are left unanswered, so that it is worth saying how many are not.
    """
    names = [words["rows"], *[words["coverage"]] * some]
    names += [words[share]] if len(judged) == 1 else [name for name, _ in judged]
    rows = []
    for alike in zip(*(found for _, found in judged), strict=True):
        first = alike[0]
        cells = [slice_name(first, words), str(first.rows)]
        cells += [percent(first.answered / first.rows)] * some
        rows.append([*cells, *(_slice_accuracy(s) for s in alike)])
    return Table(
        title=words["slices"],
        notes=[words["slices_note"]],
        columns=[Column(name=words["slice"], numeric=False), *(Column(name=n) for n in names)],
        rows=rows,
    )


def _slice_accuracy(piece: Slice) -> str:
    share = proportion(piece.right, piece.rows)
    return f"{percent(share.estimate)} ({100 * share.low:.0f}–{100 * share.high:.0f})"


def slice_name(piece: Slice, words: Words) -> str:
    """What a page calls the rows of a slice."""
    if piece.kind == "language":
        return words[f"slice_{piece.language}"]
    key = "slice_length_one" if piece.shortest == piece.longest else "slice_length"
    return words[key].format(shortest=piece.shortest, longest=piece.longest)


def _mistakes(main: Evaluation, words: Words) -> Section:
    if not main.mistakes:
        return Text(title=words["mistakes"], notes=[words["mistakes_none"]])
    return Quotes(
        title=words["mistakes"],
        notes=[words["mistakes_note"]],
        items=[_quote(row, "quote_best", words) for row in main.mistakes],
    )


def _unanswered(main: Evaluation, words: Words) -> list[Section]:
    if not main.unanswered:
        return []
    note = words["unanswered_note"].format(
        unanswered=main.answers.unanswered, shown=len(main.unanswered)
    )
    quotes = [_quote(row, "quote_guess", words) for row in main.unanswered]
    return [Quotes(title=words["unanswered"], notes=[note], items=quotes)]


def _quote(row: JudgedRow, verdict: str, words: Words) -> Quote:
    return Quote(
        texts=[row.text] if row.text_pair is None else [row.text, row.text_pair],
        remarks=[
            words["quote_gold"].format(label=row.gold),
            words[verdict].format(label=row.best),
            words["quote_confidence"].format(confidence=percent(row.confidence)),
            words["quote_row"].format(row=row.row),
        ],
    )


def percent(share: float | None) -> str:
    """A share of 1 as a percentage with one decimal; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")
