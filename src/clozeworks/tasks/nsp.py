"""Next-sentence prediction: does the second segment follow the first? (Devlin et al. 2018, 3.1)"""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.records import Example, Prediction, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.model.heads import AnyEncoder, ClassHead, Model
from clozeworks.tasks.base import Draw, Output, Part, Task
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

    @property
    def pairs(self) -> bool:
        return True

    def features(self, examples: Items[NspExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        firsts, seconds = [e.text for e in examples], [e.text_pair for e in examples]
        return [[s] for s in tokenizer.encode_batch(firsts, seconds, spans=False)]

    def target(self, example: NspExample) -> int:
        return -1 if example.label is None else int(example.label == "random")

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `nsp` [N] int64: 0 follows, 1 is from elsewhere (as Hugging Face numbers them)."""
        return batch.with_targets(nsp=torch.tensor([group.target for group in groups]))

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ClassHead(encoder, 2)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return model.pooled_rows(batch)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"nsp": float(len(batch.targets["nsp"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits = model.heads["nsp"](model.pooled(rows, batch)).float()
        return {"nsp": F.cross_entropy(logits, batch.targets["nsp"], reduction="sum")}

    def predict(self, model: Model, batch: Batch) -> Output:
        """`logits` [N, 2] fp32."""
        encoder = model.encoder
        read = model.pooled_rows(batch)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"logits": model.heads["nsp"](model.pooled(rows, batch)).float()}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        return [{"follows": p} for p in torch.softmax(output["logits"], -1)[:, 0].tolist()]

    def join(self, example: NspExample, parts: list[Part]) -> NspPrediction:
        follows = parts[0]["follows"]
        return NspPrediction(label="next" if follows >= 0.5 else "random", probability=follows)

    def metrics(
        self, predictions: Items[NspPrediction], examples: Items[NspExample]
    ) -> Mapping[str, float]:
        right = sum(p.label == e.label for p, e in zip(predictions, examples, strict=True))
        return {"accuracy": right / max(1, len(examples))}
