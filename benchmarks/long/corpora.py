"""Public data as long runs need it: corpora cut into shards, labelled sets, and what they tell."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import clozeworks
from clozeworks.core.files import write_file
from clozeworks.core.records import as_json
from clozeworks.data.prepare import PrepareSettings
from clozeworks.data.read import read_examples
from clozeworks.tasks.classify import ClassifyExample
from clozeworks.text.train import TokenizerSettings
from clozeworks.train.loop import TrainSettings

CORPORA = {"en": "wiki_en/wiki_en.txt.xz", "zh": "wiki_zh/wiki_zh.txt.xz"}
Numbers = dict[str, float]
PAIR = {"text": "text_a", "text_pair": "text_b"}
"""Columns of sets of pairs."""


def prepared(
    files: Sequence[Path],
    out: Path,
    tokenizer: TokenizerSettings,
    settings: PrepareSettings | None = None,
) -> Path:
    """Shards of the files, cut by a tokenizer of their own: in `shards` and `tokenizer` of `out`.

    What is there already stays.
    """
    place = out / "tokenizer"
    if not place.exists():
        recipe = clozeworks.TokenizerRecipe(files=list(files), out=place, settings=tokenizer)
        clozeworks.tokenizer(recipe)
    clozeworks.prepare(
        clozeworks.PrepareRecipe(
            files=list(files),
            tokenizer=place,
            out=out / "shards",
            settings=settings or PrepareSettings(),
        )
    )
    return out / "shards"


@dataclass(frozen=True)
class Labelled:
    """Rows to fine-tune on and rows to judge on, and for how long."""

    train: Path
    test: Path
    epochs: int
    batch: int
    columns: dict[str, str] = field(default_factory=dict)
    kind: str = "single"
    """What a text is given, as `classify` has it."""
    number: str = "accuracy"
    """What a model is judged by."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """What else of `finetune`'s recipe says how it begins."""


FRESH_POOLER = {"reinit": 0}
"""Where texts stand alone: of the pooler, which next sentences shaped, nothing."""


def finetuned(
    bundle: Path, labelled: Labelled, run: Path, seed: int, scratch: bool = False
) -> Numbers:
    """The numbers a classifier from this model comes to on the test rows."""
    duration = f"{labelled.epochs} epochs"
    made = clozeworks.finetune(
        clozeworks.FinetuneRecipe(
            task="classify",
            data=labelled.train,
            columns=labelled.columns,
            model=bundle,
            out=run,
            scratch=scratch,
            settings={"max_length": 128, "kind": labelled.kind},
            train=TrainSettings(duration=duration, lr=3e-4, batch=labelled.batch, seed=seed),
            **labelled.start,
        )
    )
    judged = clozeworks.evaluate(
        clozeworks.EvaluateRecipe(model=made.bundle, data=labelled.test, out=run / "evaluation")
    )
    return numbers_of(judged.evaluation.metrics)


def numbers_of(record: BaseModel) -> Numbers:
    """Every number of a record of metrics by its name, of records inside too; each class's F1."""
    return dict(_numbers("", record.model_dump(mode="json")))


def _numbers(place: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{place}{name}.", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{place}{name}", value
        elif name == "classes":
            yield from ((f"{place}f1.{row['label']}", row["f1"]) for row in value)


def drawn(file: Path, count: int, few: Path) -> Path:
    """A fixed draw of a file's rows, written to `few`."""
    rows = list(read_examples(file, ClassifyExample, {}))
    with write_file(few) as stream:
        stream.writelines(
            json.dumps(as_json(row), ensure_ascii=False) + "\n"
            for row in random.Random(0).sample(rows, count)
        )
    return few
