"""Trials judged over their seeds: each result a line of a ledger, and the table of them all."""

import time
from collections.abc import Collection, Mapping
from statistics import mean
from typing import Any

from beside import WHATEVER_THE_MODEL, Contest, fine_tuned
from corpora import Numbers
from ledger import Ledger, Row, spread, weights_of
from trials import Trial

OURS = "ours"


def judged(
    ledger: Ledger,
    named: tuple[str, Trial],
    contest: Contest,
    only: list[int] | None,
    without: Collection[str] = (),
) -> None:
    """Every seed of ours, then of what stands beside it; what is known already is left alone.

    `only`: these of the seeds; `without`: not these contenders. Results of another model,
    or of other settings, are other results.
    """
    name, trial = named
    for contender, measure, seeds in (
        (OURS, ours, trial.seeds),
        *((beside.__name__, beside, once) for beside, once in trial.beside.items()),
    ):
        for seed in seeds:
            key = {"contender": contender, "seed": seed, **identity(name, contest, contender)}
            left_out = contender in without or (only and seed not in only)
            if left_out or ledger.find(**key) is not None:
                continue
            print(f"{name}: {contender}, seed {seed}", flush=True)
            began = time.monotonic()
            numbers = measure(contest, seed)
            minutes = (time.monotonic() - began) / 60
            ledger.add({**key, "numbers": numbers, "minutes": minutes})


def identity(name: str, contest: Contest, contender: str) -> Row:
    """The part of a row's key that says what was tried; what stands beside may differ in it."""
    model = None if contender in WHATEVER_THE_MODEL else weights_of(contest.model)
    told = {"settings": dict(contest.settings), "train": dict(contest.train)}
    told |= {"start": dict(contest.start)} if contest.start else {}
    return {"trial": name, "model": model, **told}


def ours(contest: Contest, seed: int) -> Numbers:
    """As the trial says."""
    return fine_tuned(contest, {**contest.train, "seed": seed}, {}, {})


def summarise(ledger: Ledger, tried: Mapping[str, tuple[Trial, Contest]]) -> None:
    """The table, and one line at the end: each trial's number."""
    parts = []
    for name, (trial, contest) in tried.items():
        found: dict[str, list[Numbers]] = {}
        for contender in (OURS, *(beside.__name__ for beside in trial.beside)):
            rows = ledger.rows(contender=contender, **identity(name, contest, contender))
            if rows:
                found[contender] = [row["numbers"] for row in rows]
        for contender, numbers in found.items():
            told = [shown(number, numbers, trial.scale) for number in trial.shown]
            print(f"{name:<12} {contender:<14} " + "  ".join(filter(None, told)))
        if OURS in found:
            values = [trial.scale * numbers[trial.number] for numbers in found[OURS]]
            parts.append(f"{name.replace('-', '_')}={mean(values):.2f}")
    print(f"{ledger.name}: " + " ".join(parts))


def shown(number: str, found: list[Numbers], scale: float) -> str:
    """A number's mean and spread over seeds; nothing where a contender does not have it."""
    values: list[Any] = [numbers[number] for numbers in found if numbers.get(number) is not None]
    if not values:
        return ""
    values = [scale * value for value in values]
    told = f"{number} {mean(values):.2f}"
    return f"{told} ± {spread(values):.2f} ({len(values)})" if len(values) > 1 else f"{told} (1)"
