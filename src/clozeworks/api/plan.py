"""Propose the sizes of a pretraining run, from a short measurement on this machine."""

from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field

from clozeworks.api.pretrain import Material, PretrainRecipe, check
from clozeworks.core.config import Settings, read_toml, validated
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_file
from clozeworks.core.log import say
from clozeworks.data.order import ShardStream
from clozeworks.train.parallel import learner_for
from clozeworks.train.plan import SIZES, Choice, Trial, chosen, trials
from clozeworks.train.rates import pretraining_rate


class PlanRecipe(Settings):
    """What the `plan` verb needs."""

    run: Path
    """Recipe of a pretraining, a TOML file."""
    minutes: float = Field(default=60.0, gt=0)
    """How long the run may take."""
    out: Path | None = None
    """File for the recipe with what is proposed; absent: it is only told."""


class Planned(Settings):
    """What the `plan` verb found."""

    micro_tokens: int
    batch: int
    passes: int
    """Passes a step: its gradients are summed over so many."""
    lr: float
    steps: int
    tokens: int
    """About how many tokens the run will read."""
    tokens_per_second: float
    memory_mb: float
    """Most memory that trying took; the run takes no more."""


def plan(recipe: PlanRecipe) -> Planned:
    """Take some steps of a run in several sizes, and propose the sizes that suit its minutes.

    Nothing of the run itself is begun. Raises UserError where `pretrain` would.
    """
    values = read_toml(recipe.run)
    wanted = validated(PretrainRecipe, values, str(recipe.run))
    if recipe.out is not None and recipe.out.exists():
        raise UserError(f"{recipe.out} already exists; choose another --out, or remove it")
    has = Material.of(wanted)
    check(wanted, has, has.texts(wanted))
    tried = _tried(wanted, has)
    choice = chosen(tried, recipe.minutes)
    lr = pretraining_rate(has.model.config.hidden_size, wanted.train.optimizer == "muon")
    made = _planned(tried, choice, lr, recipe.minutes)
    say(
        f"{recipe.minutes:g} minutes: {made.steps:,} steps of {made.batch:,} tokens in passes of "
        f"{made.micro_tokens:,} ({made.passes} a step), lr {made.lr:g}; about {made.tokens:,} "
        f"tokens, {made.tokens_per_second:,.0f} a second"
    )
    if recipe.out is not None:
        with write_file(recipe.out) as stream:
            stream.write(tomli_w.dumps(_completed(values, made, recipe.minutes)))
        say(f"recipe → {recipe.out}; to begin: clozeworks pretrain --recipe {recipe.out}")
    return made


def _tried(recipe: PretrainRecipe, has: Material) -> list[Trial]:
    """Every size that was tried, told as it is done."""
    whole = recipe.train.model_copy(update={"micro_tokens": SIZES[-1]})
    learner = learner_for(has.model, has.task, whole)

    def stream(size: int) -> ShardStream:
        train = recipe.train.model_copy(update={"batch": size, "unit": "tokens"})
        return has.stream(recipe.model_copy(update={"train": train}))

    tried = []
    for trial in trials(learner, stream):
        memory = f", {trial.memory_mb:,.0f} MB" if trial.memory_mb else ""
        say(
            f"passes of {trial.micro_tokens:,} tokens: {trial.tokens_per_second:,.0f} tokens/s, "
            f"and {1000 * trial.update_seconds:.0f} ms a step to move the weights{memory}"
        )
        tried.append(trial)
    if not tried:
        raise UserError(
            f"not even a pass of {SIZES[0]:,} tokens fits into memory; choose a smaller --size, or "
            "train.recompute = true"
        )
    return tried


def _planned(tried: list[Trial], choice: Choice, lr: float, minutes: float) -> Planned:
    memory = max(t.memory_mb for t in tried if t.micro_tokens <= max(choice.micro_tokens, SIZES[0]))
    return Planned(
        micro_tokens=choice.micro_tokens,
        batch=choice.batch,
        passes=-(-choice.batch // choice.micro_tokens),
        lr=lr,
        steps=choice.steps,
        tokens=choice.tokens,
        tokens_per_second=choice.tokens / (60 * minutes),
        memory_mb=memory,
    )


def _completed(values: dict[str, Any], made: Planned, minutes: float) -> dict[str, Any]:
    """The recipe as it was written, with what is proposed."""
    sizes = {"micro_tokens": made.micro_tokens, "batch": made.batch, "unit": "tokens"}
    train = {**values.get("train", {}), "duration": f"{minutes:g} minutes", **sizes, "lr": made.lr}
    return {**values, "planned_tokens": made.tokens, "train": train}
