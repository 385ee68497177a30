"""The one training loop: it yields an event a step, and knows nothing of folders or screens."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.heap import kept_heap
from clozeworks.core.records import Ints
from clozeworks.data.batches import Batch
from clozeworks.data.order import Stream, Unit, cut
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Draw, Task
from clozeworks.train.ahead import Step, ahead
from clozeworks.train.compare import compare
from clozeworks.train.distributed import ALONE, Team
from clozeworks.train.gauge import Gauge, Reading
from clozeworks.train.optim import Optimizer, Rule
from clozeworks.train.portion import Portion, slices
from clozeworks.train.precision import Precision
from clozeworks.train.schedule import Duration, Schedule, Shape
from clozeworks.train.state import KEPT, Cursor


class TrainSettings(Settings):
    """How a model is trained."""

    free: ClassVar[frozenset[str]] = frozenset(
        {
            "micro_tokens",
            "compile",
            "recompute",
            "parallel",
            "checkpoint_minutes",
            "keep_last",
            "keep_best",
        }
    )

    duration: str = "3 epochs"
    """When to stop: an amount of epochs, steps, tokens or minutes, such as "30 minutes"."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; absent: one that suits the encoder's width."""
    batch: int = Field(default=32, gt=0)
    """Size of an optimizer step, counted in `unit`."""
    unit: Unit = "examples"
    """What `batch` counts: examples, or tokens."""
    micro_tokens: int = Field(default=16_384, gt=0)
    """Most tokens in one forward pass; larger steps are cut and their gradients summed."""
    warmup: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""
    schedule: Shape = "linear"
    """How it goes on: linear or cosine (both down to 0), constant, or wsd (falls at the end)."""
    cooldown: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps, the last ones, over which wsd falls."""
    optimizer: Rule = "adamw"
    """What moves the weights: adamw, or muon for the layers' matrices and adamw for the rest."""
    decay: float = Field(default=0.01, ge=0)
    """Weight decay, on everything but biases and norms (so on embeddings too): times the learning
    rate, it is the share that a step takes off."""
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
    keep_last: int = Field(default=KEPT, ge=1)
    """How many checkpoints are kept."""
    keep_best: str | None = None
    """Keep the best model too, in `best`: by "total" (of held-out losses) or one number's name."""
    compile: bool = False
    """On a GPU, let torch compile most of a layer: some 4 % faster, after some 12 s."""
    recompute: bool = False
    """Keep only each layer's input for the backward pass and run it again: less memory, slower."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: each holds the whole model (ddp), or a part of everything (fsdp)."""

    @property
    def peak(self) -> float:
        """`lr`, once it is known; raises ValueError before."""
        if self.lr is None:
            raise ValueError("no learning rate is named; `train.rates` finds one that suits")
        return self.lr

    @field_validator("duration")
    @classmethod
    def _readable(cls, value: str) -> str:
        Duration.parse(value)
        return value

    @model_validator(mode="after")
    def _room_for_both(self) -> Self:
        if self.schedule == "wsd" and self.warmup + self.cooldown > 1:
            raise ValueError(
                f"warmup {self.warmup} and cooldown {self.cooldown} together are more than 1"
            )
        return self


@dataclass(frozen=True)
class Event:
    """What happened in one optimizer step, over all processes."""

    step: int
    epoch: float
    losses: dict[str, float]
    """Mean of each loss term over what it counts."""
    lr: float
    norm: float
    """Gradient norm before clipping."""
    tokens: int
    ends_epoch: bool
    reading: Reading

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.reading.seconds


class Objective(nn.Module):
    """What is differentiated: the loss of a batch. Its forward is what processes share."""

    def __init__(self, model: Model, task: Task) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(
        self, batch: Batch, divisors: Mapping[str, float], seed: int, pull: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The terms of the loss divided and summed, and each of them without its graph.

        With `pull` [G, H], the loss's gradient by what is compared: the two multiplied and summed,
        whose gradient is the loss's own; and what is compared, as `vectors`, without its graph.
        """
        if pull is not None:
            vectors = self._task.to_compare(self.model, batch)
            return (vectors * pull).sum(), {"vectors": vectors.detach()}
        sums = self._task.loss(self.model, batch, Draw(seed, 0))
        means = {name: total / divisors[name] for name, total in sums.items()}
        weighed = [self._task.weights[name] * mean for name, mean in means.items()]
        return torch.stack(weighed).sum(), {n: m.detach() for n, m in means.items()}


@dataclass
class Learner:
    """A model that learns a task in this process alone; others share the work with more."""

    model: Model
    """The model whose gradients are taken."""
    task: Task
    settings: TrainSettings
    optimizer: Optimizer
    team: Team = ALONE
    objective: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.objective = Objective(self.model, self.task)

    def learn(self, portion: Portion, divisors: Mapping[str, float]) -> Tensor:
        """Leave the step's gradients with the optimizer; return what each mean gains, [terms]."""
        several = len(portion.batches) > 1
        idle = dict.fromkeys(divisors, math.inf)
        pulls: list[Tensor | None] = [None] * len(portion.batches)
        found: list[Tensor] = []
        if self.task.compares and (several or self.team.size > 1):
            means, pulls[:] = self._compared(portion, divisors)
            found.append(torch.stack([means[name] for name in divisors]))
        with self._apart() if several else nullcontext():
            for number, (batch, pull) in enumerate(zip(portion.batches, pulls, strict=True)):
                own = divisors if number < portion.counted else idle
                means = self._pass(number, batch, own, pull)
                if pull is None:
                    found.append(torch.stack([means[name] for name in divisors]))
                if several:
                    self.optimizer.accumulate()
        if several:
            self._join()
        return torch.stack(found).double().sum(0)

    def _compared(
        self, portion: Portion, divisors: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The means of a step's loss, and of every pass the loss's gradient by what it compares.

        So each pass is read twice, first without a graph, and no more is held at a time than one
        pass needs (Gao et al. 2021, as GradCache).
        """
        nothing = torch.zeros((), device=self.model.device)
        with torch.no_grad():
            vectors = [
                self._forward(number, batch, divisors, nothing)[1]["vectors"]
                for number, batch in enumerate(portion.batches)
            ]
        return compare(self.task, self.team, portion, vectors, divisors)

    def _pass(
        self,
        number: int,
        batch: Batch,
        divisors: Mapping[str, float],
        pull: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Forward and backward through one batch."""
        total, found = self._forward(number, batch, divisors, pull)
        total.backward()
        return found

    def _forward(
        self, number: int, batch: Batch, divisors: Mapping[str, float], pull: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Through one batch; its dropout is a function of its place."""
        place = (self.settings.seed, self.optimizer.steps, number, self.team.rank)
        self.model.encoder.noise.reseed(*place)
        batch = batch.to(self.model.device)
        self.optimizer.reach(batch.input_ids)
        made: tuple[Tensor, dict[str, Tensor]] = self.objective(
            batch, divisors, self.settings.seed, pull
        )
        return made

    def _apart(self) -> AbstractContextManager[None]:
        """Inside, gradients of several passes are summed before anyone else learns of them."""
        return nullcontext()

    def _join(self) -> None:
        """Add up the processes' sums."""

    @contextmanager
    def shown(self, exact: bool = False) -> Iterator[Model]:
        """The whole model, to be judged; `exact`: with its fp32 masters, to be written."""
        self.optimizer.settle()
        with self.optimizer.exact() if exact else nullcontext():
            yield self.model

    def release(self) -> None:
        """Training is over: leave the model with its fp32 masters."""
        self.optimizer.release()

    def leave(self) -> None:
        """The run is over, however it ended: nothing of torch's holds on to the processes."""


def train(learner: Learner, stream: Stream, cursor: Cursor) -> Iterator[Event]:
    """Take steps from where the cursor stands to its total, yielding after each.

    The cursor is advanced before the event is yielded, so that it may be saved or left at any
    event. A step is a function of the weights, the seed and the cursor alone.
    """
    with kept_heap():
        yield from _steps(learner, stream, cursor)


def _steps(learner: Learner, stream: Stream, cursor: Cursor) -> Iterator[Event]:
    schedule = schedule_of(learner.settings, cursor.total)
    gauge = Gauge(learner)
    source = ahead(partial(upcoming, learner, stream, replace(cursor)), learner.model.device)
    while cursor.step < cursor.total:
        gauge.begin()
        step = next(source)
        gauge.ready()
        rate = schedule.rate(cursor.step)
        losses, norm = take_step(learner, step.portion, rate)
        cursor.step += 1
        portion, left = step.portion, cursor.total - cursor.step
        reading = gauge.read(portion.batches, portion.tokens, left)
        cursor.epoch, cursor.position = step.epoch, step.position
        cursor.tokens += portion.tokens
        cursor.seconds += reading.seconds
        ends = step.position == step.of
        epoch = step.epoch + step.position / step.of
        yield Event(cursor.step, epoch, losses, rate, norm, portion.tokens, ends, reading)
        if ends:
            cursor.epoch, cursor.position = step.epoch + 1, 0


def upcoming(
    learner: Learner, stream: Stream, cursor: Cursor, first: int = 0, every: int = 1
) -> Iterator[Step]:
    """The steps from where a cursor stands to its total, or every so-maniest; it stays there."""
    here = replace(cursor)
    while here.step < here.total:
        steps = stream.steps(here.epoch)
        while here.position < len(steps) and here.step < here.total:
            if (here.step - cursor.step) % every == first:
                portion = portion_of(learner, stream, here, steps[here.position])
                yield Step(portion, here.epoch, here.position + 1, len(steps))
            here.step, here.position = here.step + 1, here.position + 1
        here.epoch, here.position = here.epoch + 1, 0


def schedule_of(settings: TrainSettings, total: int) -> Schedule:
    """The learning rates of a run of `total` steps."""
    warmup, cooldown = round(settings.warmup * total), max(1, round(settings.cooldown * total))
    return Schedule(settings.peak, total, warmup, settings.schedule, cooldown)


def portion_of(learner: Learner, stream: Stream, cursor: Cursor, indices: Ints) -> Portion:
    """This process's part of a step, cut so that no pass exceeds `micro_tokens` where it can.

    Every process knows the whole step, cuts it alike, and takes its own slice; one with fewer
    passes than another repeats the shortest group of the step, which then counts for nothing.
    """
    epoch, progress = cursor.epoch, cursor.step / cursor.total
    lengths = stream.lengths(epoch)[indices]
    mine, passes = slices(lengths, learner.settings.micro_tokens, learner.team)
    counted = len(mine)
    mine += [np.array([lengths.argmin()])] * (passes - counted)
    draw = Draw(learner.settings.seed, epoch, progress)
    batches = [learner.task.collate(stream.groups(epoch, indices[part]), draw) for part in mine]
    return Portion(batches, counted, int(lengths.sum()))


def take_step(learner: Learner, portion: Portion, rate: float) -> tuple[dict[str, float], float]:
    """One update; returns the mean of each loss term, and the gradient norm."""
    means = learn_from(learner, portion)
    norm = learner.optimizer.step(rate)  # first: a GPU should know of it before anyone waits
    return means(), norm


def learn_from(learner: Learner, portion: Portion) -> Callable[[], dict[str, float]]:
    """Leave a step's gradients with the optimizer; returns what waits for each loss term's mean.

    Every term is divided once by its count over all micro-batches and processes, so cutting a step
    into more of them changes nothing but memory and speed.
    """
    counts: Counter[str] = Counter()
    for number, batch in enumerate(portion.batches):
        counted = number < portion.counted
        counts.update({name: n * counted for name, n in learner.task.counts(batch).items()})
    divisors = {name: n or 1.0 for name, n in learner.team.sums(counts).items()}
    learner.model.train()
    added = learner.learn(portion, divisors)
    return lambda: learner.team.sums(dict(zip(divisors, added.tolist(), strict=True)))


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


def seconds_per_step(learner: Learner, stream: Stream) -> float:
    """Mean seconds of a step once warm, found by trying some at rate 0; leaves no trace.

    The slowest process's clock counts, so that all of them find the same.
    """
    warm, most, wanted, spent, steps = 3, 200, 5.0, 0.0, 0
    trial = Cursor(total=warm + most)
    source = ahead(partial(upcoming, learner, stream, trial), learner.model.device)
    with kept_heap():
        while steps < warm + 5 or (spent < wanted and steps < trial.total):
            began = time.perf_counter()
            take_step(learner, next(source).portion, rate=0.0)
            steps += 1
            seconds = learner.team.largest(time.perf_counter() - began)
            spent += seconds if steps > warm else 0.0
    learner.optimizer.forget()
    return spent / (steps - warm)
