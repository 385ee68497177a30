"""The page about a model that writes texts."""

from collections.abc import Sequence

from clozeworks.evaluation.catalogue import Words, catalogue
from clozeworks.evaluation.classify_sections import percent
from clozeworks.evaluation.compare import Interval
from clozeworks.evaluation.figures import Axes, scatter_panel
from clozeworks.evaluation.sections import (
    Column,
    Figure,
    Number,
    Numbers,
    Quote,
    Quotes,
    Section,
    Table,
)
from clozeworks.evaluation.texts import Scores, TextsEvaluation, WrittenRow
from clozeworks.metrics.generate import CorpusScore

TITLES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
}
"""Scores by field, as they are called in any language."""


def texts_summary(main: TextsEvaluation) -> str:
    """The scores with their intervals, those of copying, and what else is asked first."""
    said = [
        f"{title} {found.score:.2f}{_ends(found)} (copying the source: {copied.score:.2f})"
        for title, found, copied in (
            ("BLEU", main.scores.bleu, main.copied.bleu),
            ("chrF", main.scores.chrf, main.copied.chrf),
        )
        if found is not None and copied is not None
    ]
    rouge = main.scores.rouge_l
    said.append(
        f"ROUGE-L {rouge.estimate:.2%} ({rouge.low:.2%} to {rouge.high:.2%}; copying "
        f"{main.copied.rouge_l.estimate:.2%})"
    )
    return (
        f"{', '.join(said)}; {main.length_ratio:.2f} times as long as the references, "
        f"{main.repeating:.1%} repeat themselves, {main.cut:,} sources cut"
    )


def _ends(found: CorpusScore) -> str:
    return "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"


def texts_sections(evaluations: Sequence[TextsEvaluation], language: str = "en") -> list[Section]:
    """The first in full, others beside it in the table and the drawings."""
    words, main = catalogue(language), evaluations[0]
    made: list[Section] = [_summary(main, words), _beside(evaluations, words)]
    made += [_lengths(evaluations, words), _by_length(main, words)]
    for title, note, rows in (
        ("texts_worst", "texts_worst_note", main.worst),
        ("texts_best", "texts_best_note", main.best),
    ):
        if rows:
            items = [_quote(row, words) for row in rows]
            made.append(Quotes(title=words[title], notes=[words[note]], items=items))
    return made


def _summary(main: TextsEvaluation, words: Words) -> Numbers:
    scores = main.scores
    notes = [words["texts_summary"].format(name=main.name, rows=main.rows)]
    notes += [words["texts_summary_lowercase"]] * main.lowercase
    if scores.bleu is None or scores.chrf is None:
        notes.append(words["texts_no_sacrebleu"])
    else:
        notes.append(f"BLEU {scores.bleu.signature} · chrF {scores.chrf.signature}")
    repeating = words["repeating_remark"].format(gold=percent(main.gold_repeating))
    shown = [
        ("BLEU", f"{scores.bleu.score:.1f}" if scores.bleu else "–", words["bleu_remark"]),
        ("chrF", f"{scores.chrf.score:.1f}" if scores.chrf else "–", words["chrf_remark"]),
        ("ROUGE-L", percent(scores.rouge_l.estimate), words["rouge_l_remark"]),
        (words["length_ratio"], percent(main.length_ratio), words["length_ratio_remark"]),
        (words["repeating"], percent(main.repeating), repeating),
        (words["texts_cut"], percent(main.cut / main.rows), words["texts_cut_remark"]),
    ]
    items = [Number(value=value, name=name, remark=remark) for name, value, remark in shown]
    return Numbers(title=words["summary"], notes=notes, items=items)


def _beside(evaluations: Sequence[TextsEvaluation], words: Words) -> Table:
    rows = [[e.name, *_cells(e.scores)] for e in evaluations]
    return Table(
        title=words["texts_beside"],
        notes=[words["texts_beside_note"]],
        columns=[
            Column(name=words["model"], numeric=False),
            *(Column(name=title) for title in TITLES.values()),
        ],
        rows=rows,
        totals=[[words["texts_copy"], *_cells(evaluations[0].copied)]],
    )


def _cells(scores: Scores) -> list[str]:
    return [_cell(getattr(scores, name)) for name in TITLES]


def _cell(found: CorpusScore | Interval | None) -> str:
    match found:
        case None:
            return "–"
        case Interval():
            value, low, high = (100 * x for x in (found.estimate, found.low, found.high))
            return f"{value:.1f} ({low:.1f}–{high:.1f})"
    ends = "" if found.low is None else f" ({found.low:.1f}–{found.high:.1f})"
    return f"{found.score:.1f}{ends}"


def _lengths(evaluations: Sequence[TextsEvaluation], words: Words) -> Figure:
    axes = Axes(words["axis_reference_words"], words["axis_written_words"])
    panels = []
    for e in evaluations:
        gold, given = zip(*e.lengths, strict=True)
        caption = words["texts_lengths_caption"].format(name=e.name)
        panels.append(scatter_panel(gold, given, axes, caption))
    return Figure(title=words["texts_lengths"], notes=[words["texts_lengths_note"]], panels=panels)


def _by_length(main: TextsEvaluation, words: Words) -> Table:
    names = [words["rows"], TITLES["rouge_l"], words["length_ratio"]]
    rows = []
    for part in main.by_length:
        key = "slice_length_one" if part.shortest == part.longest else "slice_length"
        name = words[key].format(shortest=part.shortest, longest=part.longest)
        shares = [percent(part.rouge_l), percent(part.length_ratio)]
        rows.append([name, str(part.rows), *shares])
    return Table(
        title=words["texts_by_length"],
        notes=[words["texts_by_length_note"]],
        columns=[Column(name=words["slice"], numeric=False), *(Column(name=n) for n in names)],
        rows=rows,
    )


def _quote(row: WrittenRow, words: Words) -> Quote:
    remarks = [
        f"{TITLES['rouge_l']} {percent(row.rouge_l)}",
        words["quote_text_score"].format(score=f"{row.score:.2f}"),
        words["quote_row"].format(row=row.row),
    ]
    remarks += [words["quote_cut"].format(cut=row.cut)] if row.cut else []
    texts = [words["quote_source"].format(text=row.source)]
    texts.append(words["quote_written"].format(text=row.written))
    texts += [words["quote_reference"].format(text=text) for text in row.references]
    return Quote(texts=texts, remarks=remarks)
