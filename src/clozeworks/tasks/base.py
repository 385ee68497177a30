"""The Task: all that training, prediction, judging and serving must know of a problem."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError, choose
from clozeworks.core.log import counted
from clozeworks.core.records import Example, Prediction, Sequence, Target, Vocabulary
from clozeworks.data.batches import Batch, Group, pack
from clozeworks.data.pairs import Pairs
from clozeworks.model.heads import AnyEncoder, Model, Pooler, needs_pooler
from clozeworks.text.tokenizer import Tokenizer

Output = dict[str, Tensor]
"""What a model says of a batch, by name; tensors on the CPU."""
Part = dict[str, Any]
"""What `decode` makes of one Sequence."""
Terms = dict[str, Tensor]
"""A sum for each loss term."""


class Draw(NamedTuple):
    """The key of everything random in a batch; every Group adds its own index."""

    seed: int
    epoch: int
    progress: float = 0.0
    """Share of the run's steps that are done: what changes over a run is a function of it."""


class Judged(NamedTuple):
    """A batch judged in one pass: its loss terms, and of what each counts, how many are right."""

    losses: Terms
    right: Terms


FEW = 50
"""Rows below which what is fitted on them says little."""


def few_rows(rows: int) -> list[str]:
    """A remark on a dev set that is too small; none where there is none, and so decides nothing."""
    if not 0 < rows < FEW:
        return []
    only = counted(rows, "row", "rows")
    return [f"dev has only {only}: take its numbers, and what was fitted on it, as rough"]


class Task(ABC):
    """One problem: examples in, a loss to train on, predictions out.

    A task is made from its settings, a Vocabulary and the label names. Pure: it opens no file,
    chooses no device, prints nothing.
    """

    name: str
    Config: type[Settings]
    Example: type[Example]
    Answer: type[Prediction]
    pooled: ClassVar[bool] = False
    """Whether its head stands on the pooler."""
    head_name: ClassVar[str] = ""
    """What public classes call its head, where that is not its own name."""
    answers: ClassVar[frozenset[str]] = frozenset({"label"})
    """Fields of its Examples that hold what it is to predict."""
    asked_with: ClassVar[frozenset[str]] = frozenset()
    """Optional fields of its Examples that change what is asked: where rows to learn from had one,
    files to judge by and to predict must have it too."""
    from_shards: ClassVar[bool] = False
    """Whether its training data is a prepared corpus instead of Examples."""
    sequences_each: int = 1
    """Sequences that an Example usually has, about: how many are held at a time goes by it."""
    headless: ClassVar[bool] = False
    """Whether it asks the encoder itself, through no head: its folders hold a bare encoder."""
    unlabelled: ClassVar[bool] = False
    """Whether it also learns of Examples without an answer."""
    apart: ClassVar[bool] = False
    """Whether each text of an Example is read by itself, in Sequences of its own."""
    windows: bool = False
    """Whether what is too long for one Sequence is read in several, and nothing is cut."""
    pace: ClassVar[float] = 1.0
    """The learning rate that suits it, as a multiple of what suits most tasks."""
    lengths: ClassVar[tuple[str, ...]] = ("max_length",)
    """Its settings that say how many tokens a sequence may have."""
    cut_by: ClassVar[tuple[str, ...]] = ()
    """Those of its settings by which text is cut, where it is not the ones of `lengths`."""
    free: ClassVar[frozenset[str]] = frozenset()
    """Its settings that may differ once it is trained: they say what becomes of its answers."""
    losses: ClassVar[Mapping[str, float]] = {}
    """Its loss terms and their usual weights; empty: one, called as the task, of weight 1."""

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.labels = list(labels)
        self.calibration = Calibration()
        """How scores become probabilities; fitted after training, restored with a Bundle."""
        self.positions: int | None = None
        """Most tokens the model at hand reads at once; None where there is none."""
        self.weights = dict(self.losses) or {self.name: 1.0}
        """What each loss term's mean is multiplied with in the sum that is minimised."""

    @property
    def question(self) -> str:
        """What it answers, and how answers are compared: models of other questions are not judged
        beside each other."""
        return repr(self.name)

    @property
    def parts(self) -> "Items[Task]":
        """The single objectives it consists of: itself, unless it joins several."""
        return (self,)

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings as plain values, as `tasks.create` takes them back."""
        return self.config.model_dump(mode="json", exclude_none=True)

    @property
    def pairs(self) -> Pairs:
        """Which pairs of segments are cut from a corpus for it; "none": windows of one segment."""
        return "none"

    @property
    def limits(self) -> dict[str, int]:
        """How many tokens its sequences may have, by the setting that says so."""
        found = {name: getattr(self.config, name, None) for name in self.lengths}
        return {name: limit for name, limit in found.items() if limit is not None}

    @property
    def sampled(self) -> int | None:
        """Of how many dev rows predictions are made when a run is judged; None: of all of them.

        Where it is a number, because predicting takes long, the loss on all of dev is told too.
        """
        return None

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Give loss terms other weights; raises UserError for a term there is not, or below 0."""
        for name, weight in weights.items():
            choose(name, self.weights, "weight of")
            if not 0 <= weight < math.inf:
                raise UserError(f"weight of {name} = {weight:g} must be 0 or more")
        self.weights |= weights
        if not any(self.weights.values()):
            raise UserError("every weight is 0, so nothing would be learned; leave one above 0")

    @property
    def needs_words(self) -> bool:
        """Whether its Sequences must tell where words begin."""
        return False

    @classmethod
    def pieces_lacking(cls, vocabulary: Vocabulary) -> list[str]:
        """Pieces that a WordPiece vocabulary must be given before it is trained; mostly none."""
        return []

    @property
    def marks(self) -> Items[str]:
        """Pieces that it puts into texts itself, and that no text has otherwise."""
        return ()

    @property
    def judged(self) -> "Task":
        """The task whose loss on held-out data is reported: itself, unless its settings move it."""
        return self

    # === Data ===

    @abstractmethod
    def features(self, examples: Items[Any], tokenizer: Tokenizer) -> list[list[Sequence]]:
        """The Sequences of each Example; many at once, because the tokenizer is then faster."""

    def asked(self, example: Any) -> Any:
        """The Example as prediction reads it: without what only training needs."""
        return example

    def is_labelled(self, example: Any) -> bool:
        """Whether the Example says what is to be learned of it."""
        return any(getattr(example, name) is not None for name in self.answers)

    @classmethod
    def key(cls, example: Any) -> str:
        """What an Example asks, whatever its answer: those of one key never train and judge."""
        asked = (getattr(example, f) for f in cls.Example.model_fields if f not in cls.answers)
        return "\n".join("" if value is None else str(value) for value in asked)

    @classmethod
    def shown(cls, example: Any) -> tuple[list[str], str | list[str] | None]:
        """The texts of an Example that are read together, and its label: for looking data over."""
        values = [getattr(example, f) for f in cls.Example.model_fields if f not in cls.answers]
        return [v for v in values if isinstance(v, str)], getattr(example, "label", None)

    @classmethod
    def written(cls, example: Any) -> list[str]:
        """The texts that are to be written for an Example, for looking data over; mostly none."""
        return []

    def stratum(self, example: Any) -> str:
        """Which Examples are alike: a dev set is held out of each kind evenly."""
        return ""

    def enlarged(self, examples: Items[Any], draw: Draw) -> list[Any]:
        """Training Examples, and more that follow from them; most tasks make none."""
        return list(examples)

    def labels_in(self, examples: Items[Any]) -> list[str]:
        """The labels that Examples teach, in the order of the head's outputs; none by default.

        Raises UserError where there is nothing to be told apart.
        """
        return []

    @classmethod
    def readable(cls, example: Any) -> None:
        """Raise UserError for an Example that cannot be read, answered or not; most always can."""
        return

    def check(self, example: Any) -> None:
        """Raise UserError for an Example that could never be learned, whatever labels there are."""
        self.readable(example)
        if not self.is_labelled(example):
            missing = " and no ".join(sorted(self.answers))
            raise UserError(f"no {missing}: fill it in, or remove the row")

    def target(self, example: Any) -> Target:
        """What is to be learned of the Example; -1 if there is nothing."""
        return -1

    def look_over(self, groups: Items[Group]) -> None:
        """See what is to be learned of all training Examples, once; most tasks need not."""
        for part in self.parts:
            if part is not self:
                part.look_over(groups)

    def readings(self, groups: Items[Group]) -> list[Group]:
        """What is read of the training Groups once they are looked over: mostly they themselves."""
        return list(groups)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add this task's targets to a packed batch."""
        return batch

    def collate(self, groups: Items[Group], draw: Draw) -> Batch:
        """Pack groups and add the targets; a function of the groups and `draw` alone."""
        return self.mark(pack(groups), groups, draw)

    # === Model ===

    @abstractmethod
    def head(self, encoder: AnyEncoder) -> nn.Module:
        """A fresh head for this task; of one that is headless never asked for."""

    def build(self, encoder: AnyEncoder) -> Model:
        """The encoder with fresh heads for every part."""
        heads = {
            part.head_name or part.name: part.head(encoder)
            for part in self.parts
            if not part.headless
        }
        pooled = any(part.pooled for part in self.parts) or needs_pooler(encoder.config, heads)
        return Model(encoder, Pooler(encoder.config) if pooled else None, heads)

    def inherit(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What its head begins with, by our names, of the tensors of the model that it starts from.

        Where these hold the head itself, it goes before. Nothing by default: a head starts fresh.
        """
        return {}

    def equip(self, model: Model) -> None:
        """Add to a fresh model what only training needs; most tasks need nothing."""
        for part in self.parts:
            if part is not self:
                part.equip(model)

    # === Training ===

    @property
    def compares(self) -> Items[str]:
        """Where what is learned of an Example depends on the others of its step: the targets that
        `compared` looks at. Empty where the losses of parts of a step add up to that of the whole,
        as those of most tasks do."""
        return ()

    def begin(self, model: Model, batch: Batch) -> tuple[Batch, Terms]:
        """What comes before the encoder's pass: the batch it reads, and terms known by then."""
        return batch, {}

    @abstractmethod
    def read(self, model: Model, batch: Batch) -> Tensor:
        """The rows [M] of a training batch this task's head looks at."""

    @abstractmethod
    def terms(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        """One SUM per loss term, from the encoder's `rows` [M, H] named by `read`."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """How many things each loss term sums over, known before the forward."""

    def vectors(self, model: Model, rows: Tensor, batch: Batch) -> Tensor:
        """What a task that compares does compare, [G, H] fp32; arguments as for `terms`."""
        raise TypeError(f"{self.name} compares nothing")

    def compared(self, vectors: Tensor, targets: Mapping[str, Tensor]) -> Terms:
        """One SUM per loss term, of the `vectors` of any number of batches, one after another.

        `targets` are those of the same batches, [G, …] each, under the names in `compares`.
        """
        raise TypeError(f"{self.name} compares nothing")

    def right(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        """Of what a loss term counts, how many are answered rightly; arguments as for `terms`."""
        return {}

    def loss(self, model: Model, batch: Batch, draw: Draw) -> Terms:
        """One SUM per loss term of every part, from a single pass through the encoder."""
        batch, terms, each = self._through(model, batch)
        for part, rows in each:
            terms |= part.terms(model, rows, batch)
        return terms

    def to_compare(self, model: Model, batch: Batch) -> Tensor:
        """The `vectors` of a batch, from a single pass through the encoder."""
        batch, _, ((_, rows),) = self._through(model, batch)
        return self.vectors(model, rows, batch)

    def judge(self, model: Model, batch: Batch) -> Judged:
        """The loss, and how many answers are right, of every part, from that same pass."""
        batch, terms, each = self._through(model, batch)
        right: Terms = {}
        for part, rows in each:
            terms |= part.terms(model, rows, batch)
            right |= part.right(model, rows, batch)
        return Judged(terms, right)

    def _through(
        self, model: Model, batch: Batch
    ) -> tuple[Batch, Terms, list[tuple["Task", Tensor]]]:
        """The batch as the encoder read it, terms known before, and each part with its rows."""
        early: Terms = {}
        for part in self.parts:
            batch, found = part.begin(model, batch)
            early |= found
        reads = [part.read(model, batch) for part in self.parts]
        x = model.encoder.embed(batch)
        x = model.encoder.encode(x, batch, read=torch.cat(reads)).x
        rows = x.split([len(read) for read in reads])
        return batch, early, list(zip(self.parts, rows, strict=True))

    # === Prediction ===

    @abstractmethod
    def predict(self, model: Model, batch: Batch) -> Output:
        """What the model says of a batch without targets."""

    @abstractmethod
    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """One Part for each Sequence of the batch, in order."""

    @abstractmethod
    def join(self, example: Any, parts: list[Part]) -> Prediction:
        """The Prediction of one Example from the Parts of its Sequences."""

    def calibrate(self, examples: Items[Any], parts: Items[list[Part]]) -> Calibration:
        """Learn from the dev set how sure is sure enough; the default leaves scores as they are."""
        return self.calibration

    def as_set(self, calibration: Calibration) -> Calibration:
        """The calibration, but for what the settings name instead of leaving it to the dev set."""
        return calibration

    def remarks(self, examples: Items[Any], parts: Items[list[Part]]) -> list[str]:
        """What the dev set has decided, and whether it is too small for that, in sentences for the
        person who trains."""
        return few_rows(len(examples))

    def metrics(self, predictions: Items[Any], examples: Items[Any]) -> Mapping[str, float]:
        """The few numbers that sum up predictions against their Examples; of none, their names."""
        return {}

    def measured(self, examples: Items[Any]) -> Collection[str]:
        """Those of their `metrics` that are better the larger they are, by name."""
        return self.metrics([], [])
