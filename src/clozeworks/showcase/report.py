"""The demo's report: how it learned, and four classifiers side by side."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clozeworks.api.evaluate import judged
from clozeworks.api.model import load
from clozeworks.core.log import say
from clozeworks.data.read import read_examples
from clozeworks.evaluation.baseline import Baseline
from clozeworks.evaluation.classify import Evaluation, compare, judge
from clozeworks.evaluation.figures import Axes, Line, line_chart
from clozeworks.evaluation.report import write_json, write_report
from clozeworks.evaluation.reports.classify import Classify
from clozeworks.evaluation.sections import Section, Text
from clozeworks.tasks.classify import ClassifyExample

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Clozeworks demo: customer intents in English and Chinese",
        "shipped": "clozeworks-mini",
        "bert": "BERT pretrained here",
        "chance": "same BERT, not pretrained",
        "made": "How this was made",
        "story": (
            "A WordPiece tokenizer and a BERT of 4 layers and width 256 were trained on this "
            "machine, on the documentation that comes with Python and on a small help desk's pages "
            "in English and Chinese; then fine-tuned on {train} utterances of {labels} classes. "
            "Beside it stand clozeworks-mini, which comes with Clozeworks and has the same shape, "
            "and the same BERT without pretraining. All classifiers learned from the same rows, were tuned and calibrated on the "
            "same dev rows, and are judged on the same {test} test rows."
        ),
        "caution": (
            "The pretraining text is small and mostly about Python; that of clozeworks-mini is some "
            "forty times as much of Wikipedia, read ten times over. A model pretrained on text of your "
            "own field, for longer, gains more."
        ),
        "curve": "Pretraining: loss on hidden tokens",
        "caption": "Mean loss in nats by step",
        "step": "step",
        "loss": "loss",
        "training": "training text",
        "held": "held-out text",
    },
    "zh": {
        "title": "Clozeworks 演示：中英文客服意图识别",
        "shipped": "clozeworks-mini",
        "bert": "本机预训练的 BERT",
        "chance": "同一 BERT，未预训练",
        "made": "这份结果是怎么来的",
        "story": (
            "在这台机器上，用 Python 自带的文档和一家小店的中英文客服页面，从零训练了 WordPiece 分词器"
            "和一个 4 层、宽 256 的 BERT；然后用 {train} 条、{labels} 类的用户说法做微调。"
            "旁边是随 Clozeworks 附带、形状相同的 clozeworks-mini，以及同一 BERT 未预训练的结果。"
            "所有分类器使用同样的训练数据，在同样的开发集上调参和校准，并在同样的 {test} 条测试数据上评测。"
        ),
        "caution": (
            "预训练文本很少，而且大多与 Python 有关；clozeworks-mini 用的是四十来倍的维基百科文本，读了十遍。"
            "用您自己领域的文本、预训练更久，收益会更大。"
        ),
        "curve": "预训练：被遮盖词元上的损失",
        "caption": "各步的平均损失（纳特）",
        "step": "步",
        "loss": "损失",
        "training": "训练文本",
        "held": "留出文本",
    },
}
INTENTS_OF = {"shipped": "intents", "bert": "intents-own", "chance": "intents-from-chance"}
"""Folders of the three that are fine-tuned, by whose they are."""
POINTS = 200
"""Points of the training curve."""


def write_demo_report(out: Path, intents: Mapping[str, Path], language: str) -> Path:
    """Judge the three models and the baseline on the test rows; write report.html and report.json."""
    words = WORDS[language]
    rows = {
        split: list(read_examples(path, ClassifyExample, {})) for split, path in intents.items()
    }
    evaluations = _evaluations(out, rows, words, Baseline.name(language))
    counts = {
        "train": len(rows["train"]),
        "test": len(rows["test"]),
        "labels": len(evaluations[0].labels),
    }
    story = Text(title=words["made"], notes=[words["story"].format(**counts), words["caution"]])
    sections: list[Section] = [
        *Classify().sections(evaluations, language),
        story,
        _curve(out / "pretrained" / "metrics.jsonl", words),
    ]
    write_report(out / "report.html", words["title"], sections, language)
    write_json(out / "report.json", compare(evaluations))
    return out / "report.html"


def _evaluations(
    out: Path, rows: Mapping[str, list[ClassifyExample]], words: Mapping[str, str], plain: str
) -> list[Evaluation]:
    evaluations, report = [], Classify()
    for name, folder in INTENTS_OF.items():
        engine = load(out / folder / "bundle", "cpu", "auto")
        evaluation = judged(engine, report, rows["test"], words[name])
        assert isinstance(evaluation, Evaluation)
        evaluations.append(evaluation)
    labels = evaluations[0].labels
    baseline = Baseline.fit(rows["train"], rows["dev"], labels)
    answers = baseline.predict(rows["test"])
    evaluations.append(judge(answers, rows["test"], labels, baseline.calibration, name=plain))
    for evaluation in evaluations:
        say(f"{evaluation.name}: {report.summary(evaluation)}")
    return evaluations


def _curve(path: Path, words: Mapping[str, str]) -> Section:
    """The loss on hidden tokens by step, in training (mean of stretches) and held out."""
    events: list[dict[str, Any]] = [json.loads(x) for x in path.read_text("utf-8").splitlines()]
    steps = [(e["step"], e["mlm"]) for e in events if "mlm" in e]
    held = [(e["step"], e["held_out"]["mlm"]) for e in events if "held_out" in e]
    stretch = max(1, len(steps) // POINTS)
    means = [
        (part[-1][0], sum(loss for _, loss in part) / len(part))
        for part in (steps[i : i + stretch] for i in range(0, len(steps), stretch))
    ]
    lines = [
        Line(words[name], [float(x) for x, _ in points], [y for _, y in points])
        for name, points in (("training", means), ("held", held))
    ]
    return line_chart(words["curve"], words["caption"], lines, Axes(words["step"], words["loss"]))
