"""What a pretraining run is watched with: held-out losses, a probe, and a diagnosis in words."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clozeworks.core.bundle import read_json
from clozeworks.core.files import write_file
from clozeworks.core.log import say
from clozeworks.core.run import Run
from clozeworks.evaluation.probe import ACCURACIES, Probe, ProbeSettings
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Task
from clozeworks.train.best import TOTAL
from clozeworks.train.diagnosis import SIZE, Facts, History, diagnose, diverged
from clozeworks.train.loop import Event
from clozeworks.train.state import latest_cursor

DIAGNOSIS = "diagnosis.json"
PROBE = "probe.json"
BEFORE = "before.json"
REMEDY = "remove it to have it made again"

Losses = Callable[[Model], Mapping[str, float]]


@dataclass
class Watch:
    """Eyes on one run. Nothing it does leaves a trace in the model or in what is drawn at random.

    losses: for each held-out text a function that judges a model on it, by the text's name; the
    run's own is called "".
    """

    run: Run
    losses: Mapping[str, Losses]
    facts: Facts
    """`total` is found out with the first step."""
    probe: Probe | None = None
    settings: ProbeSettings = field(default_factory=ProbeSettings)
    history: History = field(default_factory=History)
    """Empty at first; it knows the weights of the terms."""
    _step: int | None = None
    _probed: int = 0
    """The last step at which a judgement was made: probes due before it are done."""
    _said: dict[str, dict[str, Any]] = field(default_factory=dict)

    def before(self, model: Model, dtype: torch.dtype) -> dict[str, float]:
        """The judgement of the model as it was loaded, made once in a run and kept there."""
        path = self.run.path / BEFORE
        if not path.exists():
            loaded = copy.deepcopy(model).to(dtype)  # in the numbers it will be trained in
            judged = self._losses(loaded)
            with write_file(path) as stream:
                json.dump(judged, stream, indent=2)
            say(f"before the first step: {shown(judged)}")
        return {name: float(value) for name, value in read_json(path, REMEDY).items()}

    def saw(self, event: Event) -> None:
        """Take in one step; it may be judged next."""
        if self._step is None:
            self._take_up(event)
        self._step = event.step
        self.history.step(event.step, event.losses, event.norm, event.tokens)

    def judge(self, model: Model) -> Mapping[str, float]:
        """Losses on every held-out text, the probe where it is due; says what is amiss."""
        if self._step is None:  # the run was finished before
            lines = _lines(self.run.path / "metrics.jsonl")
            told = [line["held_out"] for line in lines if "held_out" in line]
            return told[-1] if told else self._losses(model)
        judged = self._losses(model)
        if self._due(self._step):
            judged |= self._probe(model)
        self._probed = self._step
        self.history.judge(self._step, {**judged, SIZE: model.matrices_rms()})
        self._diagnose(self._step)
        return judged

    def conclude(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """Say what training did to each held-out text, and leave a diagnosis in the folder."""
        for name in self.losses:
            now, then = _of(after, name), _of(before, name)
            changes = [
                f"{term} {then[term]:.4f} → {now[term]:.4f} ({now[term] - then[term]:+.4f})"
                for term in now
                if term in then
            ]
            if changes:
                say(f"{name or 'this text'}: " + ", ".join(changes))
        if not (self.run.path / DIAGNOSIS).exists():
            self._write_diagnosis()

    def _losses(self, model: Model) -> dict[str, float]:
        return {
            f"{name}/{term}" if name else term: value
            for name, losses in self.losses.items()
            for term, value in losses(model).items()
        }

    def _take_up(self, event: Event) -> None:
        """Read what an earlier sitting left: its steps, its judgements, what it said."""
        cursor = latest_cursor(self.run.checkpoints)
        self.facts = self.facts._replace(total=cursor.total if cursor else event.step)
        for line in _lines(self.run.path / "metrics.jsonl"):
            if line["step"] >= event.step:
                continue
            if "held_out" in line:
                self.history.judge(line["step"], line["held_out"])
                self._probed = line["step"]
            else:
                losses = {name: line[name] for name in event.losses if name in line}
                self.history.step(line["step"], losses, line["norm"], line["tokens"])
        said = self.run.path / DIAGNOSIS
        found = read_json(said, REMEDY)["found"] if said.exists() else []
        self._said = {one["name"]: one for one in found if one["step"] < event.step}

    def gave_up(self, why: str) -> None:
        """Leave a diagnosis of a run that diverged: what was amiss before, and the end of it."""
        if self._step is None:  # nothing was learned in this sitting: an earlier one has told
            return
        self._diagnose(self._step)
        sentences = diverged(why, self.facts)
        self._said["diverged"] = {"name": "diverged", "step": self._step, "said": sentences}
        self._write_diagnosis()

    # === The probe ===

    def _due(self, step: int) -> bool:
        """Whether a probe was to be made since the last judgement."""
        total, times = self.facts.total, self.settings.times
        wanted = self.settings.steps or [-(-total * i // times) for i in range(1, times + 1)]
        return any(self._probed < at <= step for at in wanted)

    def _probe(self, model: Model) -> dict[str, float]:
        if self.probe is None:
            return {}
        settled = self._settled(model, self.probe)
        found = settled.accuracies(model)
        once = not any("probe_accuracy" in judged.numbers for judged in self.history.judged)
        return found | ({"probe_majority": settled.majority} if once else {})

    def _settled(self, model: Model, probe: Probe) -> Probe:
        """The rows that every probe of this run takes, chosen with the first one."""
        path = self.run.path / PROBE
        if path.exists():
            return probe.first(int(read_json(path, REMEDY)["rows"]))
        settled = probe.within(model, self.settings.seconds)
        rows, majority = len(settled.classes), settled.majority
        with write_file(path) as stream:
            json.dump({"rows": rows, "of": len(probe.classes), "majority": majority}, stream)
        say(
            f"probe: {rows:,} of {len(probe.classes):,} rows, {len(settled.judged):,} of them "
            f"judged; answering the most frequent class is right {majority:.1%} of the time"
        )
        return settled

    # === The diagnosis ===

    def _diagnose(self, step: int) -> None:
        """Say what is amiss and was not yet said."""
        found = diagnose(self.history, self.facts)
        new = {name: found[name] for name in found if name not in self._said}
        for name, sentences in new.items():
            say(f"diagnosis: {sentences}")
            self._said[name] = {"name": name, "step": step, "said": sentences}
        if new:
            self._write_diagnosis()

    def _write_diagnosis(self) -> None:
        with write_file(self.run.path / DIAGNOSIS) as stream:
            json.dump({"found": list(self._said.values())}, stream, indent=2, ensure_ascii=False)
            stream.write("\n")


def names_of(task: Task, texts: Iterable[str], probed: bool) -> list[str]:
    """What the numbers of a run's judgements are called, "total" among them."""
    own = [*task.weights, *(f"{part.name}_accuracy" for part in task.parts)]
    named = [f"{text}/{name}" if text else name for text in texts for name in own]
    return [TOTAL, *named, *(ACCURACIES if probed else ())]


def shown(numbers: Mapping[str, float]) -> str:
    """Numbers by name, in a line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())


def _of(numbers: Mapping[str, float], name: str) -> dict[str, float]:
    """The numbers of one held-out text, without its name."""
    if not name:
        return {n: v for n, v in numbers.items() if "/" not in n}
    return {n.split("/", 1)[1]: v for n, v in numbers.items() if n.startswith(f"{name}/")}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file of metrics."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                found = json.loads(line)
            except ValueError:  # being written
                continue
            if isinstance(found, dict) and "step" in found:
                yield found
