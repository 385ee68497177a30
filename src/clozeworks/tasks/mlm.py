"""Masked language modelling: hide some tokens, ask for them back (Devlin et al. 2018, 3.1)."""

from collections.abc import Sequence as Items
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clozeworks.core.config import Settings
from clozeworks.core.course import Course
from clozeworks.core.errors import UserError
from clozeworks.core.records import Bools, Example, Ints, Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.data.draw import below, uniform
from clozeworks.data.masking import LONGEST, Chosen, Counters, Rule, Unit, choose
from clozeworks.data.names import Names
from clozeworks.model.cloze import Workspace, cloze_loss, cloze_right
from clozeworks.model.heads import AnyEncoder, Model, TokenHead
from clozeworks.model.rows import rounded
from clozeworks.tasks._fill import (
    Filling,
    MlmPrediction,
    Scored,
    Scoring,
    answers,
    likelihood_of,
    parts_of,
    windows_of,
)
from clozeworks.tasks.base import Draw, Output, Part, Task, Terms
from clozeworks.text.surface import mark_of, put
from clozeworks.text.tokenizer import Tokenizer

__all__ = ["Filling", "Masking", "Mlm", "MlmConfig", "MlmExample", "MlmPrediction", "Scored"]


class Masking(Settings):
    """How tokens are hidden."""

    rate: float | str = 0.15
    """Share of a sequence's ordinary tokens to predict; at least one is. "0.3 -> 0.15" goes from
    one share to another over the run."""
    masked: float | str = 0.8
    """Of those, the share replaced by [MASK]; it may change over the run too."""
    random: float | str = 0.1
    """Of those, the share replaced by a random ordinary token; the rest stay as they are."""
    unit: Unit = "token"
    """What is hidden together: token, word, span (of words), ngram (of words), or entity (words,
    and the names of a list)."""
    longest: int | None = Field(default=None, ge=1)
    """Most words of a span or n-gram; by default 10 and 3."""
    stop: float = Field(default=0.2, gt=0, lt=1)
    """Chance that a span ends with each of its words: 0.2 makes 3.8 words on average."""
    most_pieces: int = Field(default=16, ge=1)
    """Longest word, in pieces, that may be hidden; longer ones, such as addresses, are left."""
    names: Path | None = None
    """File of names for `entity`, one a line, in UTF-8."""
    decided: Literal["token", "unit"] = "token"
    """Whether masked, random or kept is decided for each token, or once for all of a unit."""
    masks: Literal["dynamic", "static"] = "dynamic"
    """Whether each epoch hides other tokens, or the same ones as the first."""

    @property
    def changes(self) -> bool:
        """Whether anything changes over the run."""
        courses = (Course.of(value) for value in (self.rate, self.masked, self.random))
        return any(course.first != course.last for course in courses)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        rate, masked, random = (Course.of(v) for v in (self.rate, self.masked, self.random))
        if not 0 < min(rate) <= max(rate) < 1:
            raise ValueError(f"rate {self.rate} is not between 0 and 1")
        for name, share in (("masked", masked), ("random", random)):
            if not 0 <= min(share) <= max(share) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is no share from 0 to 1")
        if any(m + r > 1 + 1e-9 for m, r in zip(masked, random, strict=True)):
            raise ValueError(
                f"masked {self.masked} and random {self.random} together are more than 1"
            )
        if self.masks == "static" and self.changes:
            raise ValueError("masks = 'static' hides the same at all times; give fixed shares")
        if (self.unit == "entity") != (self.names is not None):
            raise ValueError("unit = 'entity' and names, a file of them, go together")
        if self.longest is not None and self.unit not in LONGEST:
            raise ValueError(f"longest is for units {' and '.join(LONGEST)}, not {self.unit!r}")
        return self


class MlmConfig(Masking):
    """How tokens are hidden, and filled in."""

    top: int = Field(default=5, gt=0)
    """How many fillings to name for each [MASK] when predicting, where no candidates are given."""
    scoring: Scoring = "token"
    """How likely a text without [MASK] is: each token hidden alone (token), or with those of its
    word that come after it (within_word), so that the end of a word does not give it away."""


class MlmExample(Example):
    """A text with one or more [MASK] in it, or a whole one."""

    text: str
    """The text; write [MASK] where a token is to be filled in. Of one without, it is told how
    likely it is."""
    candidates: list[str] | None = None
    """Words, each a piece of the vocabulary, that may stand at a [MASK]; absent: any piece."""


class Mlm(Task):
    """Predict hidden tokens from both sides (pretraining; fill-in-the-blank)."""

    name = "mlm"
    Config, Example, Answer = MlmConfig, MlmExample, MlmPrediction
    free = frozenset({"top", "scoring"})
    from_shards = True
    answers = frozenset()
    config: MlmConfig

    def __init__(self, config: Settings, vocabulary: Any, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self._ordinary = np.ones(vocabulary.size, dtype=np.bool_)
        self._ordinary[list(vocabulary.special)] = False
        self._rate, self._masked, self._random = map(
            Course.of, (self.config.rate, self.config.masked, self.config.random)
        )
        self._space = Workspace()
        self.names: Names | None = None
        """The names to hide whole, once somebody has read them from their file."""

    @property
    def needs_words(self) -> bool:
        return self.config.unit != "token"

    @cached_property
    def judged(self) -> "Mlm":
        """Fifteen in a hundred single tokens, masked as BERT's, whatever the training does."""
        judged = Mlm(MlmConfig(), self.vocabulary)
        judged._space = self._space
        return judged

    def features(self, examples: Items[MlmExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        texts, words = [self._read(e) for e in examples], [e.candidates for e in examples]
        return windows_of(texts, words, tokenizer, self.positions)

    def _read(self, example: MlmExample) -> str:
        """The text with the tokenizer's own mark where something is to be filled in."""
        return example.text.replace("[MASK]", self.vocabulary.pieces[self.vocabulary.mask])

    def is_labelled(self, example: MlmExample) -> bool:
        """Every text can be judged: its own tokens are the answers."""
        return True

    def check(self, example: MlmExample) -> None:
        """Raise UserError for a text with something left to fill in: texts are judged whole."""
        if self.vocabulary.pieces[self.vocabulary.mask] in self._read(example):
            raise UserError("a [MASK]: texts are judged whole; `predict` fills them in")

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Hide tokens: `mlm_rows` [M] int64 and the true ids `mlm_labels` [M] int64."""
        ids = batch.input_ids.numpy().copy()
        key = Counters.of(batch, draw.seed, 0 if self.config.masks == "static" else draw.epoch)
        rows, units = self._chosen(ids, batch.words, draw.progress, key)
        labels = ids[rows]
        at = key.of_tokens(rows)
        action = uniform(
            "mlm.action", *(at if self.config.decided == "token" else key.of_tokens(units))
        )
        drawn = self.vocabulary.drawable[
            below(len(self.vocabulary.drawable), "mlm.replacement", *at)
        ]
        mask_below = self._masked.at(draw.progress)
        random_below = mask_below + self._random.at(draw.progress)
        changed = np.where(action < random_below, drawn, labels)
        ids[rows] = np.where(action < mask_below, self.vocabulary.mask, changed)
        return batch.with_targets(
            input_ids=torch.from_numpy(ids),
            mlm_rows=torch.from_numpy(rows),
            mlm_labels=torch.from_numpy(labels),
        )

    def _chosen(self, ids: Ints, words: Bools | None, progress: float, key: Counters) -> Chosen:
        """The tokens to predict. Words end at [CLS] and [SEP], wherever a window was cut."""
        breaks = np.zeros(len(ids), dtype=np.bool_)
        breaks[1:] = ((ids == self.vocabulary.cls) | (ids == self.vocabulary.sep))[:-1]
        breaks[key.offsets[:-1]] = True
        begins = breaks if words is None else words | breaks
        if self.needs_words and words is None:
            raise UserError(
                f"unit = {self.config.unit!r} needs to know where words begin, and these sequences "
                "do not tell; prepare the corpus again with --words auto"
            )
        if self.names is not None:
            begins = self.names.join(ids, begins)
        rule = Rule(
            self.config.unit,
            self._rate.at(progress),
            self.config.longest or LONGEST.get(self.config.unit, 1),
            self.config.stop,
            self.config.most_pieces,
        )
        return choose(rule, self._ordinary[ids], begins, breaks, key)

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return TokenHead(encoder.config)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["mlm_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"mlm": float(len(batch.targets["mlm_rows"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        head, weight, labels = self._stood(model, batch)
        return {"mlm": cloze_loss(head(rounded(rows)), weight, head.bias, labels, self._space)}

    def right(self, model: Model, rows: Tensor, batch: Batch) -> Terms:
        head, weight, labels = self._stood(model, batch)
        return {"mlm": cloze_right(head(rounded(rows)), weight, head.bias, labels)}

    def _stood(self, model: Model, batch: Batch) -> tuple[TokenHead, Tensor, Tensor]:
        """The head, the output embedding [V, E], and the ids that stood there [M]."""
        head = model.heads["mlm"]
        assert isinstance(head, TokenHead)
        return head, model.encoder.embeddings.tokens.weight, batch.targets["mlm_labels"]

    def predict(self, model: Model, batch: Batch) -> Output:
        """As `answers`: what fills the [MASK]s, how likely the other tokens asked about are."""
        return answers(model, batch, self.vocabulary, (self.config.top, self.config.scoring))

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """As `parts_of`."""
        return parts_of(output, batch, self.vocabulary, self.config.top)

    def join(self, example: MlmExample, parts: list[Part]) -> MlmPrediction:
        """Every token is asked about in one window alone, and windows are in order."""
        holes = [hole for part in parts for hole in part["holes"]]
        if holes:
            best = [fillings[0].token for _, fillings in holes]
            text = put(self._read(example), [place for place, _ in holes], best, self._mark)
            return MlmPrediction(fillings=[fillings for _, fillings in holes], text=text)
        tokens = [
            Scored(token=t, start=a, end=b, log_probability=None if isnan(log) else log)
            for part in parts
            for t, a, b, log in part["scored"]
        ]
        total, perplexity = likelihood_of(tokens)
        return MlmPrediction(
            fillings=[], log_likelihood=total, perplexity=perplexity, tokens=tokens
        )

    @cached_property
    def _mark(self) -> str:
        return mark_of(self.vocabulary.pieces)
