"""Next-sentence prediction: does the second segment follow the first? (Devlin et al. 2018, 3.1)"""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.records import Example, Prediction, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.data.pairs import Pairs
from clozeworks.model.heads import AnyEncoder, ClassHead, Model
from clozeworks.tasks.base import Draw, Output, Part, Task, Terms
from clozeworks.text.tokenizer import Tokenizer


class NspConfig(Settings):
    """Next-sentence prediction has nothing to set; how pairs are cut belongs to the data."""


class NspExample(Example):
    """Two texts, and whether the second follows the first."""

    text: str
    """The first text."""
    text_pair: str
    """The second text."""
    label: Literal["next", "random"] | None = None
    """The truth; not needed to predict."""


class NspPrediction(Prediction):
    """Whether the second text follows the first."""

    label: Literal["next", "random"]
    probability: float
    """Probability that it follows."""


class Nsp(Task):
    """Tell a following segment from one of another document (pretraining)."""

    name = "nsp"
    Config, Example, Answer = NspConfig, NspExample, NspPrediction
    pooled = True
    from_shards = True
    words: ClassVar[tuple[str, str]] = ("next", "random")
    """What 0 and 1 mean, as Hugging Face numbers them."""

    @property
    def pairs(self) -> Pairs:
        return "next"

    def features(self, examples: Items[Any], tokenizer: Tokenizer) -> list[list[Sequence]]:
        firsts, seconds = [e.text for e in examples], [e.text_pair for e in examples]
        most = self.positions
        found = tokenizer.encode_batch(firsts, seconds, max_length=most, spans=False)
        return [[sequence] for sequence in found]

    def target(self, example: Any) -> int:
        return -1 if example.label is None else self.words.index(example.label)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add under the task's name [N] int64: 0, 1, or -1 where there is nothing to tell."""
        return batch.with_targets(**{self.name: torch.tensor([group.target for group in groups])})

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ClassHead(encoder, 2)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return model.pooled_rows(batch)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {self.name: float((batch.targets[self.name] >= 0).sum())}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        logits, truth = self._told(model, rows, batch)
        return {self.name: F.cross_entropy(logits, truth, reduction="sum")}

    def right(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        logits, truth = self._told(model, rows, batch)
        return {self.name: (logits.argmax(1) == truth).sum()}

    def _told(self, model: Model, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [n, 2] fp32 and truth [n] of the pairs of which there is something to tell."""
        truth = batch.targets[self.name]
        known = truth >= 0
        return self._logits(model, rows, batch)[known], truth[known]

    def _logits(self, model: Model, rows: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = model.heads[self.name](model.pooled(rows, batch)).float()
        return logits

    def predict(self, model: Model, batch: Batch) -> Output:
        """`logits` [N, 2] fp32."""
        encoder = model.encoder
        read = model.pooled_rows(batch)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"logits": self._logits(model, rows, batch)}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """`first`: the probability of what 0 means."""
        return [{"first": p} for p in torch.softmax(output["logits"], -1)[:, 0].tolist()]

    def join(self, example: Any, parts: list[Part]) -> Prediction:
        first = parts[0]["first"]
        return self.Answer(label=self.words[0 if first >= 0.5 else 1], probability=first)

    def metrics(self, predictions: Items[Any], examples: Items[Any]) -> Mapping[str, float]:
        right = sum(p.label == e.label for p, e in zip(predictions, examples, strict=True))
        return {"accuracy": right / max(1, len(examples))}
