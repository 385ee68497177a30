"""Sentence vectors: texts that mean the same lie close, whatever their words."""

from collections.abc import Collection, Mapping
from collections.abc import Sequence as Items
from dataclasses import replace
from hashlib import blake2b
from itertools import groupby
from math import isfinite, isnan, nan
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.records import Example, Sequence, Vocabulary
from clozeworks.data.batches import Batch, Group
from clozeworks.metrics.retrieve import spread
from clozeworks.model.contrast import cosent, cosine_distance, in_batch, no_negatives
from clozeworks.model.heads import AnyEncoder, Model
from clozeworks.model.pooling import Pooling, joined, pooled, rows_of
from clozeworks.tasks._vectors import (
    RETRIEVED,
    SCORED,
    EmbedPrediction,
    cosine,
    retrieved,
    scored,
    unit,
    vector,
)
from clozeworks.tasks.base import Draw, Output, Part, Task, few_rows
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import split

__all__ = ["Embed", "EmbedConfig", "EmbedExample", "EmbedPrediction", "kind_of"]

Objective = Literal["contrastive", "cosent", "cosine", "simcse"]
Kind = Literal["pairs", "scored", "texts"]
"""What a row holds besides its text: a positive, a score, or nothing."""

USUAL: dict[Kind, Objective] = {"pairs": "contrastive", "scored": "cosent", "texts": "simcse"}
"""What is learned from rows of a kind where nothing else is asked for."""
WANTS: dict[Objective, tuple[Kind, str]] = {
    "contrastive": ("pairs", "a positive (--positive)"),
    "cosent": ("scored", "a score (--score) and a text_pair (--text-pair)"),
    "cosine": ("scored", "a score (--score) and a text_pair (--text-pair)"),
}
NAMES: dict[Kind, tuple[str, ...]] = {"pairs": RETRIEVED, "scored": SCORED, "texts": ("spread",)}
ROLE, SAME, SCORE = "embed_role", "embed_same", "embed_score"
"""Targets that say of each text of a batch what it is, which are the same, and its row's score."""
SHOWN = 40
"""Characters of a text that an error quotes."""


class EmbedConfig(Settings):
    """How texts become vectors, and what vectors learn."""

    max_length: int | None = Field(default=None, ge=8)
    """Longest sequence in tokens, special tokens included; longer texts are read in windows.
    Absent: what the model's folder says of sentence vectors, else 128."""
    pooling: Pooling | None = None
    """What stands for a text: the mean of its tokens' vectors, that of the first token (cls), or
    the largest of each number (max). Absent: what the model's folder says, else the mean."""
    normalize: bool | None = None
    """Give vectors of length 1. Absent: what the model's folder says, else not."""
    objective: Objective | None = None
    """What is learned: contrastive (a text's positive among all of the batch), cosent (the order of
    scores), cosine (the scores themselves), simcse (a text read twice, among all others). Absent:
    what the rows have decides."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by it in contrastive, cosent and simcse; lower counts near ones more."""
    symmetric: bool = False
    """Of contrastive and simcse: let positives find their texts, too."""
    score_range: tuple[float, float] | None = None
    """Scores that cosine learns as 0 and as 1. Absent: the least and the greatest of the training
    data; scores that all lie between -1 and 1 are taken as cosines."""

    @field_validator("score_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"from {value[0]:g} to {value[1]:g} is no range; the least goes first")
        return value


class EmbedExample(Example):
    """A text, and what lies close to it or how close."""

    text: str
    """The text."""
    positive: str | None = None
    """A text that means the same or answers it; not needed to predict."""
    negatives: str | list[str] | None = None
    """Texts that seem to and do not, one or a list; not needed to predict."""
    text_pair: str | None = None
    """A second text, to be compared with."""
    score: float | None = None
    """How alike text and text_pair are, on any scale; not needed to predict."""

    @property
    def hard(self) -> list[str]:
        """The negatives as a list."""
        return [self.negatives] if isinstance(self.negatives, str) else self.negatives or []


class Embed(Task):
    """Give texts vectors that lie close where they mean the same."""

    name = "embed"
    pace = 1 / 3
    Config, Example, Answer = EmbedConfig, EmbedExample, EmbedPrediction
    answers = frozenset({"positive", "negatives", "score"})
    headless = unlabelled = apart = windows = True
    config: EmbedConfig

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        usual = {"max_length": 128, "pooling": "mean", "normalize": False}
        absent = {name: value for name, value in usual.items() if getattr(config, name) is None}
        self.config = self.config.model_copy(update=absent)
        assert self.config.max_length is not None and self.config.pooling is not None
        self._length, self._pooling = self.config.max_length, self.config.pooling

    # === Data ===

    def features(self, examples: Items[EmbedExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        """The windows of the text, of its positive or pair, and of its negatives, in this order."""
        texts = [_texts(example) for example in examples]
        windows = iter(split([t for row in texts for t in row], tokenizer, self._length))
        return [[s for i in range(len(row)) for s in _marked(next(windows), i)] for row in texts]

    @classmethod
    def shown(cls, example: EmbedExample) -> tuple[list[str], None]:
        """All of its texts; there are no labels."""
        return _texts(example), None

    def asked(self, example: EmbedExample) -> EmbedExample:
        return example.model_copy(update={"negatives": None}) if example.negatives else example

    def check(self, example: EmbedExample) -> None:
        """Raise UserError for a row that says two things at once, or half of one."""
        e = example
        if e.positive is not None and (e.score is not None or e.text_pair is not None):
            raise UserError("both a positive and a pair with a score; give one of them")
        if e.hard and e.positive is None:
            raise UserError("negatives without a positive; name its column with --positive")
        if e.score is not None and e.text_pair is None:
            raise UserError("a score, but no text_pair; name its column with --text-pair")
        if e.text_pair is not None and e.score is None:
            raise UserError(
                "a text_pair without a score; give one (--score), or name its column with "
                "--positive where the two mean the same"
            )
        if e.score is not None and not isfinite(e.score):
            raise UserError(f"score {e.score} is no number; correct it")
        if not all(text.strip() for text in _texts(e)):
            raise UserError("a positive, negative or text_pair is empty; write it, or drop the row")

    def labels_in(self, examples: Items[EmbedExample]) -> list[str]:
        """None; raises UserError where the objective cannot be learned from these rows."""
        first: dict[Kind, EmbedExample] = {}
        for example in examples:
            first.setdefault(kind_of(example), example)
        objective = self.config.objective
        if objective is None and len(first) > 1:
            one, other = ((kind, _short(row.text)) for kind, row in list(first.items())[:2])
            has = {"pairs": "a positive", "scored": "a score", "texts": "neither"}
            raise UserError(
                f"{one[1]!r} has {has[one[0]]}, {other[1]!r} has {has[other[0]]}: train on one "
                "kind of rows at a time (positive, score, or texts alone)"
            )
        objective = objective or USUAL[kind_of(examples[0])]
        if objective != "simcse":
            kind, what = WANTS[objective]
            if stray := next((row for k, row in first.items() if k != kind), None):
                raise UserError(
                    f"objective {objective} needs {what} in every row; {_short(stray.text)!r} has "
                    "none: add it, or leave --objective out"
                )
        self._check_settings(objective)
        if objective in ("cosent", "cosine") and len({e.score for e in examples}) == 1:
            raise UserError(
                f"every score is {examples[0].score:g}, so that nothing is told apart; add rows "
                "with other scores"
            )
        return []

    def _check_settings(self, objective: Objective) -> None:
        """Raise UserError for a setting that has no part in the objective."""
        own = {"symmetric": ("contrastive", "simcse"), "score_range": ("cosine",)}
        for name, others in own.items():
            if getattr(self.config, name) and objective not in others:
                raise UserError(
                    f"{name} is of {' and '.join(others)}, and the objective is {objective}; "
                    "leave it out"
                )

    def target(self, example: EmbedExample) -> float:
        """The score, or NaN."""
        return nan if example.score is None else example.score

    def look_over(self, groups: Items[Group]) -> None:
        """Decide what is learned, and which scores are the ends of the range."""
        objective = self.config.objective or USUAL[_kind(groups[0])]
        span = self.config.score_range
        if objective == "cosine" and span is None:
            scores = np.array([group.target for group in groups], np.float64)
            low, high = float(scores.min()), float(scores.max())
            span = (0.0, 1.0) if low >= -1 and high <= 1 else (low, high)
        found = {"objective": objective, "score_range": span}
        self.config = self.config.model_copy(update=found)

    def readings(self, groups: Items[Group]) -> list[Group]:
        """As they are; of simcse, every text twice, for dropout to tell the two apart."""
        if self.config.objective != "simcse":
            return list(groups)
        return [replace(group, sequences=_twice(group.sequences)) for group in groups]

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Say which text each sequence is a window of, and what the texts are to one another.

        `embed_owner` [N] int64 numbers the texts of the batch. Of each text [G]: `embed_role` int64
        (0: an anchor, 1: its positive or pair, above: its negatives), and, with scores,
        `embed_score` fp32; without, `embed_same` int64: a number that texts of the same tokens
        share, in whichever batch.
        """
        owner: list[int] = []
        roles: list[int] = []
        same: list[bytes] = []
        scores: list[float] = []
        for group in groups:
            for role, windows in groupby(group.sequences, key=lambda sequence: sequence.text):
                ids = [s.ids.tobytes() for s in windows]
                owner += [len(roles)] * len(ids)
                roles.append(role)
                same.append(blake2b(b"".join(ids), digest_size=8).digest())
                scores.append(float(group.target))
        if self.config.objective in ("cosent", "cosine"):
            more = {SCORE: torch.tensor(scores)}
        else:
            more = {SAME: torch.from_numpy(np.frombuffer(b"".join(same), np.int64).copy())}
        return batch.with_targets(
            embed_owner=torch.tensor(owner), embed_role=torch.tensor(roles), **more
        )

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        raise TypeError("sentence vectors have no head: they are the encoder's own")

    def read(self, model: Model, batch: Batch) -> Tensor:
        return rows_of(batch, self._pooling)

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"embed": float((batch.targets[ROLE] == 0).sum())}

    @property
    def compares(self) -> Items[str]:
        """All but distances, which are of one row each."""
        match self.config.objective:
            case "cosine":
                return ()
            case "cosent":
                return (ROLE, SCORE)
            case _:
                return (ROLE, SAME)

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        return self.compared(self.vectors(model, rows, batch), batch.targets)

    def vectors(self, model: Model, rows: Tensor, batch: Batch) -> Tensor:
        """Of each text of the batch, of length 1."""
        owner, texts = batch.targets["embed_owner"], len(batch.targets[ROLE])
        windows = pooled(rows, batch, self._pooling)
        return F.normalize(joined(windows, batch.offsets.diff(), owner, texts), dim=-1)

    def compared(self, vectors: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each Example its share; cosent, which is of a whole step, as often as it has rows."""
        c, roles = self.config, targets[ROLE]
        parts = [mask.nonzero().flatten() for mask in (roles == 0, roles == 1, roles > 1)]
        anchors, positives, negatives = (vectors[part] for part in parts)
        if c.objective in ("contrastive", "simcse"):
            hidden, back = no_negatives(*(targets[SAME][part] for part in parts))
            candidates = torch.cat([positives, negatives])
            loss = in_batch(anchors, candidates, hidden, c.temperature)
            if c.symmetric:
                loss = (loss + in_batch(positives, anchors, back, c.temperature)) / 2
            return {"embed": loss}
        scores, similarities = targets[SCORE][parts[0]], (anchors * positives).sum(-1)
        if c.objective == "cosent":
            return {"embed": cosent(similarities, scores, c.temperature) * len(scores)}
        low, high = c.score_range or (0.0, 1.0)
        return {"embed": cosine_distance(similarities, (scores - low) / (high - low))}

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        """`vectors` [N, H] fp32, of each sequence."""
        encoder = model.encoder
        read = rows_of(batch, self._pooling)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"vectors": pooled(rows, batch, self._pooling)}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """Of each window its `vector` [H], its `tokens`, and which `text` it is of."""
        return [
            {"vector": row, "tokens": len(sequence), "text": sequence.text}
            for row, sequence in zip(output["vectors"].numpy(), batch.sequences, strict=True)
        ]

    def join(self, example: EmbedExample, parts: list[Part]) -> EmbedPrediction:
        """The mean of a text's windows, weighed by their tokens; of length 1 if that is asked."""
        found = []
        for _, windows in groupby(parts, key=lambda part: part["text"]):
            own = list(windows)
            weights = [part["tokens"] for part in own]
            mean = np.average([part["vector"] for part in own], 0, weights)
            found.append(own[0]["vector"] if len(own) == 1 else mean.astype(np.float32))
        both = found[:2]
        alike = cosine(*both) if len(both) == 2 else None
        if self.config.normalize:
            both = [v / max(float(np.linalg.norm(v)), 1e-12) for v in both]
        pair = vector(both[1]) if len(both) == 2 else None
        return EmbedPrediction(vector=vector(both[0]), vector_pair=pair, similarity=alike)

    def remarks(self, examples: Items[EmbedExample], parts: Items[list[Part]]) -> list[str]:
        few = few_rows(len(examples))
        if any(kind_of(example) != "texts" for example in examples):
            return few
        return [
            "dev rows have neither positives nor scores: only how far apart their vectors lie was "
            "judged; give --dev with scores to know what they are worth",
            *few,
        ]

    def measured(self, examples: Items[EmbedExample]) -> Collection[str]:
        kinds = {kind_of(example) for example in examples}
        return [name for kind in NAMES if kind in kinds for name in NAMES[kind]]

    def metrics(
        self, predictions: Items[EmbedPrediction], examples: Items[EmbedExample]
    ) -> Mapping[str, float]:
        """Of scored rows correlations, of pairs what is found, of texts alone their spread."""
        if not examples:
            usual = {objective: kind for kind, objective in USUAL.items()} | {"cosine": "scored"}
            return dict.fromkeys(NAMES[usual[self.config.objective or "contrastive"]], 0.0)
        rows = list(zip(predictions, examples, strict=True))
        found: dict[str, float] = {}
        for kind in NAMES:
            own = [pair for pair in rows if kind_of(pair[1]) == kind]
            if not own:
                continue
            given, asked = zip(*own, strict=True)
            match kind:
                case "pairs":
                    found |= retrieved(given, asked)
                case "scored":
                    found |= scored(given, asked)
                case "texts":
                    found["spread"] = spread(unit([p.vector for p in given]))
        return found


def kind_of(example: EmbedExample) -> Kind:
    """What a row teaches, or is judged by."""
    if example.positive is not None:
        return "pairs"
    return "texts" if example.score is None else "scored"


def _kind(group: Group) -> Kind:
    """The same of what was made of a row."""
    if group.sequences[-1].text == 0:
        return "texts"
    assert isinstance(group.target, float)
    return "pairs" if isnan(group.target) else "scored"


def _marked(sequences: list[Sequence], text: int) -> list[Sequence]:
    return [replace(s, text=text) for s in sequences] if text else sequences


def _twice(sequences: list[Sequence]) -> list[Sequence]:
    own = [s for s in sequences if s.text == 0]
    return [*own, *_marked(own, 1)]


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _texts(example: EmbedExample) -> list[str]:
    """The text, its positive or pair, and its negatives, in this order."""
    other = example.text_pair if example.positive is None else example.positive
    return [example.text, *([] if other is None else [other]), *example.hard]
