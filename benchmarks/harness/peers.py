"""Hugging Face as it comes, timed inside its own Trainer: what every contender is held against."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging


class StepClock(TrainerCallback):
    """When each step ended, and what its loss was."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def trainer_run(
    model: nn.Module,
    rows: Sequence[dict[str, Any]],
    collator: Any,
    steps: tuple[int, int],
    arguments: dict[str, Any],
) -> dict[str, float]:
    """Train for (warm-up, measured) steps; the seconds of the measured ones, and the losses.

    Everything is the Trainer's default, unless `arguments` says otherwise; nothing is evaluated or
    saved.
    """
    logging.set_verbosity_error()
    warm, measured = steps
    clock = StepClock()
    with tempfile.TemporaryDirectory() as place:
        settings = TrainingArguments(
            output_dir=place,
            max_steps=warm + measured,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
            use_cpu=True,
            **arguments,
        )
        Trainer(model, settings, collator, train_dataset=rows, callbacks=[clock]).train()
    return {
        "seconds": clock.ends[-1] - clock.ends[warm - 1],
        "first_loss": clock.losses[0],
        "last_loss": clock.losses[-1],
    }
