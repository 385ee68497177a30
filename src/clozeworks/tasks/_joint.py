"""Several objectives on one batch and one pass through the encoder."""

from collections.abc import Sequence as Items
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from clozeworks.core.records import Prediction, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.data.pairs import Pairs
from clozeworks.model.heads import AnyEncoder, Model
from clozeworks.tasks.base import Draw, Output, Part, Task, Terms
from clozeworks.text.tokenizer import Tokenizer


class Joint(Task):
    """The parts' losses summed, each divided by its own count; predicts as its first part does."""

    from_shards = True

    def __init__(self, parts: Items[Task]) -> None:
        self.name = "+".join(part.name for part in parts)
        super().__init__(parts[0].config, parts[0].vocabulary)
        self._parts = tuple(parts)
        self.weights = {term: w for part in parts for term, w in part.weights.items()}
        self.Config, self.Example, self.Answer = (
            parts[0].Config,
            parts[0].Example,
            parts[0].Answer,
        )

    @property
    def parts(self) -> Items[Task]:
        return self._parts

    @property
    def settings(self) -> dict[str, Any]:
        return {part.name: part.settings for part in self.parts}

    @property
    def pairs(self) -> Pairs:
        return next((part.pairs for part in self.parts if part.pairs != "none"), "none")

    @property
    def needs_words(self) -> bool:
        return any(part.needs_words for part in self.parts)

    @property
    def judged(self) -> Task:
        judged = copy(self)
        judged._parts = tuple(part.judged for part in self.parts)
        return judged

    def features(self, examples: Items[Any], tokenizer: Tokenizer) -> list[list[Sequence]]:
        return self.parts[0].features(examples, tokenizer)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        for part in self.parts:
            batch = part.mark(batch, groups, draw)
        return batch

    def head(self, encoder: AnyEncoder) -> nn.Module:
        raise TypeError("a joint task has a head for each part, none of its own")

    def read(self, model: Model, batch: Batch) -> Tensor:
        return torch.cat([part.read(model, batch) for part in self.parts])

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        raise TypeError("a joint task's terms are those of its parts; ask for its loss")

    def counts(self, batch: Batch) -> dict[str, float]:
        return {term: n for part in self.parts for term, n in part.counts(batch).items()}

    def predict(self, model: Model, batch: Batch) -> Output:
        return self.parts[0].predict(model, batch)

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        return self.parts[0].decode(output, batch)

    def join(self, example: Any, parts: list[Part]) -> Prediction:
        return self.parts[0].join(example, parts)
