"""The page: complete in itself, escaped, in two languages, readable on a phone."""

import re
import string
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from clozeworks.core.bundle import Calibration
from clozeworks.core.errors import UserError
from clozeworks.evaluation.answers import _asks
from clozeworks.evaluation.catalogue import LANGUAGES, catalogue
from clozeworks.evaluation.classify import judge
from clozeworks.evaluation.classify_sections import classify_sections
from clozeworks.evaluation.figures import MOST_BARS, Axes, Line, line_chart, shares_panel
from clozeworks.evaluation.matrix import NAMED_COLUMNS, clip, half_widths, lay_out
from clozeworks.evaluation.report import render, write_report
from clozeworks.evaluation.reports.classify import Classify
from clozeworks.evaluation.reports.embed import Embed
from clozeworks.evaluation.reports.qa import Qa
from clozeworks.evaluation.reports.seq2seq import Seq2Seq
from clozeworks.evaluation.reports.tag import Tag
from clozeworks.evaluation.sections import Column, Matrix, Quote, Quotes, Table, Text
from clozeworks.metrics.calibrate import softmax
from clozeworks.tasks.classify import ClassifyExample, ClassifyPrediction
from clozeworks.text.tags import Span
from tiny import make_examples, make_task

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>$x^2$ & {{ 7 * 7 }} \' {name}'
CHROMIUM = Path("/usr/bin/chromium")


def evaluated(labels, name="model", strength=2.0, text="我的订单 order no. {i}", seed=0):
    """One model judged on 150 rows; the rows depend on the labels alone, the model on `seed`."""
    gold = np.random.default_rng(7).integers(0, len(labels), 150)
    random = np.random.default_rng(seed)
    logits = random.normal(size=(150, len(labels))) + strength * np.eye(len(labels))[gold]
    examples = [
        ClassifyExample(text=text.replace("{i}", str(i)), text_pair=None, label=labels[g])
        for i, g in enumerate(gold)
    ]
    predictions = [
        ClassifyPrediction(
            label=labels[row.argmax()] if row.max() >= 0.4 else None,
            best=labels[row.argmax()],
            confidence=float(row.max()),
            scores=dict(zip(labels, row.tolist(), strict=True)),
        )
        for row in softmax(logits)
    ]
    return judge(predictions, examples, labels, Calibration(threshold=0.4), name=name)


def three(labels, **given):
    return [evaluated(labels, f"模型 {i}", 3 - i, seed=i, **given) for i in range(3)]


class Page(HTMLParser):
    """What a browser would find: tags, addresses, text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.texts, self.ids = set(), [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attributes = dict(attrs)
        assert not any(name.startswith("on") for name in attributes)
        self.addresses += [v for n, v in attributes.items() if n.endswith(("src", "href"))]
        self.ids += [attributes["id"]] if "id" in attributes else []

    def handle_data(self, data):
        self.texts.append(data)


def used_keys():
    modules = (f for f in files("clozeworks.evaluation").iterdir() if f.name.endswith(".py"))
    source = "".join(module.read_text("utf-8") for module in modules)
    pages = "".join(
        (files("clozeworks.evaluation") / "templates" / name).read_text("utf-8")
        for name in ("report.html.jinja", "sections.html.jinja")
    )
    keys = catalogue("en").keys()
    quoted = set(re.findall(r'"([a-z0-9_]+)"', source)) & keys
    return (
        quoted
        | set(re.findall(r"words\.([a-z_]+)", pages))
        | {f"slice_{name}" for name in ("chinese", "english", "mixed", "other")}
    )


def test_every_language_says_everything_and_nothing_unused():
    fields = {
        language: {
            key: sorted(f for _, f, _, _ in string.Formatter().parse(text) if f)
            for key, text in catalogue(language).items()
        }
        for language in LANGUAGES
    }
    assert fields["en"] == fields["zh"]
    assert used_keys() == fields["en"].keys()
    chinese = {k for k, t in catalogue("zh").items() if re.search("[\u4e00-\u9fff]", t)}
    assert catalogue("zh").keys() - chinese == {"auc", "f1", "f1_of", "legend_auc"}


def test_an_unknown_language_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"report language 'fr'.*en, zh"):
        write_report(tmp_path / "r.html", "t", [], "fr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("labels", [["差评", "好评"], [f"class_{i}" for i in range(5)]])
def test_the_page_asks_for_nothing_and_shows_the_numbers(language, labels):
    models = three(labels)
    html = render("报告 report", classify_sections(models, language), language)
    page = Page(html)
    assert not page.tags & {"script", "iframe", "img", "object"}
    assert all(a.startswith(("#", "data:,")) for a in page.addresses)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", html)
    text = " ".join(page.texts)
    for model in models:
        assert model.name in text
        assert f"{100 * model.accuracy.estimate:.1f}%" in text
    assert catalogue(language)["mistakes"] in text
    assert ("ROC" in text) == (len(labels) == 2)
    assert ("真阳性率" in text) == (len(labels) == 2 and language == "zh")
    headings = [i for i in page.ids if i.startswith("s")]
    assert len(headings) == len(set(headings))
    assert {a for a in page.addresses if a.startswith("#s")} == {f"#{i}" for i in headings}


def judged_with(name, answer):
    """A task of a kind, and its report's evaluation of a few rows, each text and label as evil."""
    task = make_task(name, None if name == "classify:regression" else [EVIL, "好", "c"])
    examples = [e.model_copy(update={"text": EVIL + e.text}) for e in make_examples(task, 30)]
    predictions = [answer(task, e, i) for i, e in enumerate(examples)]
    return Classify().judge(task, predictions, examples, "模型")


def some_labels(task, example, i):
    scores = {label: 0.9 if (i + k) % 4 else 0.1 for k, label in enumerate(task.labels)}
    return task.Answer(labels=[n for n, s in scores.items() if s > 0.5], scores=scores)


def some_number(task, example, i):
    return task.Answer(value=task.target(example) + (i % 5 - 2) / 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_have_a_page_of_their_own(language):
    task = make_task("qa")
    context = f"{EVIL} 王芳 came on Monday."
    start = context.index("Monday")
    there = {"text": ["Monday"], "answer_start": [start]}
    nothing = {"text": [], "answer_start": []}
    rows = [
        task.Example(context=context, question=question, answers=answers)
        for question, answers in (("When?", there), ("when was it", there), ("谁来了？", nothing))
    ]
    good = task.Answer(
        answer="Monday", start=start, end=start + 6, confidence=0.9, margin=-1, candidates=[]
    )
    none = task.Answer(answer=None, start=None, end=None, confidence=0.6, margin=1, candidates=[])
    evaluation = Qa().judge(task, [good, none, good], rows, "模型")
    assert evaluation.exact.estimate == pytest.approx(1 / 3)
    assert [(k.kind, k.rows, k.exact) for k in evaluation.kinds] == [("when", 2, 0.5), ("谁", 1, 0)]
    assert [row.row for row in evaluation.mistakes] == [3, 2]
    page = Page(render("t", Qa().sections([evaluation, evaluation], language), language))
    assert not page.tags & {"script", "iframe", "img", "object"} and "svg" in page.tags
    assert "33.3%" in " ".join(page.texts) and "王芳 came on" in " ".join(page.texts)
    assert type(evaluation).model_validate_json(evaluation.model_dump_json()) == evaluation
    assert "of those without an answer, 0.00% right" in Qa().summary(evaluation)


@pytest.mark.parametrize("language", LANGUAGES)
def test_entities_have_a_page_of_their_own(language):
    task = make_task("tag")
    text = f"{EVIL} 王芳 in Paris"
    gold = [Span(0, 5, "name"), Span(8, 12, "name"), Span(20, 24, "place"), Span(30, 33, "name")]
    found = [Span(0, 5, "name"), Span(8, 12, "place"), Span(19, 24, "place"), Span(40, 44, "name")]
    example = task.Example(
        text=text, entities=[{"start": s.start, "end": s.end, "label": s.type} for s in gold]
    )
    entities = [
        {"start": s.start, "end": s.end, "label": s.type, "text": text[s.start : s.end]}
        for s in found
    ]
    answer = task.Answer(entities=[{**e, "confidence": 0.9} for e in entities])
    evaluation = Tag().judge(task, [answer, answer], [example, example], "模型")
    assert evaluation.faults == {"missed": 2, "invented": 2, "bounds": 2, "type": 2}
    assert evaluation.f1.estimate == evaluation.metrics.micro.f1 == 0.25
    page = Page(render("t", Tag().sections([evaluation, evaluation], language), language))
    assert not page.tags & {"script", "iframe", "img", "object"} and "svg" in page.tags
    assert text in " ".join(page.texts) and "25.0%" in " ".join(page.texts)
    assert type(evaluation).model_validate_json(evaluation.model_dump_json()) == evaluation
    assert "2 missed, 2 invented, 2 with other ends, 2 of another type" in Tag().summary(evaluation)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentence_vectors_have_pages_of_their_own(language):
    task = make_task("embed")
    vectors = np.eye(12, dtype=np.float32)
    rows = [task.Example(text=f"{EVIL} {i}", positive=f"王芳 {i}") for i in range(12)]
    answers = [
        task.Answer(vector=vectors[i].tolist(), vector_pair=vectors[i ^ (i < 4)].tolist())
        for i in range(12)
    ]
    evaluation = Embed().judge(task, answers, rows, "模型")
    assert evaluation.first.estimate == pytest.approx(8 / 12) and evaluation.pool == 12
    assert sum(evaluation.places) == 12 and len(evaluation.mistakes) == 4
    assert evaluation.mistakes[0].instead.startswith("王芳")
    scored = [task.Example(text=EVIL, text_pair="灯", score=i / 2) for i in range(12)]
    given = [task.Answer(vector=[1.0], similarity=(i % 6) / 6) for i in range(12)]
    similarity = Embed().judge(task, given, scored, "模型")
    assert {(m.row - 1) // 6 for m in similarity.mistakes} == {0, 1}
    for found in (evaluation, similarity):
        page = Page(render("t", Embed().sections([found, found], language), language))
        assert not page.tags & {"script", "iframe", "img", "object"}
        assert EVIL in " ".join(page.texts) and "模型" in " ".join(page.texts)
        assert type(found).model_validate_json(found.model_dump_json()) == found
    assert "found first 66.67%" in Embed().summary(evaluation)
    assert Embed().summary(similarity).startswith("Spearman 0.")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("name", "answer"), [("classify:multi", some_labels), ("classify:regression", some_number)]
)
def test_labels_and_numbers_have_pages_of_their_own(name, answer, language):
    evaluation = judged_with(name, answer)
    page = Page(render("t", Classify().sections([evaluation, evaluation], language), language))
    assert not page.tags & {"script", "iframe", "img", "object"} and "svg" in page.tags
    text = " ".join(page.texts)
    assert EVIL in text and "模型" in text
    if name == "classify:multi":
        assert f"{100 * evaluation.micro_f1.estimate:.1f}%" in text
        assert evaluation.micro_f1.low < evaluation.micro_f1.estimate < evaluation.micro_f1.high
        worst = evaluation.mistakes[0]
        assert worst.missing or worst.extra
    else:
        assert f"{evaluation.spearman.estimate:.3f}" in text
        off = [abs(row.gold - row.value) for row in evaluation.mistakes]
        assert off == sorted(off, reverse=True)
    assert type(evaluation).model_validate_json(evaluation.model_dump_json()) == evaluation
    assert Classify().summary(evaluation)


def test_a_question_asks_by_the_word_that_comes_first():
    asked = {
        "What did he do when it rained?": "what",
        "Which person lived where?": "which",
        "How many lamps are lost?": "how many",
        "为什么他什么时候来？": "为什么",
        "他什么时候来？": "什么时候",
        "Lamps": "–",
    }
    assert {question: _asks(question) for question in asked} == asked


def test_a_page_draws_no_more_bars_than_it_has_room_for():
    named = [(f"<script> {i}", i / 60) for i in range(60)]
    drawn = shares_panel(named, Axes("F1", "", x_share=True), "caption").svg
    assert all((f" {i}<" in drawn) == (i < MOST_BARS) for i in range(60))
    assert "<script" not in drawn


def test_whatever_people_write_is_text():
    labels = [f"{EVIL} {i}" for i in range(3)]
    models = [evaluated(labels, name=EVIL, text=EVIL + "{i}")]
    extra = [
        Text(title=EVIL, notes=[EVIL]),
        Table(columns=[Column(name=EVIL)], rows=[[EVIL]], totals=[[EVIL]]),
        Quotes(items=[Quote(texts=[EVIL], remarks=[EVIL])]),
        line_chart(EVIL, EVIL, [Line(EVIL, [0, 1], [0, 1])], Axes(EVIL, EVIL)),
    ]
    page = Page(render(EVIL, [*extra, *classify_sections(models)], "en"))
    assert not page.tags & {"script", "img"}
    assert "".join(page.texts).count(EVIL) > 20


def test_a_figure_draws_words_as_they_are():
    figure = line_chart("t", "c", [Line("n", [0, 1], [0, 1])], Axes(EVIL, "损失"))
    texts = Page(figure.panels[0].svg).texts
    assert EVIL in texts and "损失" in texts


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    models = three(["a", "b"])
    for name in ("one", "two"):
        write_report(tmp_path / name, "t", classify_sections(models, "zh"), "zh")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_report_of_free_sections_alone_stands():
    page = Page(render("t", [Text(notes=["only words"])], "zh"))
    assert "only words" in page.texts and "nav" not in page.tags


def test_models_judged_on_other_rows_share_no_report():
    other = evaluated(["a", "b"], text="something else {i}")
    with pytest.raises(UserError, match="different rows"):
        classify_sections([evaluated(["a", "b"]), other])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 20, 80])
def test_a_matrix_fits_its_frame(size):
    labels = [f"{'很长的类别名称' * 9}{i}" for i in range(size)]
    counts = [[(i * j) % 3 for j in range(size)] for i in range(size)]
    matrix = Matrix(labels=labels, counts=counts, down="d", across="a")
    drawn = lay_out(matrix)
    assert sum(cell.rows for cell in drawn.cells) == sum(map(sum, counts))
    assert all(cell.x >= drawn.left and cell.y >= drawn.top for cell in drawn.cells)
    assert all(cell.x + drawn.cell_width <= drawn.width for cell in drawn.cells)
    assert all(0 < cell.opacity <= 1 for cell in drawn.cells)
    assert drawn.width < 1160, "wider than the page"
    assert (drawn.columns[0] == "1") == (size > NAMED_COLUMNS)


def test_clipping_counts_chinese_characters_double():
    assert clip("退款进度查询", 12) == "退款进度查询"
    assert clip("退款进度查询", 11) == "退款进度查…"
    assert half_widths(clip("refund_status" * 9, 28)) == 28


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: the page is not looked at in a browser")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [2, 20, 80])
def test_a_browser_shows_it_without_complaint(browser, tmp_path, width, language, size):
    labels = [f"意图很长的名字_a_rather_long_intent_name_{i}" for i in range(size)]
    path = tmp_path / "report.html"
    models = three(labels, text=EVIL + " 字" * 60 + "x" * 120 + "{i}")
    curve = line_chart("损失", "每步", [Line("MLM", [0, 1], [2, 1])], Axes("步", "nat"))
    write_report(path, "报告 " + "W" * 90, [curve, *classify_sections(models, language)], language)
    page = browser.new_page(viewport={"width": width, "height": 800})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('figure svg text')].filter(t => {"
    outside += "const a = t.getBoundingClientRect(), b = t.closest('svg').getBoundingClientRect();"
    outside += "return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1})"
    assert page.evaluate(outside + ".map(t => t.textContent)") == []
    page.close()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("sacrebleu", [True, False])
def test_texts_have_a_page_of_their_own(language, sacrebleu, monkeypatch):
    if sacrebleu:
        pytest.importorskip("sacrebleu")
    else:
        monkeypatch.setattr("clozeworks.evaluation.texts.find_spec", lambda name: None)
    task = make_task("seq2seq")
    told = [f"{EVIL} the order is late", "快递在哪里", "the parcel is here, please send the parcel"]
    rows = [
        task.Example(source=f"{EVIL} where is my Order", target=[told[0], "late"]),
        task.Example(source="我的快递在哪里呢", target=told[1]),
        task.Example(source="the parcel", target=told[2]),
    ]
    written = [told[0].lower(), "快递", "a a a a a a a"]
    answers = [
        task.Answer(text=text, score=-0.5, cut=cut)
        for text, cut in zip(written, (0, 3, 0), strict=True)
    ]
    evaluation = Seq2Seq().judge(task, answers, rows, "模型")
    assert evaluation.lowercase and evaluation.cut == 1
    assert evaluation.repeating == pytest.approx(1 / 3) and evaluation.gold_repeating == 0
    assert [row.row for row in evaluation.worst] == [3, 2]
    assert [row.row for row in evaluation.best] == [1, 2, 3]
    assert (evaluation.scores.bleu is not None) == sacrebleu
    assert 0 < evaluation.scores.rouge_l.estimate < evaluation.copied.rouge_l.estimate < 1
    page = Page(render("t", Seq2Seq().sections([evaluation, evaluation], language), language))
    assert not page.tags & {"script", "iframe", "img", "object"}
    text = " ".join(page.texts)
    assert f"{EVIL} where is my Order" in text
    assert ("clozeworks[gen]" in text) != sacrebleu
    assert type(evaluation).model_validate_json(evaluation.model_dump_json()) == evaluation
    assert "33.3% repeat themselves, 1 sources cut" in Seq2Seq().summary(evaluation)
