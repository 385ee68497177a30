"""Replaced-token detection: which tokens did a small generator put there? (Clark et al. 2020)"""

from collections.abc import Sequence as Items
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.records import Example, Prediction, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.data.draw import uniform
from clozeworks.data.masking import Counters
from clozeworks.model.cloze import Lots, Workspace, cloze_loss_and_draws
from clozeworks.model.generator import generator_of
from clozeworks.model.heads import AnyEncoder, Model, ReplacedHead, TokenHead
from clozeworks.model.rows import rounded
from clozeworks.tasks.base import Draw, Output, Part, Task, Terms
from clozeworks.tasks.mlm import Masking, Mlm, MlmConfig
from clozeworks.text.tokenizer import Tokenizer


class RtdConfig(Masking):
    """How tokens are replaced, and how large the generator is that replaces them."""

    masked: float | str = 1.0
    """Of those, the share the generator sees as [MASK] (in the released code 0.85)."""
    random: float | str = 0.0
    """Of those, the share it sees as a random ordinary token; the rest it sees as they are."""
    generator: float = Field(default=0.25, gt=0, le=1)
    """The generator's width, heads and inner width as shares of the encoder's; its depth is the
    same. The paper has 1/4 for small and large, 1/3 for base."""


class RtdExample(Example):
    """A text in which tokens may have been replaced."""

    text: str
    """The text."""


class Suspicion(Prediction):
    """How much one token looks like a replaced one."""

    token: str
    """The piece; `##` before it continues a word."""
    probability: float
    """Probability that another token stood there."""


class RtdPrediction(Prediction):
    """For each ordinary token of the text, in order, how much it looks like a replaced one."""

    tokens: list[Suspicion]


class Rtd(Task):
    """Find the tokens that a small generator replaced (pretraining)."""

    name = "rtd"
    Config, Example, Answer = RtdConfig, RtdExample, RtdPrediction
    from_shards = True
    losses = {"mlm": 1.0, "rtd": 50.0}
    config: RtdConfig

    def __init__(self, config: Settings, vocabulary: Any, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self.mlm = self._hiding_as(self.config)
        """What hides the tokens to be replaced."""
        self._special = torch.tensor(sorted(vocabulary.special))
        self._space = Workspace()

    def _hiding_as(self, config: RtdConfig) -> Mlm:
        values = config.model_dump(include=set(Masking.model_fields))
        return Mlm(MlmConfig.model_validate(values), self.vocabulary)

    @property
    def needs_words(self) -> bool:
        return self.mlm.needs_words

    @cached_property
    def judged(self) -> "Rtd":
        """Fifteen in a hundred single tokens replaced, whatever the training does."""
        judged = copy(self)
        judged.mlm = self._hiding_as(RtdConfig())
        return judged

    def features(self, examples: Items[RtdExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        texts = [example.text for example in examples]
        found = tokenizer.encode_batch(texts, max_length=self.positions, spans=False)
        return [[sequence] for sequence in found]

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Hide tokens as `mlm` does, and name what the encoder will judge.

        Adds `rtd_rows` [N] int64, every ordinary token, and `rtd_places` [M] float64 in [0, 1),
        from which the tokens put at the hidden ones are drawn: a function of (seed, epoch), the
        group's number and the position, so that no cutting into batches changes a draw.
        """
        judged = self._ordinary(batch)
        batch = self.mlm.mark(batch, groups, draw)
        rows = batch.targets["mlm_rows"].numpy()
        at = Counters.of(batch, draw.seed, draw.epoch).of_tokens(rows)
        places = np.asarray(uniform("rtd.place", *at))
        return batch.with_targets(rtd_rows=judged, rtd_places=torch.from_numpy(places))

    def _ordinary(self, batch: Batch) -> Tensor:
        """Rows of all tokens that are not special."""
        special = torch.isin(batch.input_ids, self._special.to(batch.input_ids.device))
        return torch.nonzero(~special).flatten()

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ReplacedHead(encoder.config)

    def equip(self, model: Model) -> None:
        """Give the model a generator."""
        model.generator = generator_of(model.encoder, self.config.generator)

    def begin(self, model: Model, batch: Batch) -> tuple[Batch, Terms]:
        """The generator's pass: the batch with what it put there, and its loss `mlm`.

        Adds `rtd_replaced` [N] fp32: 1 where another token stands now than before. No gradient
        flows back through what was drawn, and no special token is put anywhere.
        """
        generator = model.generator
        assert generator is not None, "a model is trained after `equip`"
        hidden, truth = batch.targets["mlm_rows"], batch.targets["mlm_labels"]
        encoder, head = generator.encoder, generator.heads["mlm"]
        assert isinstance(head, TokenHead)
        x = encoder.encode(encoder.embed(batch), batch, read=hidden).x
        lots = Lots(batch.targets["rtd_places"], self._special.to(hidden.device))
        weight, space = encoder.embeddings.tokens.weight, self._space
        loss, put = cloze_loss_and_draws(head(rounded(x)), weight, head.bias, truth, space, lots)
        replaced = torch.zeros(batch.num_tokens, device=hidden.device)
        replaced[hidden] = (put != truth).float()
        ids = batch.input_ids.index_copy(0, hidden, put)
        judged = replaced[batch.targets["rtd_rows"]]
        return batch.with_targets(input_ids=ids, rtd_replaced=judged), {"mlm": loss}

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["rtd_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        targets = batch.targets
        return {"mlm": float(len(targets["mlm_rows"])), "rtd": float(len(targets["rtd_rows"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        logits, replaced = self._logits(model, rows), batch.targets["rtd_replaced"]
        loss = F.binary_cross_entropy_with_logits(logits, replaced, reduction="sum")
        return {"rtd": loss}

    def right(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        suspected = self._logits(model, rows) > 0
        return {"rtd": (suspected == (batch.targets["rtd_replaced"] > 0)).sum()}

    def _logits(self, model: Model, rows: Tensor) -> Tensor:
        logits: Tensor = model.heads["rtd"](rounded(rows))[: len(rows)].float()
        return logits

    def predict(self, model: Model, batch: Batch) -> Output:
        """Ordinary tokens' `rows` [N], and the `probabilities` [N] that they were replaced."""
        rows = self._ordinary(batch)
        encoder = model.encoder
        x = encoder.encode(encoder.embed(batch), batch, read=rows).x
        return {"rows": rows, "probabilities": torch.sigmoid(self._logits(model, x))}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        parts: list[Part] = [{"tokens": []} for _ in batch.firsts]
        owner = torch.searchsorted(batch.offsets, output["rows"], right=True) - 1
        ids, pieces = batch.input_ids[output["rows"]].tolist(), self.vocabulary.pieces
        shares = output["probabilities"].tolist()
        for i, token, share in zip(owner.tolist(), ids, shares, strict=True):
            parts[i]["tokens"].append(Suspicion(token=pieces[token], probability=share))
        return parts

    def join(self, example: RtdExample, parts: list[Part]) -> RtdPrediction:
        return RtdPrediction(tokens=[token for part in parts for token in part["tokens"]])
