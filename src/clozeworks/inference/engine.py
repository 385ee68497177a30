"""The Engine: Examples in, Predictions out, in order, in bounded memory; the one way to predict."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from clozeworks.core.bundle import Bundle, open_bundle
from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose, suggestion
from clozeworks.core.records import Prediction, Sequence
from clozeworks.data.batches import Group, pack
from clozeworks.data.order import cut
from clozeworks.data.read import check_characters
from clozeworks.interop import pair
from clozeworks.interop.huggingface import (
    PROBLEM_TYPES,
    check_match,
    family_of,
    heads_of,
    labels_of,
    open_model,
)
from clozeworks.interop.sentences import TASK as SENTENCES
from clozeworks.interop.sentences import is_sentence_folder, said_of
from clozeworks.model.heads import Model
from clozeworks.tasks import TASKS, create
from clozeworks.tasks.base import Part, Task
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tags import types_of
from clozeworks.text.tokenizer import Tokenizer

WINDOW = 8192
"""Sequences held at a time, about: enough for batches of like lengths, little for any memory."""
BATCH_TOKENS = 4096
"""Tokens of a batch."""


class BadExample(UserError):
    """One of the Examples cannot be read: which, counted from 1, and why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"example {number:,}: {why}")
        self.number, self.why = number, why


class Engine:
    """A model, its task and its tokenizer, ready to answer.

    `truncated` counts the tokens that did not fit into the window so far, `cut_examples` the
    Examples they were of.
    """

    def __init__(self, model: Model, task: Task, tokenizer: Tokenizer) -> None:
        self.model, self.task, self.tokenizer = model, task, tokenizer
        for part in task.parts:
            part.positions = model.config.max_positions
        self.truncated = 0
        self.cut_examples = 0

    @classmethod
    def open(
        cls,
        path: str | Path,
        device: torch.device,
        dtype: torch.dtype,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> "Engine":
        """Make one from a trained Bundle; raises UserError if it has no task to answer.

        `settings` of the task go before those it was trained with.
        """
        bundle = open_bundle(path)
        tokenizer = load_tokenizer(bundle.path)
        task = task_of(bundle, tokenizer, settings)
        opened = open_model(bundle, task)
        size = opened.model.encoder.config.vocab_size
        check_match(tokenizer, size, str(bundle.path), bundle.card.tokenizer)
        if opened.fresh:
            raise UserError(
                f"{path} was not trained for {task.name!r}: it holds no {', '.join(opened.fresh)}; "
                f"fine-tune it first: clozeworks finetune {task.name} … --model {path}"
            )
        return cls(opened.model.to(device=device, dtype=dtype), task, tokenizer)

    def predict(self, examples: Iterable[Any]) -> Iterator[Prediction]:
        """Yield one Prediction for each Example, in order; any number may pass through.

        Instead of an Example there may be a mapping of its fields, or the text that is its first
        one. Raises UserError, naming the number, for one that is none of these or cannot be read.
        """
        for example, parts in self.parts(self._made(examples)):
            yield self.task.join(example, parts)

    def _made(self, examples: Iterable[Any]) -> Iterator[Any]:
        """Examples, also of what is only said of them."""
        kind = self.task.Example
        first = next(iter(kind.model_fields))
        for number, said in enumerate(examples, 1):
            if isinstance(said, kind):
                yield said
                continue
            if not isinstance(said, str | Mapping):
                raise BadExample(
                    number, f"{said!r} is no {kind.__name__}, no mapping of its fields and no text"
                )
            values = {first: said} if isinstance(said, str) else said
            try:
                for name, value in values.items():
                    check_characters(value, name)
                example = validated(kind, values, kind.__name__)
                self.task.readable(example)
            except UserError as error:
                raise BadExample(number, str(error)) from error
            yield example

    def parts(self, examples: Iterable[Any]) -> Iterator[tuple[Any, list[Part]]]:
        """Yield each Example with the Parts of its Sequences, before they are joined."""
        source, done = iter(examples), 0
        while window := list(islice(source, max(1, WINDOW // self.task.sequences_each))):
            asked = [self.task.asked(example) for example in window]
            groups = self._features(asked, done)
            done += len(asked)
            self._count(groups)
            answers = iter(self._answers([s for group in groups for s in group]))
            for example, group in zip(window, groups, strict=True):
                yield example, [next(answers) for _ in group]

    def _features(self, asked: list[Any], done: int) -> list[list[Sequence]]:
        """The Sequences of some Examples, `done` others before them; one that is bad is named."""
        try:
            return self.task.features(asked, self.tokenizer)
        except UserError:
            for number, example in enumerate(asked, done + 1):
                try:
                    self.task.features([example], self.tokenizer)
                except UserError as error:
                    raise BadExample(number, str(error)) from error
            raise

    def _count(self, groups: list[list[Sequence]]) -> None:
        cut_off = [sum(s.truncated for s in group) for group in groups]
        self.truncated += sum(cut_off)
        self.cut_examples += sum(n > 0 for n in cut_off)

    def _answers(self, sequences: list[Sequence]) -> list[Part]:
        """One Part for each Sequence, in order; run in batches of like lengths."""
        limit = self.model.encoder.config.max_positions
        lengths = np.array([len(s) for s in sequences])
        if lengths.max() > limit:
            raise UserError(
                f"a text has {lengths.max():,} tokens, more than the {limit:,} positions of the "
                "model; give shorter texts"
            )
        order = np.argsort(-lengths, kind="stable")
        answers: list[Part] = [{}] * len(sequences)
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            for indices in cut(order, lengths, BATCH_TOKENS, "tokens"):
                batch = pack([Group(int(i), [sequences[i]]) for i in indices])
                output = self.task.predict(self.model, batch.to(self.model.device))
                on_cpu = {name: tensor.cpu() for name, tensor in output.items()}
                for i, part in zip(indices, self.task.decode(on_cpu, batch), strict=True):
                    answers[i] = part
        self.model.train(was_training)
        return answers


def task_of(
    bundle: Bundle, tokenizer: Tokenizer, changed: Mapping[str, Any] = MappingProxyType({})
) -> Task:
    """The task a Bundle was trained for, as its card or its Hugging Face config says.

    `changed` settings go before its own; of joint tasks, those are of the one that predicts.
    """
    card = bundle.card
    elsewhere = SENTENCES if is_sentence_folder(bundle) else "+".join(sorted(heads_of(bundle)))
    name = card.task or elsewhere  # no card: a folder from elsewhere
    if not name:
        raise UserError(
            f"{bundle.path} is a bare encoder, trained for no task; fine-tune it first: "
            f"clozeworks finetune classify … --model {bundle.path}"
        )
    labels = labels_of(bundle)
    settings = {**_elsewhere(name, bundle, labels), **card.settings}
    first, *more = name.split("+")
    _refuse_fixed(first, changed)
    settings |= {first: {**settings.get(first, {}), **changed}} if more else changed
    task = create(name, settings, tokenizer.vocabulary, labels)
    task.calibration = task.as_set(card.calibration)
    return task


def _refuse_fixed(name: str, changed: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown setting, or one that a trained model's answers depend on."""
    kind = TASKS.get(name)
    free, known = sorted(kind.free), kind.Config.model_fields
    if fixed := next((some for some in changed if some not in free), None):
        others = suggestion(fixed, free) if free else "; none of its settings may"
        if fixed not in known:
            raise UserError(f"settings of {name!r} that may change: unknown key {fixed!r}{others}")
        raise UserError(f"setting {fixed!r} of {name!r} may not change once it is trained{others}")


def _elsewhere(name: str, bundle: Bundle, labels: list[str]) -> dict[str, Any]:
    """Settings of a task that a folder without a card implies."""
    if name == "tag":  # its tags may be of a scheme in which an entity begins with I-
        try:
            types_of(labels)
        except UserError as error:
            raise UserError(f"{bundle.path / 'config.json'}: id2label: {error}") from error
        return {"enforce": False} if bundle.card.task is None else {}
    if name == "seq2seq" and bundle.card.task is None:
        return pair.settings_of(bundle, family_of(bundle))
    return _kind(bundle, labels) if name == "classify" else said_of(name, bundle)


def _kind(bundle: Bundle, labels: list[str]) -> dict[str, str]:
    """What kind of classifier a folder from elsewhere holds, as `transformers` would take it."""
    usual = PROBLEM_TYPES["regression" if len(labels) == 1 else "single"]
    wanted = choose(
        str(bundle.config.get("problem_type") or usual),
        PROBLEM_TYPES.values(),
        f"{bundle.path / 'config.json'}: problem_type",
    )
    return {"kind": next(kind for kind, name in PROBLEM_TYPES.items() if name == wanted)}
