"""Laws of the reports on choices, rankings and relations."""

import json
import re

import pytest
from sklearn.metrics import accuracy_score, ndcg_score

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.evaluation.lexical import lexical_orders
from clozeworks.evaluation.report import render, write_json
from clozeworks.evaluation.reports import REPORTS
from clozeworks.inference.engine import Engine
from tiny import RELATIONS, TOKENIZER, VOCABULARY, make_examples, make_model, make_task

NAMES = ["choice", "rerank", "relation"]
SCRIPT = "<script>alert(1)</script>"


def judged(name, rows=None, task=None):
    task = task or make_task(name)
    rows = rows or make_examples(task, 30)
    predictions = list(Engine(make_model(task), task, TOKENIZER).predict(rows))
    return REPORTS.get(name)().judge(task, predictions, rows, f"tiny {SCRIPT}"), predictions, rows


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_every_section_and_escapes_what_people_wrote(name, language, tmp_path):
    evaluation, _, _ = judged(name)
    report = REPORTS.get(name)()
    page = render("x", report.sections([evaluation, evaluation], language), language)
    assert SCRIPT not in page and "&lt;script&gt;" in page and "<svg" in page
    assert report.summary(evaluation)
    write_json(tmp_path / "report.json", evaluation)
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["task"] == name


@pytest.mark.parametrize("name", NAMES)
def test_what_people_wrote_is_escaped_in_quotes_too(name):
    task = make_task(name)
    rows = make_examples(task, 60)
    field = {"choice": "context", "rerank": "query"}.get(name)
    if field:
        rows = [row.model_copy(update={field: SCRIPT}) for row in rows]
    else:
        spans = {"subject": {"start": 0, "end": 8}, "object": {"start": 9, "end": 14}}
        rows = [task.Example(text=SCRIPT, label=row.label, **spans) for row in rows]
    evaluation, _, _ = judged(name, rows)
    assert evaluation.mistakes
    page = render("x", REPORTS.get(name)().sections([evaluation], "en"))
    assert SCRIPT not in page and "script" in page


def test_choices_stand_beside_chance_and_the_most_frequent_place():
    task = tasks.create("choice", {"answer_form": "0"}, VOCABULARY)
    options = [["late", "lost"], ["late", "lost", "order", "a"]]
    rows = [
        task.Example(context=f"refund {i}", options=options[i % 2], answer="1" if i % 4 else "0")
        for i in range(12)
    ]
    evaluation, predictions, _ = judged("choice", rows, task)
    gold = [task.target(row) for row in rows]
    assert evaluation.chance == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert evaluation.majority == 9 / 12
    found = accuracy_score(gold, [p.index for p in predictions])
    assert evaluation.accuracy.estimate == pytest.approx(found)
    assert [(c.options, c.rows) for c in evaluation.counts] == [(2, 6), (4, 6)]
    assert sum(c.right for c in evaluation.counts) == evaluation.marks.count("1")


def test_rankings_stand_beside_the_order_given_and_bm25():
    task = make_task("rerank")
    rows = make_examples(task, 30)
    rows.append(rows[0].model_copy(update={"relevant": []}))
    evaluation, predictions, _ = judged("rerank", rows)
    assert evaluation.model.metrics.without == 1 and len(evaluation.marks) == 30
    assert evaluation.model.metrics.mrr[1] == pytest.approx(evaluation.marks.count("1") / 30)
    each = []
    for row, found in zip(rows[:30], predictions, strict=False):
        scores = [0.0] * len(row.candidates)
        for r in found.ranked:
            scores[r.index] = r.score
        each.append(ndcg_score([task.target(row)], [scores], k=10))
    assert evaluation.ndcg.estimate == pytest.approx(sum(each) / 30)
    first = [row.candidates[0] in row.relevant for row in rows[:30]]
    assert evaluation.given.metrics.mrr[1] == pytest.approx(sum(first) / 30)
    curve = evaluation.model.found
    assert curve == sorted(curve) and curve[-1] == 1 and curve[0] == evaluation.model.metrics.mrr[1]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_how_far_down_one_looks_is_a_whole_number_of_candidates(count):
    task = make_task("rerank")
    rows = [
        task.Example(
            query="late",
            candidates=[f"lost order {i}" for i in range(count)],
            relevant=["lost order 1"],
        )
        for _ in range(3)
    ]
    evaluation, _, _ = judged("rerank", rows)
    page = render("x", REPORTS.get("rerank")().sections([evaluation], "en"))
    assert ">2<" in page.replace(" ", "").replace("\n", "")
    assert not re.search(r">\s*\d+\.\d+\s*</text>", page)


def test_bm25_puts_shared_and_rare_words_first_and_forgets_the_order_given():
    texts = ["the lost parcel", "the order is late", "the the the", "我要退款", "快递在哪里"]
    orders = lexical_orders(["lost order parcel", "退款"], [texts, texts])
    assert orders[0][:2] == [0, 1] and orders[1][0] == 3
    (turned,) = lexical_orders(["lost order parcel"], [texts[::-1]])
    assert [texts[::-1][i] for i in turned] == [texts[i] for i in orders[0]]


def test_relations_are_told_by_direction_and_distance():
    evaluation, predictions, rows = judged("relation")
    assert evaluation.labels == RELATIONS
    assert sum(map(sum, evaluation.confusion)) == len(rows)
    assert sum(d.rows for d in evaluation.distances) == len(rows)
    ways = {w.way: w.rows for w in evaluation.ways}
    before = sum(row.subject.start < row.object.start for row in rows)
    assert ways == {"subject_first": before, "object_first": len(rows) - before}
    found = accuracy_score([r.label for r in rows], [p.label for p in predictions])
    assert evaluation.accuracy.estimate == pytest.approx(found)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_rows_without_an_answer_are_refused(name):
    task, report = make_task(name), REPORTS.get(name)()
    with pytest.raises(UserError, match="no rows to judge"):
        report.judge(task, [], [], "tiny")
    if name == "rerank":  # where nothing is relevant, nothing can be judged
        rows = [row.model_copy(update={"relevant": []}) for row in make_examples(task, 3)]
        match = "nothing is relevant to any query"
    else:
        field = "answer" if name == "choice" else "label"
        rows = [row.model_copy(update={field: None}) for row in make_examples(task, 3)]
        match = "row 1 has no"
    predictions = list(Engine(make_model(task), task, TOKENIZER).predict(rows))
    with pytest.raises(UserError, match=match):
        report.judge(task, predictions, rows, "tiny")


def test_where_every_grade_is_nothing_no_order_is_predicted():
    task = tasks.create("rerank", {"relevant_form": "grades"}, VOCABULARY)
    rows = [task.Example(query="a", candidates=["a", "b"], relevant=["0", "0"])] * 2
    with pytest.raises(UserError, match="here and all others have nothing relevant"):
        REPORTS.get("rerank")().refuse(task, rows, ["here", "there"])
    rows[1] = rows[1].model_copy(update={"relevant": ["0", "2"]})
    REPORTS.get("rerank")().refuse(task, rows, ["here", "there"])
