"""Our engine, timed: real steps of the real loop, and the machine's own matrix speed.

Set up as the `pretrain` and `finetune` verbs do it, without their folders.
"""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clozeworks import tasks
from clozeworks.api.pretrain import PretrainSettings
from clozeworks.core.bundle import open_bundle
from clozeworks.data.batches import Batch, Group
from clozeworks.data.order import ExampleStream, ShardStream, Stream
from clozeworks.data.read import read_examples
from clozeworks.data.shards import Shards
from clozeworks.interop.huggingface import open_model
from clozeworks.model.encoder import initialise
from clozeworks.model.families import sized
from clozeworks.model.heads import Model, encoder_of
from clozeworks.tasks.base import Draw, Task
from clozeworks.text.load import load_tokenizer
from clozeworks.train.loop import TrainSettings, train
from clozeworks.train.parallel import learner_for
from clozeworks.train.state import Cursor

GEMM = 2048
LOOKED_AT = 10
"""Steps whose batches are looked at to learn the masked share and the attended length."""


@dataclass(frozen=True)
class Timed:
    """What the measured steps did; `tokens` are real ones, there is no padding."""

    seconds: float
    tokens: int
    losses: list[float]
    masked_share: float = 0.0
    mean_attended: float = 0.0


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


def pretraining(shards: Path, length: int, batch: int | None, steps: tuple[int, int]) -> Timed:
    """BERT-mini from chance with the mlm task, as the `pretrain` verb sets it up.

    `batch` is the tokens of a step; None: as many as are shipped.
    """
    settings = PretrainSettings() if batch is None else PretrainSettings(batch=batch)
    corpus = Shards.open(shards)
    tokenizer = load_tokenizer(corpus.tokenizer_folder)
    task = tasks.create("mlm", {}, tokenizer.vocabulary)
    model = task.build(encoder_of(sized("bert", "mini", tokenizer.vocabulary.size)))
    initialise(model, 0.02, settings.seed)
    stream = ShardStream(
        corpus,
        np.arange(len(corpus.documents) - 1),
        task.vocabulary,
        length,
        pairs=task.pairs,
        tokens=settings.batch,
        seed=settings.seed,
    )
    timed = steps_timed(model, task, stream, settings, steps)
    looked_at = [
        task.collate(stream.groups(0, indices), Draw(settings.seed, 0))
        for indices in stream.steps(0)[:LOOKED_AT]
    ]
    return Timed(
        timed.seconds,
        timed.tokens,
        timed.losses,
        masked_share=_masked_share(task, looked_at),
        mean_attended=_mean_attended(looked_at),
    )


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


def _masked_share(task: Task, batches: Iterable[Batch]) -> float:
    """Share of the tokens that are predicted."""
    counts = [(sum(task.counts(batch).values()), batch.num_tokens) for batch in batches]
    return sum(masked for masked, _ in counts) / sum(tokens for _, tokens in counts)


def _mean_attended(batches: Iterable[Batch]) -> float:
    """Tokens a token attends to, on average: its own sequence's."""
    lengths = np.concatenate([np.diff(batch.offsets.numpy()) for batch in batches])
    return float((lengths**2).sum() / lengths.sum())


def gemm_rate() -> float:
    """Operations a second of a bf16 product of 2048 × 2048 matrices: the median of ten."""
    a, b = (torch.randn(GEMM, GEMM).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for _ in range(13):
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - began)
    return 2 * GEMM**3 / statistics.median(seconds[3:])
