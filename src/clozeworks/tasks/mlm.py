"""Masked language modelling: hide some tokens, ask for them back (Devlin et al. 2018, 3.1)."""

from collections.abc import Sequence as Items
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.records import Example, Ints, Prediction, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.data.draw import below, uniform
from clozeworks.model.cloze import Workspace, cloze_loss
from clozeworks.model.heads import AnyEncoder, Model, TokenHead
from clozeworks.model.rows import rounded
from clozeworks.tasks.base import Draw, Output, Part, Task
from clozeworks.text.tokenizer import Tokenizer


class MlmConfig(Settings):
    """How tokens are hidden."""

    rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of a sequence's ordinary tokens to predict; at least one is."""
    masked: float = Field(default=0.8, ge=0, le=1)
    """Of those, the share replaced by [MASK]."""
    random: float = Field(default=0.1, ge=0, le=1)
    """Of those, the share replaced by a random ordinary token; the rest stay as they are."""
    top: int = Field(default=5, gt=0)
    """How many fillings to name for each [MASK] when predicting."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.masked + self.random > 1:
            raise ValueError(
                f"masked {self.masked} and random {self.random} together are more than 1"
            )
        return self


class MlmExample(Example):
    """A text with one or more [MASK] in it."""

    text: str
    """The text; write [MASK] where a token is to be filled in."""


class Filling(Prediction):
    """One token that could stand at a [MASK]."""

    token: str
    """The piece; `##` before it continues a word."""
    probability: float
    """Its probability."""


class MlmPrediction(Prediction):
    """For each [MASK], in order, the likeliest fillings."""

    fillings: list[list[Filling]]


class Mlm(Task):
    """Predict hidden tokens from both sides (pretraining; fill-in-the-blank)."""

    name = "mlm"
    Config, Example, Answer = MlmConfig, MlmExample, MlmPrediction
    from_shards = True
    config: MlmConfig

    def __init__(self, config: Settings, vocabulary: Any, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self._special = np.array(sorted(vocabulary.special), dtype=np.int64)
        self._space = Workspace()

    def features(self, examples: Items[MlmExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        mask = self.vocabulary.pieces[self.vocabulary.mask]
        texts = [e.text.replace("[MASK]", mask) for e in examples]
        return [[s] for s in tokenizer.encode_batch(texts, spans=False)]

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Hide tokens: `mlm_rows` [M] int64 and the true ids `mlm_labels` [M] int64."""
        ids = batch.input_ids.numpy().copy()
        counters = _token_counters(batch, draw)
        rows = self._chosen(ids, batch.offsets.numpy(), counters)
        labels = ids[rows]
        at = tuple(c if isinstance(c, int) else c[rows] for c in counters)
        action = uniform("mlm.action", *at)
        drawn = self.vocabulary.drawable[
            below(len(self.vocabulary.drawable), "mlm.replacement", *at)
        ]
        mask_below, random_below = self.config.masked, self.config.masked + self.config.random
        changed = np.where(action < random_below, drawn, labels)
        ids[rows] = np.where(action < mask_below, self.vocabulary.mask, changed)
        return batch.with_targets(
            input_ids=torch.from_numpy(ids),
            mlm_rows=torch.from_numpy(rows),
            mlm_labels=torch.from_numpy(labels),
        )

    def _chosen(self, ids: Ints, offsets: Ints, counters: tuple[int | Ints, ...]) -> Ints:
        """Rows to predict: in each sequence the round(rate · n) lowest draws of its n tokens."""
        candidates = np.flatnonzero(~np.isin(ids, self._special))
        owner = np.searchsorted(offsets, candidates, side="right") - 1
        place = uniform(
            "mlm.place", *(c if isinstance(c, int) else c[candidates] for c in counters)
        )
        order = np.lexsort((place, owner))
        sizes = np.bincount(owner, minlength=len(offsets) - 1)
        first = np.cumsum(sizes) - sizes
        rank = np.arange(len(candidates)) - first[owner[order]]
        quota = np.maximum(1, np.floor(self.config.rate * sizes + 0.5)).astype(np.int64)
        return np.sort(candidates[order[rank < quota[owner[order]]]])

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return TokenHead(encoder.config)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["mlm_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"mlm": float(len(batch.targets["mlm_rows"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        head = model.heads["mlm"]
        assert isinstance(head, TokenHead)
        weight, labels = model.encoder.embeddings.tokens.weight, batch.targets["mlm_labels"]
        return {"mlm": cloze_loss(head(rounded(rows)), weight, head.bias, labels, self._space)}

    def predict(self, model: Model, batch: Batch) -> Output:
        """The [MASK] tokens' `rows` [M], their likeliest `tokens` and `probabilities` [M, top]."""
        rows = torch.nonzero(batch.input_ids == self.vocabulary.mask).flatten()
        encoder = model.encoder
        x = model.heads["mlm"](encoder.encode(encoder.embed(batch), batch, read=rows).x)
        logits = x @ encoder.embeddings.tokens.weight.t() + model.heads["mlm"].bias
        best = torch.softmax(logits.float(), -1).topk(self.config.top)
        return {"rows": rows, "tokens": best.indices, "probabilities": best.values}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        parts: list[Part] = [{"fillings": []} for _ in batch.firsts]
        pieces = self.vocabulary.pieces
        owner = torch.searchsorted(batch.offsets, output["rows"], right=True) - 1
        for i, tokens, shares in zip(
            owner.tolist(), output["tokens"].tolist(), output["probabilities"].tolist(), strict=True
        ):
            pairs = zip(tokens, shares, strict=True)
            named = [Filling(token=pieces[t], probability=p) for t, p in pairs]
            parts[i]["fillings"].append(named)
        return parts

    def join(self, example: MlmExample, parts: list[Part]) -> MlmPrediction:
        return MlmPrediction(fillings=[f for part in parts for f in part["fillings"]])


def _token_counters(batch: Batch, draw: Draw) -> tuple[int | Ints, ...]:
    """(seed, epoch, group's index, sequence within the group, position) of every token."""
    lengths = np.diff(batch.offsets.numpy())
    per_group = np.diff(batch.groups.numpy())
    index = np.repeat(batch.index.numpy(), per_group)
    within = np.arange(len(lengths)) - np.repeat(batch.groups.numpy()[:-1], per_group)
    return (
        draw.seed,
        draw.epoch,
        np.repeat(index, lengths),
        np.repeat(within, lengths),
        batch.positions.numpy(),
    )
