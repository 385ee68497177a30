"""A whole training run in its folder: resume, steps, checkpoints, metrics, a clean stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from clozeworks.core.log import Meter, clock, say
from clozeworks.core.run import Run, alone_in
from clozeworks.data.order import Stream
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Task
from clozeworks.train.best import improves, merit
from clozeworks.train.distributed import ALONE, Team
from clozeworks.train.loop import Event, Learner, TrainSettings, seconds_per_step, train
from clozeworks.train.optim import Diverged
from clozeworks.train.parallel import learner_for
from clozeworks.train.precision import Precision, settled
from clozeworks.train.schedule import Duration, count_steps
from clozeworks.train.state import Cursor, latest_cursor, load_latest, save, sweep
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
    """Looks at the model now and then; in the first process alone."""
    saw: Callable[[Event], None] = lambda event: None
    """Told of every step, before it is judged; likewise."""
    write: Callable[[Model, Path], None] = lambda model, folder: None
    """Writes the model of the best judgement, or what is left of a diverged run; likewise."""
    team: Team = ALONE

    def __call__(self) -> Fitted:
        """Train to the end of the run; afterwards the model's weights are the fp32 masters.

        A run that stopped goes on from its last checkpoint, bit for bit as if it had not. Raises
        Interrupted after Ctrl-C or SIGTERM, the step finished and saved, or Diverged.
        """
        with ExitStack() as stack:
            self.team.first(lambda: stack.enter_context(alone_in(self.run.path)))
            precision = self.team.first(self._precision)
            settings = self.settings.model_copy(update={"precision": precision})
            learner = learner_for(self.model, self.task, settings, self.team)
            stack.callback(learner.leave)
            cursor = self._begin(learner)
            place = Track(self.run.path, cursor.step)
            track = stack.enter_context(place) if self.team.leads else None
            stopping = stack.enter_context(_stop_signals())
            try:
                judged = self._steps((learner, cursor), track, stopping) or self._judge(learner)
            except Diverged as error:
                raise self._rescued(learner, error) from error
        learner.release()
        return Fitted(cursor, judged)

    def _precision(self) -> Precision:
        """The number format of the run: "auto" is decided when it begins, and then stays."""
        wanted = self.settings.precision
        here = settled(wanted, self.model.device)
        cursor = latest_cursor(self.run.checkpoints)
        if wanted != "auto" or cursor is None or cursor.precision in (None, here):
            return here
        say(
            f"{self.run.path} computes in {cursor.precision}, as it began, although {here} is what "
            "this machine is good at"
        )
        return cursor.precision

    def _begin(self, learner: Learner) -> Cursor:
        """The cursor of the last checkpoint, or of a fresh run, its length decided and saved."""
        self.team.first(lambda: sweep(self.run.checkpoints))
        cursor = load_latest(self.run.checkpoints, learner.optimizer)
        done = 0 if cursor is None else cursor.step
        self.team.first(lambda: self.run.forget_after(done))
        precision = learner.settings.precision
        if cursor is not None:
            cursor.precision = precision
            if cursor.step >= cursor.total:
                say(f"{self.run.path} is finished: all {cursor.total:,} steps are done")
                return cursor
            say(f"continuing {self.run.path} at step {cursor.step:,} of {cursor.total:,}")
            return cursor
        duration, seconds = Duration.parse(self.settings.duration), None
        if duration.unit == "minutes":
            seconds = seconds_per_step(learner, self.stream)
        total = count_steps(duration, self.stream, seconds)
        cursor = Cursor(total, precision=precision)
        if seconds is not None:
            say(f"{self.settings.duration} at {seconds:.3f} s a step: {cursor.total:,} steps")
        self._save(learner, cursor)
        return cursor

    def _steps(
        self, state: tuple[Learner, Cursor], track: Track | None, stopping: threading.Event
    ) -> Mapping[str, float]:
        learner, cursor = state
        judged: Mapping[str, float] = {}
        every = max(1, cursor.total // JUDGEMENTS)
        saved = time.monotonic()
        with Meter("training", cursor.total, "steps") as meter:
            meter.skip(cursor.step)
            for event in train(learner, self.stream, cursor):
                last = event.step == cursor.total
                meter.advance(1, summary(event, judged))
                if track is not None:
                    track.step(event)
                    self.saw(event)
                if event.step % every == 0 or last:
                    judged = self._judge(learner)
                    self._keep_best(state, judged)
                    meter.note = summary(event, judged)
                    if track is not None:
                        track.judgement(event.step, judged)
                overdue = time.monotonic() - saved > self.settings.checkpoint_minutes * 60
                due, stop = self.team.any(overdue and self.team.leads, stopping.is_set())
                if due or stop or last:
                    if track is not None:
                        track.flush()
                    self._save(learner, cursor)
                    saved = time.monotonic()
                if stop and not last:
                    raise Interrupted(
                        f"stopped after step {event.step:,} of {cursor.total:,}; everything is "
                        f"saved in {self.run.path}: give the same command again to continue"
                    )
        return judged

    def _judge(self, learner: Learner) -> dict[str, float]:
        with learner.shown() as model:
            return self.team.first(lambda: dict(self.judge(model)))

    def _keep_best(self, state: tuple[Learner, Cursor], judged: Mapping[str, float]) -> None:
        """Write the model if it is wished and the judgement is the best so far."""
        learner, cursor = state
        by = self.settings.keep_best
        found = None if by is None else merit(judged, self.task.weights, by)
        if found is None:
            return
        value, less = found
        if improves(value, cursor.best if cursor.best_by == by else None, less):
            cursor.best, cursor.best_by, cursor.best_step = value, by, cursor.step
            with learner.shown(exact=True) as model:
                self.team.first(lambda: self.write(model, self.run.best))

    def _rescued(self, learner: Learner, error: Diverged) -> Diverged:
        """Write the model of the last checkpoint; the error says that it is there."""
        cursor = load_latest(self.run.checkpoints, learner.optimizer)
        if cursor is None or cursor.step == 0:
            return error
        with learner.shown(exact=True) as model:
            self.team.first(lambda: self.write(model, self.run.rescued))
        return Diverged(
            f"{error}; the model as it was after step {cursor.step:,} is in {self.run.rescued}: "
            "--model takes it up"
        )

    def _save(self, learner: Learner, cursor: Cursor) -> None:
        state = learner.optimizer.state()
        folder, keep = self.run.checkpoints, self.settings.keep_last
        self.team.first(lambda: save(folder, cursor, state, keep))


def summary(event: Event, judged: Mapping[str, float]) -> str:
    """A step in a line: losses, speed and what it is worth, memory, the last judgement."""
    reading = event.reading
    losses = ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
    held = ", ".join(f"{name} {value:.3f}" for name, value in judged.items())
    rate = f"{event.tokens / event.seconds:,.0f} tokens/s"
    rate += "" if reading.peak_share is None else f" ({reading.peak_share:.0%} of peak)"
    parts = [losses, rate, f"{reading.padding:.0%} padding", f"{reading.waiting:.0%} waiting"]
    parts += [f"norm {event.norm:.2f}", f"{reading.memory_mb:,.0f} MB"]
    return ", ".join(parts) + (f" (held out: {held})" if held else "")


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
