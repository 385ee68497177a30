"""Reranking: candidates of a query in order, by reading each together with the query."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from clozeworks.core.errors import UserError
from clozeworks.core.records import Example, Ints, Prediction, Record, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.data.draw import permutation
from clozeworks.metrics.rank import rank_metrics
from clozeworks.model.heads import Model
from clozeworks.tasks._scored import (
    Floats,
    Naming,
    Scored,
    ScoredConfig,
    answerable,
    listwise,
    place_of,
)
from clozeworks.tasks.base import Draw, Part
from clozeworks.text.tokenizer import Tokenizer

LOOKED_AT = 10
"""How many of the first candidates the training's numbers look at."""


class RerankConfig(ScoredConfig):
    """How queries and candidates are read and judged."""

    kept: ClassVar[str] = "query_length"

    query_length: int = Field(default=64, ge=1)
    """Most tokens of a query; longer ones are cut, and counted."""
    loss: Literal["listwise", "pointwise"] = "listwise"
    """What is learned: the right candidates among those of their query (listwise), or of each by
    itself whether it is right (pointwise)."""
    drawn: int = Field(default=0, ge=0)
    """Most candidates of a query that a training step reads, right ones among them, drawn anew each
    epoch; 0 reads all."""
    relevant_form: Naming | Literal["grades"] = "text"
    """How the right candidates are named: by their texts, numbers from 0 or from 1, letters (A), or
    by a grade for every candidate (grades)."""


class RerankExample(Example):
    """A query, candidates, and which of them are right."""

    query: str
    """What is asked for."""
    candidates: list[str]
    """The texts to be put in order."""
    relevant: str | list[str] | None = None
    """The right ones: their texts, or numbers, letters or grades where --relevant-form says so; an
    empty list where none is."""

    @field_validator("candidates")
    @classmethod
    def _some(cls, candidates: list[str]) -> list[str]:
        if not candidates:
            raise ValueError("[] is nothing to put in order; give one candidate or more")
        return candidates


class Ranked(Record):
    """One candidate at its place."""

    text: str
    index: int
    """Its number among those given, counted from 0."""
    score: float
    """What it was put in order by, a logit: higher is better, and only comparing says something."""


class RerankPrediction(Prediction):
    """The candidates of one query, the best first."""

    ranked: list[Ranked]
    """Those of equal score in the order given."""


class Rerank(Scored):
    """Put the candidates of a query in order."""

    name = "rerank"
    head_name = "classify"  # a classifier of one logit, as cross-encoders elsewhere have it
    Config, Example, Answer = RerankConfig, RerankExample, RerankPrediction
    cut_by = ("query_length",)
    free = frozenset({"relevant_form"})
    answers = frozenset({"relevant"})
    config: RerankConfig

    @property
    def question(self) -> str:
        return f"{self.name!r} with relevant_form {self.config.relevant_form!r}"

    # === Data ===

    def features(
        self, examples: Items[RerankExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        """Each candidate as `[CLS] query [SEP] candidate [SEP]`, windows over the candidate."""
        queries = tokenizer.tokenize([e.query for e in examples])
        texts = iter(tokenizer.tokenize([text for e in examples for text in e.candidates]))
        most, found = self.config.query_length, []
        for example, ids in zip(examples, queries, strict=True):
            kept, cut = ids[:most], max(0, len(ids) - most)
            group: list[Sequence] = []
            for i in range(len(example.candidates)):
                group += self.windows_of(kept, next(texts), tokenizer, i, 0 if i else cut)
            found.append(group)
        return found

    @classmethod
    def key(cls, example: RerankExample) -> str:
        return example.query

    @classmethod
    def shown(cls, example: RerankExample) -> tuple[list[str], None]:
        """The query, and the longest candidate."""
        return [example.query, max(example.candidates, key=len)], None

    def check(self, example: RerankExample) -> None:
        super().check(example)
        self.target(example)

    def labels_in(self, examples: Items[RerankExample]) -> list[str]:
        """None; raises UserError where no candidate is right, or all of all queries are."""
        grades = np.concatenate([self.target(example) for example in examples])
        if not grades.any() or (grades > 0).all():
            which = "every" if grades.any() else "no"
            raise UserError(f"{which} candidate of all rows is relevant; there is nothing to learn")
        return []

    def target(self, example: RerankExample) -> Floats:
        """The grade of each candidate, [n] fp64: 0 is not relevant, and a name counts as 1."""
        grades, texts = np.zeros(len(example.candidates)), example.candidates
        given = example.relevant
        names = [given] if isinstance(given, str) else given or []
        try:
            if self.config.relevant_form == "grades":
                return _grades(names, len(grades)) if given is not None else grades
            for name in names:
                form = self.config.relevant_form
                place = place_of(name, texts, form, "relevant_form", ("grades",))
                if grades[place] and form != "text":
                    raise UserError(
                        f"{name!r} is there twice; name a candidate once, or, where there is a "
                        "number for each, choose grades as relevant_form"
                    )
                grades[place] = 1
        except UserError as error:
            raise UserError(f"relevant: {error}") from error
        return grades

    def shares(self, target: Floats, count: int) -> Floats:
        """Listwise a grade's share of their sum; pointwise of the highest, which is 1 at least."""
        if np.ndim(target) == 0:  # of a row without an answer, which is only to be predicted
            return np.zeros(count)
        whole = max(1.0, target.max()) if self.config.loss == "pointwise" else target.sum()
        return np.asarray(target / max(whole, 1e-12), dtype=np.float64)

    def collate(self, groups: Items[Group], draw: Draw) -> Batch:
        """A batch of the groups, of each no more candidates than `drawn`."""
        if self.config.drawn:
            groups = [self._thinned(group, draw) for group in groups]
        return super().collate(groups, draw)

    def _thinned(self, group: Group, draw: Draw) -> Group:
        """The group with `drawn` candidates: right ones first, but room for one that is not."""
        grades, most = np.asarray(group.target), max(2, self.config.drawn)
        if len(grades) <= most:
            return group
        order = permutation(len(grades), "rerank", draw.seed, draw.epoch, group.index)
        right, wrong = order[grades[order] > 0], order[grades[order] <= 0]
        right = right[: max(most - len(wrong), most - 1)]
        kept = np.sort(np.concatenate([right, wrong[: most - len(right)]]))
        return _only(group, kept)

    # === Model ===

    def counts(self, batch: Batch) -> dict[str, float]:
        """Queries with something relevant; pointwise, candidates."""
        if self.config.loss == "pointwise":
            return {"rerank": float(len(batch.targets["shares"]))}
        return {"rerank": float(answerable(batch).sum())}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        scores, shares = self.joined(model, rows, batch), batch.targets["shares"]
        if self.config.loss == "pointwise":
            loss = F.binary_cross_entropy_with_logits(scores, shares, reduction="sum")
            return {"rerank": loss}
        return {"rerank": listwise(scores, batch)}

    # === Prediction ===

    def join(self, example: RerankExample, parts: list[Part]) -> RerankPrediction:
        found: dict[str, float] = {}  # the same text scores the same, rounding or not
        pairs = zip(example.candidates, self.scored(parts).tolist(), strict=True)
        scores = np.array([found.setdefault(text, score) for text, score in pairs])
        order = np.argsort(-scores, kind="stable").tolist()
        ranked = [
            Ranked(text=example.candidates[i], index=i, score=float(scores[i])) for i in order
        ]
        return RerankPrediction(ranked=ranked)

    def metrics(
        self, predictions: Items[RerankPrediction], examples: Items[RerankExample]
    ) -> Mapping[str, float]:
        grades = [named(self.target(example)) for example in examples]
        if not any(any(g.values()) for g in grades):
            return {"ndcg": 0.0, "mrr": 0.0, "map": 0.0}
        lists = [[str(r.index) for r in p.ranked] for p in predictions]
        found = rank_metrics(lists, grades, [LOOKED_AT])
        return {"ndcg": found.ndcg[LOOKED_AT], "mrr": found.mrr[LOOKED_AT], "map": found.map}


def named(grades: Floats) -> dict[str, float]:
    """Grades by the numbers of their candidates, as `rank_metrics` takes them."""
    return {str(i): grade for i, grade in enumerate(grades.tolist())}


def _grades(names: list[Any], count: int) -> Floats:
    if len(names) != count:
        raise UserError(f"{len(names)} grades for {count} candidates; give each candidate a grade")
    try:
        grades = np.array([float(name) for name in names])
    except ValueError:
        wrong = next(name for name in names if not _is_number(name))
        raise UserError(f"grade {wrong!r} is no number; write 0 for what is not relevant") from None
    if not np.isfinite(grades).all() or (grades < 0).any():
        raise UserError(f"grades {names} must be finite and not below 0; 0 is not relevant")
    return grades


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _only(group: Group, kept: Ints) -> Group:
    """The group with some of its alternatives, numbered anew."""
    places = {int(old): new for new, old in enumerate(kept)}
    sequences = [replace(s, text=places[s.text]) for s in group.sequences if s.text in places]
    return replace(group, sequences=sequences, target=np.asarray(group.target)[kept])
