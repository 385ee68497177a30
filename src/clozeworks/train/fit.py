"""A whole training run in its folder: resume, steps, checkpoints, metrics, a clean stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from clozeworks.core.log import Meter, clock, say
from clozeworks.core.run import Run
from clozeworks.data.order import Stream
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Task
from clozeworks.train.loop import Event, TrainSettings, seconds_per_step, train
from clozeworks.train.optim import Optimizer
from clozeworks.train.precision import pick_dtype
from clozeworks.train.schedule import Duration, count_steps
from clozeworks.train.state import Cursor, load_latest, save
from clozeworks.train.track import Track

JUDGEMENTS = 10
"""How often a run is judged on held-out data."""

Judge = Callable[[Model], Mapping[str, float]]


class Interrupted(KeyboardInterrupt):
    """The person asked to stop, and everything is saved; the message says how to go on."""


@dataclass(frozen=True)
class Fitted:
    """What a finished run has to say: where it got to, and its last judgement."""

    cursor: Cursor
    judged: Mapping[str, float]


@dataclass(frozen=True)
class Fit:
    """One run: a model, what it learns from, and where its traces go."""

    model: Model
    task: Task
    stream: Stream
    settings: TrainSettings
    run: Run
    judge: Judge = lambda model: {}
    saw: Callable[[Event], None] = lambda event: None
    """Told of every step, before it is judged."""

    def __call__(self) -> Fitted:
        """Train to the end of the run; afterwards the model's weights are the fp32 masters.

        A run that stopped goes on from its last checkpoint, bit for bit as if it had not. Raises
        Interrupted after Ctrl-C or SIGTERM, the step finished and saved.
        """
        optimizer = optimizer_for(self.model, self.settings)
        with self.run.alone():
            cursor = self._begin(optimizer)
            with Track(self.run.path) as track, _stop_signals() as stopping:
                judged = self._steps((optimizer, cursor), track, stopping) or self.judge(self.model)
        optimizer.release()
        return Fitted(cursor, judged)

    def _begin(self, optimizer: Optimizer) -> Cursor:
        """The cursor of the last checkpoint, or of a fresh run, its length decided and saved."""
        cursor = load_latest(self.run.checkpoints, optimizer)
        if cursor is not None:
            self.run.forget_after(cursor.step)
            if cursor.step >= cursor.total:
                say(f"{self.run.path} is finished: all {cursor.total:,} steps are done")
                return cursor
            say(f"continuing {self.run.path} at step {cursor.step:,} of {cursor.total:,}")
            return cursor
        self.run.forget_after(0)
        duration, seconds = Duration.parse(self.settings.duration), None
        if duration.unit == "minutes":
            seconds = seconds_per_step(self.model, self.task, self.stream, self.settings, optimizer)
        cursor = Cursor(total=count_steps(duration, self.stream, seconds))
        if seconds is not None:
            say(f"{self.settings.duration} at {seconds:.3f} s a step: {cursor.total:,} steps")
        save(self.run.checkpoints, cursor, optimizer)
        return cursor

    def _steps(
        self, state: tuple[Optimizer, Cursor], track: Track, stopping: threading.Event
    ) -> Mapping[str, float]:
        optimizer, cursor = state
        judged: Mapping[str, float] = {}
        every = max(1, cursor.total // JUDGEMENTS)
        saved = time.monotonic()
        with Meter("training", cursor.total, "steps") as meter:
            meter.skip(cursor.step)
            for event in train(self.model, self.task, self.stream, self.settings, state):
                track.step(event)
                self.saw(event)
                meter.advance(1, _summary(event, judged))
                if event.step % every == 0 or event.step == cursor.total:
                    optimizer.settle()
                    judged = self.judge(self.model)
                    meter.note = _summary(event, judged)
                    track.judgement(event.step, judged)
                due = time.monotonic() - saved > self.settings.checkpoint_minutes * 60
                if due or stopping.is_set() or event.step == cursor.total:
                    track.flush()
                    save(self.run.checkpoints, cursor, optimizer)
                    saved = time.monotonic()
                if stopping.is_set() and event.step < cursor.total:
                    raise Interrupted(
                        f"stopped after step {event.step:,} of {cursor.total:,}; everything is "
                        f"saved in {self.run.path}: give the same command again to continue"
                    )
        return judged


def optimizer_for(model: Model, settings: TrainSettings) -> Optimizer:
    """Make a model ready to be trained: its dropout set, its weights in the chosen precision."""
    if settings.dropout is not None:
        model.set_dropout(settings.dropout)
    embeddings = model.encoder.embeddings
    embeddings.sparse = not model.tied
    return Optimizer(
        model,
        pick_dtype(settings.precision, model.device),
        decay=settings.decay,
        betas=(0.9, settings.beta2),
        eps=settings.eps,
        clip=settings.clip,
        hidden=model.hidden_matrices() if settings.optimizer == "muon" else None,
        sparse=embeddings.tokens.weight if embeddings.sparse else None,
    )


def _summary(event: Event, judged: Mapping[str, float]) -> str:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
    held = ", ".join(f"{name} {value:.3f}" for name, value in judged.items())
    rate = f"{event.tokens / event.seconds:,.0f} tokens/s"
    return f"{losses}, {rate}" + (f" (held out: {held})" if held else "")


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second one acts as it always does."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread may listen to signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        flag.set()
        say("finishing this step, then saving; once more to stop at once")
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def took(cursor: Cursor) -> str:
    """What a finished run cost, in words."""
    rate = cursor.tokens / max(cursor.seconds, 1e-9)
    return (
        f"{cursor.step:,} steps, {cursor.tokens:,} tokens, {clock(cursor.seconds)} ({rate:,.0f}/s)"
    )
