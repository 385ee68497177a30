"""Laws of what a page tells a reader: by which rules, of which line, of how many whole things."""

import re

import pytest

from clozeworks import tasks
from clozeworks.evaluation.catalogue import LANGUAGES, catalogue
from clozeworks.evaluation.figures import Axes, Line, line_chart
from clozeworks.evaluation.report import render
from clozeworks.evaluation.reports.qa import Qa
from tiny import VOCABULARY


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("rules", "other", "f1"), [("squad", "cmrc", 0), ("cmrc", "squad", 4 / 5)])
def test_a_page_of_answers_says_by_which_rules_they_were_compared(rules, other, f1, language):
    task = tasks.create("qa", {"rules": rules}, VOCABULARY)
    gold = {"text": ["上海"], "answer_start": [0]}
    rows = [task.Example(context="上海市", question="哪里", answers=gold)]
    given = task.Answer(answer="上海市", start=0, end=3, confidence=0.9, margin=-1, candidates=[])
    evaluation = Qa().judge(task, [given], rows, "m")
    assert evaluation.rules == rules and evaluation.f1.estimate == pytest.approx(f1)
    page, words = render("t", Qa().sections([evaluation], language), language), catalogue(language)
    assert words[f"answers_rules_{rules}"] in page
    assert words[f"answers_rules_{other}"] not in page
    assert f"by the rules of {rules}" in Qa().summary(evaluation)


def test_chinese_pages_call_rows_by_their_lines_in_the_file():
    assert catalogue("zh")["quote_row"] == "第 {row} 行"


@pytest.mark.parametrize("most", [1, 2, 3, 5, 20])
def test_what_counts_things_has_whole_numbers_on_its_axis(most):
    line = Line("n", range(1, most + 1), [0.5] * most)
    axes = Axes("how many", "share", y_share=True, x_whole=True)
    drawn = re.findall("<text[^>]*>([^<]*)<", line_chart("t", "c", [line], axes).panels[0].svg)
    ticks = drawn[: drawn.index("how many")]
    assert all(tick.isdecimal() for tick in ticks) and 0 < len(ticks) <= most
