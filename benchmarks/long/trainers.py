"""Hugging Face's training of the same model on the same rows, as its users would write it."""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from beside import Contest
from clozeworks.metrics.qa import qa_metrics
from clozeworks.metrics.tag import tag_metrics
from clozeworks.text.tags import spans_of
from corpora import Numbers, numbers_of
from sets import Row, rows

IGNORED = -100
"""What its losses pass over."""
TRIED = 20
"""First and last tokens that are combined with each other."""
LONGEST = 30
"""Tokens of an answer."""


def trainer_tag(contest: Contest, seed: int) -> Numbers:
    """Token classification: the first piece of each word is learned and judged."""
    train, test = list(rows(contest.sets.train)), list(rows(contest.sets.test))
    labels = sorted({tag for row in train for tag in row["tags"]})
    tokenizer = AutoTokenizer.from_pretrained(contest.model)

    def encoded(row: Row) -> dict[str, Any]:
        found = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=128)
        words = found.word_ids()
        first = [w is not None and w != words[i - 1] for i, w in enumerate(words)]
        gold = [
            labels.index(row["tags"][w]) if is_first else IGNORED
            for w, is_first in zip(words, first, strict=True)
        ]
        return {**found, "labels": gold}

    model = AutoModelForTokenClassification.from_pretrained(contest.model, num_labels=len(labels))
    learned = [encoded(row) for row in train]
    trainer = trained(model, learned, DataCollatorForTokenClassification(tokenizer), contest, seed)
    given = [tagged(trainer, tokenizer, row, labels) for row in test]
    return numbers_of(tag_metrics([spans_of(row["tags"]) for row in test], given))


def tagged(trainer: Trainer, tokenizer: Any, row: Row, labels: Sequence[str]) -> list[Any]:
    """The entities of a row, each word's tag by its first piece; a word without one has none."""
    how = {"is_split_into_words": True, "truncation": True, "max_length": 128}
    found = tokenizer(row["tokens"], return_tensors="pt", **how).to(trainer.model.device)
    with torch.inference_mode():
        best = trainer.model.eval()(**found).logits[0].argmax(-1).tolist()
    tags, words = ["O"] * len(row["tokens"]), found.word_ids()
    for place, word in enumerate(words):
        if word is not None and word != words[place - 1]:
            tags[word] = labels[best[place]]
    return spans_of(tags)


def trainer_qa(contest: Contest, seed: int) -> Numbers:
    """Answers by their ends, windows with overlap, the best span of all windows."""
    train, test = list(rows(contest.sets.train)), list(rows(contest.sets.test))
    tokenizer = AutoTokenizer.from_pretrained(contest.model)
    model = AutoModelForQuestionAnswering.from_pretrained(contest.model)
    learned = [with_ends(w, row) for row in train for w in windows(tokenizer, row, contest)]
    trainer = trained(model, learned, DataCollatorWithPadding(tokenizer), contest, seed)
    given = [answer(trainer, tokenizer, row, contest) for row in test]
    return numbers_of(qa_metrics([row["answers"]["text"] for row in test], given))


def windows(tokenizer: Any, row: Row, contest: Contest) -> list[dict[str, Any]]:
    """A question with each stretch of its text, and where the text's tokens stand in it."""
    found = tokenizer(
        row["question"],
        row["context"],
        truncation="only_second",
        max_length=contest.settings["max_length"],
        stride=contest.settings["overlap"],
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    return [
        {
            "input_ids": found["input_ids"][i],
            "token_type_ids": found["token_type_ids"][i],
            "attention_mask": found["attention_mask"][i],
            "places": [
                place if part == 1 else None
                for place, part in zip(
                    found["offset_mapping"][i], found.sequence_ids(i), strict=True
                )
            ],
        }
        for i in range(len(found["input_ids"]))
    ]


def with_ends(window: dict[str, Any], row: Row) -> dict[str, Any]:
    """Add the first and last token of the answer, both 0 where the window does not hold it."""
    start = row["answers"]["answer_start"][0]
    end = start + len(row["answers"]["text"][0])
    inside = [i for i, p in enumerate(window["places"]) if p and p[0] < end and p[1] > start]
    whole = inside and window["places"][inside[0]][0] <= start
    whole = whole and window["places"][inside[-1]][1] >= end
    first, last = (inside[0], inside[-1]) if whole else (0, 0)
    told = {key: value for key, value in window.items() if key != "places"}
    return {**told, "start_positions": first, "end_positions": last}


def answer(trainer: Trainer, tokenizer: Any, row: Row, contest: Contest) -> str:
    """The best stretch of text over all windows of a question."""
    best, text = -np.inf, ""
    for window in windows(tokenizer, row, contest):
        keys = ("input_ids", "token_type_ids", "attention_mask")
        device = trainer.model.device
        inputs = {key: torch.tensor([window[key]], device=device) for key in keys}
        with torch.inference_mode():
            said = trainer.model.eval()(**inputs)
        starts, ends = said.start_logits[0].cpu().numpy(), said.end_logits[0].cpu().numpy()
        for i in starts.argsort()[::-1][:TRIED]:
            for j in ends.argsort()[::-1][:TRIED]:
                places = window["places"]
                if places[i] and places[j] and i <= j < i + LONGEST and starts[i] + ends[j] > best:
                    best = starts[i] + ends[j]
                    text = row["context"][places[i][0] : places[j][1]]
    return text


def trained(
    model: Any, learned: Sequence[dict[str, Any]], collator: Any, contest: Contest, seed: int
) -> Trainer:
    """Its Trainer with the trial's epochs, rate and batch; warm-up and decay as ours, in fp32."""
    amount, unit = contest.train["duration"].split()
    assert unit == "epochs"
    with tempfile.TemporaryDirectory() as place:
        settings = TrainingArguments(
            output_dir=place,
            num_train_epochs=float(amount),
            learning_rate=contest.train["lr"],
            per_device_train_batch_size=contest.train["batch"],
            warmup_steps=0.1,
            weight_decay=0.01,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = Trainer(model, settings, collator, train_dataset=list(learned))
        trainer.train()
    return trainer
