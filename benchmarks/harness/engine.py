"""Our engine, timed: real steps of the real loop.

Set up as the `pretrain` and `finetune` verbs do it, without their folders.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clozeworks import tasks
from clozeworks.api.pretrain import PretrainSettings
from clozeworks.core.bundle import open_bundle
from clozeworks.data.batches import Group
from clozeworks.data.order import ExampleStream, ShardStream, Stream
from clozeworks.data.read import read_examples
from clozeworks.data.shards import Shards
from clozeworks.interop.huggingface import open_model
from clozeworks.model.encoder import initialise
from clozeworks.model.families import sized
from clozeworks.model.heads import Model, encoder_of
from clozeworks.tasks.base import Draw, Task
from clozeworks.text.load import load_tokenizer
from clozeworks.train.gauge import operations_a_token
from clozeworks.train.loop import TrainSettings, train
from clozeworks.train.parallel import learner_for
from clozeworks.train.state import Cursor

CPU = torch.device("cpu")
LOOKED_AT = 10
"""Steps whose batches are looked at to learn what a token costs."""


@dataclass(frozen=True)
class Timed:
    """What the measured steps did; `tokens` are real ones, there is no padding."""

    seconds: float
    tokens: int
    losses: list[float]


@dataclass(frozen=True)
class Pretraining:
    """An encoder from chance, and what it learns."""

    family: str = "bert"
    size: str = "mini"
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """Values that differ from its size's."""
    task: str = "mlm"
    length: int = 128
    batch: int | None = None
    """Tokens of a step; None: as many as are shipped."""
    micro_tokens: int | None = None
    """Most tokens of a pass; None: as many as are shipped."""
    dropout: float | None = 0.0
    """None: what the encoder's values say."""
    compile: bool = False
    """As the setting, for a GPU."""

    @property
    def settings(self) -> PretrainSettings:
        """Those of the verb, but for these."""
        sizes = {"batch": self.batch, "micro_tokens": self.micro_tokens}
        given = {name: size for name, size in sizes.items() if size is not None}
        return PretrainSettings.model_validate(
            {**given, "lr": 5e-4, "dropout": self.dropout, "compile": self.compile}
        )


@dataclass(frozen=True)
class Pretrained:
    """A pretraining's time, and what it trained."""

    timed: Timed
    operations: float
    """What a token costs in training, in floating-point operations."""
    parameters: int
    """The generator's own are among them; what is shared counts once."""


def pretraining(
    shards: Path,
    what: Pretraining,
    steps: tuple[int, int],
    device: torch.device = CPU,
) -> Pretrained:
    """Train from chance as the `pretrain` verb does, on all documents of the shards."""
    settings = what.settings
    corpus = Shards.open(shards)
    tokenizer = load_tokenizer(corpus.tokenizer_folder)
    task = tasks.create(what.task, {}, tokenizer.vocabulary)
    model = fresh_model(what, task).to(device)
    stream = ShardStream(
        corpus,
        np.arange(len(corpus.documents) - 1),
        task.vocabulary,
        what.length,
        pairs=task.pairs,
        tokens=settings.batch,
        seed=settings.seed,
    )
    timed = steps_timed(model, task, stream, settings, steps)
    looked_at = [
        task.collate(stream.groups(0, indices), Draw(settings.seed, 0))
        for indices in stream.steps(0)[:LOOKED_AT]
    ]
    return Pretrained(
        timed,
        operations=operations_a_token(model, task, looked_at),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def fresh_model(what: Pretraining, task: Task) -> Model:
    """The encoder and all that its task trains beside it, from chance."""
    config = sized(what.family, what.size, task.vocabulary.size, **what.encoder)
    model = task.build(encoder_of(config))
    task.equip(model)
    initialise(model, config.init_std, what.settings.seed)
    return model


def finetuning(folder: Path, rows: Path, settings: TrainSettings, steps: tuple[int, int]) -> Timed:
    """A model folder with the classify task on labelled rows, as the `finetune` verb sets it up."""
    kind = tasks.TASKS.get("classify")
    examples = list(read_examples(rows, kind.Example, {"label": "label"}))
    parent, tokenizer = open_bundle(folder), load_tokenizer(folder)
    labels = sorted({example.label for example in examples})
    task = tasks.create("classify", {}, tokenizer.vocabulary, labels)
    pairs = zip(examples, task.features(examples, tokenizer), strict=True)
    groups = [Group(i, found, task.target(example)) for i, (example, found) in enumerate(pairs)]
    stream = ExampleStream(groups, settings.batch, settings.unit, settings.seed)
    model = open_model(parent, task, settings.seed).model
    return steps_timed(model, task, stream, settings, steps)


def steps_timed(
    model: Model, task: Task, stream: Stream, settings: TrainSettings, steps: tuple[int, int]
) -> Timed:
    """Train for (warm-up, measured) steps, set up as `train.fit` does; time the measured ones."""
    learner = learner_for(model, task, settings)
    warm, measured = steps
    events, ends = [], []
    for event in train(learner, stream, Cursor(total=warm + measured)):
        ends.append(time.perf_counter())
        events.append(event)
    return Timed(
        seconds=ends[-1] - ends[warm - 1],
        tokens=sum(event.tokens for event in events[warm:]),
        losses=[sum(event.losses.values()) for event in events],
    )
