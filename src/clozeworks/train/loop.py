"""The one training loop: it yields an event a step, and knows nothing of folders or screens."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, field_validator

from clozeworks.core.config import Settings
from clozeworks.core.records import Ints
from clozeworks.data.batches import Batch
from clozeworks.data.order import Stream, Unit, cut
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Draw, Task
from clozeworks.train.optim import Optimizer, Rule
from clozeworks.train.precision import Precision
from clozeworks.train.schedule import Duration, linear_rate
from clozeworks.train.state import Cursor

RANK = 0
"""This process's number among those that train together."""


class TrainSettings(Settings):
    """How a model is trained."""

    duration: str = "3 epochs"
    """When to stop: an amount of epochs, steps, tokens or minutes, such as "30 minutes"."""
    lr: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""
    batch: int = Field(default=32, gt=0)
    """Size of an optimizer step, counted in `unit`."""
    unit: Unit = "examples"
    """What `batch` counts: examples, or tokens."""
    micro_tokens: int = Field(default=16_384, gt=0)
    """Most tokens in one forward pass; larger steps are cut and their gradients summed."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises; it then falls linearly to 0."""
    optimizer: Rule = "adamw"
    """What moves the weights: adamw, or muon for the layers' matrices and adamw for the rest."""
    decay: float = Field(default=0.01, ge=0)
    """Weight decay, on everything but biases and norms."""
    beta2: float = Field(default=0.999, gt=0, lt=1)
    """Memory of AdamW's second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of AdamW's second moment: gradients far below it move nothing."""
    clip: float = Field(default=1.0, ge=0)
    """Largest gradient norm; 0 never clips."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of hidden values and attention while training; absent: what the model says."""
    precision: Precision = "auto"
    """Number format: bf16 where the machine multiplies it natively, else fp32."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Everything random is a function of it."""
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    """Minutes between two checkpoints."""

    @field_validator("duration")
    @classmethod
    def _readable(cls, value: str) -> str:
        Duration.parse(value)
        return value


@dataclass(frozen=True)
class Event:
    """What happened in one optimizer step."""

    step: int
    epoch: float
    losses: dict[str, float]
    """Mean of each loss term over what it counts."""
    lr: float
    norm: float
    """Gradient norm before clipping."""
    tokens: int
    seconds: float
    ends_epoch: bool


def train(
    model: Model,
    task: Task,
    stream: Stream,
    settings: TrainSettings,
    state: tuple[Optimizer, Cursor],
) -> Iterator[Event]:
    """Take steps from where the cursor stands to its total, yielding after each.

    The cursor is advanced before the event is yielded, so that it may be saved or left at any
    event. A step is a function of the weights, the seed and the cursor alone.
    """
    optimizer, cursor = state
    warmup = round(settings.warmup * cursor.total)
    while cursor.step < cursor.total:
        steps = stream.steps(cursor.epoch)
        while cursor.position < len(steps) and cursor.step < cursor.total:
            began = time.perf_counter()
            rate = linear_rate(settings.lr, cursor.step, cursor.total, warmup)
            batches = prepare(task, stream, settings, cursor, steps[cursor.position])
            losses, norm = take_step(model, task, batches, settings, optimizer, rate)
            tokens = sum(batch.num_tokens for batch in batches)
            seconds = time.perf_counter() - began
            cursor.step += 1
            cursor.position += 1
            cursor.tokens += tokens
            cursor.seconds += seconds
            ends = cursor.position == len(steps)
            epoch = cursor.epoch + cursor.position / len(steps)
            yield Event(cursor.step, epoch, losses, rate, norm, tokens, seconds, ends)
        if cursor.position == len(steps):
            cursor.epoch, cursor.position = cursor.epoch + 1, 0


def prepare(
    task: Task, stream: Stream, settings: TrainSettings, cursor: Cursor, indices: Ints
) -> list[Batch]:
    """The micro-batches of one step, cut so that none exceeds `micro_tokens` where it can."""
    groups = stream.groups(cursor.epoch, indices)
    lengths = np.array([sum(map(len, group.sequences)) for group in groups])
    parts = cut(np.arange(len(groups)), lengths, settings.micro_tokens, "tokens")
    draw = Draw(settings.seed, cursor.epoch, cursor.step / cursor.total)
    return [task.collate([groups[i] for i in part], draw) for part in parts]


def take_step(
    model: Model,
    task: Task,
    batches: list[Batch],
    settings: TrainSettings,
    optimizer: Optimizer,
    rate: float,
) -> tuple[dict[str, float], float]:
    """One update; returns the mean of each loss term, and the gradient norm.

    Every term is divided once by its count over all micro-batches, so cutting a step into more of
    them changes nothing but memory.
    """
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(task.counts(batch))
    model.train()
    sums = dict.fromkeys(counts, 0.0)
    for number, batch in enumerate(batches):
        model.encoder.noise.reseed(settings.seed, optimizer.steps, number, RANK)
        batch = batch.to(model.device)
        optimizer.reach(batch.input_ids)
        terms = task.loss(model, batch, Draw(settings.seed, 0))
        means = [terms[name] / max(1.0, counts[name]) for name in terms]
        weighed = [task.weights.get(name, 1.0) * m for name, m in zip(terms, means, strict=True)]
        torch.stack(weighed).sum().backward()
        for name, mean in zip(terms, means, strict=True):
            sums[name] += float(mean.detach())
        if len(batches) > 1:
            optimizer.accumulate()
    return sums, optimizer.step(rate)


def held_out_losses(
    model: Model, task: Task, stream: Stream, micro_tokens: int
) -> dict[str, float]:
    """Mean of each loss term over one epoch of held-out data, its masks fixed for ever.

    Beside them, as `mlm_accuracy`, the share of right answers where a task counts them. A term with
    nothing to count is left out.
    """
    was_training = model.training
    model.eval()
    sums: Counter[str] = Counter()
    right: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    order = np.argsort(stream.lengths(0), kind="stable")
    with torch.no_grad():
        for part in cut(order, stream.lengths(0), micro_tokens, "tokens"):
            batch = task.collate(stream.groups(0, part), Draw(0, 0))
            counts.update(task.counts(batch))
            judged = task.judge(model, batch.to(model.device))
            sums.update({name: float(value) for name, value in judged.losses.items()})
            right.update({name: float(value) for name, value in judged.right.items()})
    model.train(was_training)
    found = {name: sums[name] / n for name, n in counts.items() if n}
    return found | {
        f"{name}_accuracy": right[name] / counts[name] for name in found if name in right
    }


def seconds_per_step(
    model: Model, task: Task, stream: Stream, settings: TrainSettings, optimizer: Optimizer
) -> float:
    """Mean seconds of a step once warm, found by trying some at rate 0; leaves no trace."""
    warm, wanted, spent, steps = 3, 5.0, 0.0, 0
    order = stream.steps(0)
    while steps < warm + 5 or (spent < wanted and steps < warm + 200):
        began = time.perf_counter()
        batches = prepare(task, stream, settings, Cursor(total=1), order[steps % len(order)])
        take_step(model, task, batches, settings, optimizer, rate=0.0)
        steps += 1
        spent += (time.perf_counter() - began) if steps > warm else 0.0
    optimizer.forget()
    return spent / (steps - warm)
