"""Answering questions from a text: where in it the answer stands, or that it is not there."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from typing import Any, Self

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field, model_validator
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.log import counted
from clozeworks.core.records import Sequence
from clozeworks.data.batches import Batch, Group, bounds
from clozeworks.metrics.qa import Rules, best_threshold, cmrc_score, qa_metrics, squad_score
from clozeworks.model.heads import AnyEncoder, ClassHead, Model
from clozeworks.model.losses import log_sums
from clozeworks.tasks._questions import Candidate, QaExample, QaPrediction, texts_of
from clozeworks.tasks.base import Draw, Output, Part, Task, few_rows
from clozeworks.text.alphabet import is_chinese
from clozeworks.text.tags import Span, units_of
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import paired

__all__ = ["Qa", "QaConfig", "QaExample", "QaPrediction"]

KEPT = 20
"""Likeliest answers of a window that are held against those of the others."""
PASSED_OVER = -1
"""The place of an answer that is known, but not where: nothing is learned of it."""


class QaConfig(Settings):
    """How texts are read and answers given."""

    max_length: int = Field(default=256, ge=32)
    """Longest sequence in tokens, question and special tokens included; longer texts are read in
    windows."""
    overlap: int = Field(default=96, ge=0)
    """Tokens of the text that two windows share."""
    question_length: int = Field(default=64, ge=1)
    """Most tokens of a question; longer ones are cut, and counted."""
    answer_length: int = Field(default=30, ge=1)
    """Most tokens of an answer."""
    candidates: int = Field(default=5, ge=1, le=KEPT)
    """How many answers a prediction lists."""
    margin: float | None = None
    """How much more than the best answer "no answer" may score before none is given; absent: what
    the dev set told."""
    rules: Rules = "squad"
    """How answers are compared: squad (words, of English), or cmrc (characters, of Chinese)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values dropped before the head in training."""

    @model_validator(mode="after")
    def _room_for_text(self) -> Self:
        if self.question_length + self.overlap + 8 > self.max_length:
            raise ValueError(
                f"question_length {self.question_length} and overlap {self.overlap} leave no room "
                f"in max_length {self.max_length}"
            )
        return self


class Qa(Task):
    """Find the answer to a question in a text, or that it is not there."""

    name = "qa"
    Config, Example, Answer = QaConfig, QaExample, QaPrediction
    cut_by = ("question_length",)
    free = frozenset({"answer_length", "candidates", "margin", "rules"})
    answers = frozenset({"answers"})
    windows = True
    config: QaConfig
    too_long = 0
    """Answers to learn from that are too long to be given."""

    @property
    def question(self) -> str:
        return f"{self.name!r} by the rules of {self.config.rules}"

    # === Data ===

    def features(self, examples: Items[QaExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        c = self.config
        limits = c.max_length, c.overlap, c.question_length
        return [paired(e.question, e.context, tokenizer, limits) for e in examples]

    @classmethod
    def key(cls, example: QaExample) -> str:
        """The context, so that all questions about it fall on one side."""
        return example.context

    def check(self, example: QaExample) -> None:
        super().check(example)
        self.target(example)

    def target(self, example: QaExample) -> Any:
        """The answers [n, 2] int64 by characters, PASSED_OVER where only their words are known."""
        answers = example.answers
        if answers is None:
            return np.zeros((0, 2), dtype=np.int64)
        if len(answers.text) != len(answers.answer_start):
            raise UserError(
                f"{len(answers.text)} answers and {len(answers.answer_start)} places; give each "
                "answer its answer_start"
            )
        rows = []
        for text, start in zip(answers.text, answers.answer_start, strict=True):
            if start < PASSED_OVER:
                raise UserError(f"answer_start {start} is no place; correct it, or write -1")
            if not text:
                raise UserError(
                    "an answer is empty; give its text, or no answers at all ([] and []) where "
                    "the context has none"
                )
            there = example.context[start : start + len(text)] if start >= 0 else text
            if there != text:
                raise UserError(
                    f"answer {text!r} does not stand at character {start} of its context "
                    f"({there!r} does); correct answer_start, or write -1"
                )
            rows.append((start, start + len(text)) if start >= 0 else (PASSED_OVER, PASSED_OVER))
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    def look_over(self, groups: Items[Group]) -> None:
        """Count answers too long to be given; where some questions have none, none may be given.

        Until dev has said from which margin on, no answer competes with the best one as it is.
        """
        self.too_long = sum(self._never_given(group) for group in groups)
        if any(not len(group.target) for group in groups):  # type: ignore[arg-type]  # as target
            self.calibration = Calibration(margin=0.0)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `qa_rows` [M] int64, their `qa_bounds` [N + 1], and `qa` [N, 2] int64.

        Rows are each sequence's first token, which stands for no answer, and those of the text;
        gold are the first and last token among a sequence's rows, PASSED_OVER to learn nothing.
        """
        rows, ends = _asked(batch)
        gold = [_place(s, group.target) for group in groups for s in group.sequences]
        places = torch.tensor(gold, dtype=torch.int64).reshape(-1, 2)
        return batch.with_targets(qa_rows=rows, qa_bounds=ends, qa=places)

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return ClassHead(encoder, 2, self.config.dropout)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["qa_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"qa": float((batch.targets["qa"][:, 0] != PASSED_OVER).sum())}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The mean of both ends' cross-entropies, each over the rows of its own sequence."""
        logits, gold = self._logits(model, rows), batch.targets["qa"]
        ends = batch.targets["qa_bounds"]
        learned = gold[:, 0] != PASSED_OVER
        places = ends[:-1, None] + gold.clamp_min(0)
        own = logits.gather(0, places)
        losses = (log_sums(logits, ends) - own).mean(1)
        return {"qa": losses.masked_fill(~learned, 0.0).sum()}

    def _logits(self, model: Model, rows: Tensor) -> Tensor:
        logits: Tensor = model.heads["qa"](model.token_vectors(rows)).float()
        return logits

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        """`logits` [M, 2] fp32 of being the first and the last token, of the rows of `mark`."""
        encoder = model.encoder
        rows = _asked(batch)[0].to(batch.input_ids.device)
        x = encoder.encode(encoder.embed(batch), batch, read=rows).x
        return {"logits": self._logits(model, x)}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """Of each window the score of `no` answer, its best `spans` (score, start, end), and the
        `window` itself (start, end), all by characters.
        """
        ends, logits = _asked(batch)[1].tolist(), output["logits"].double().numpy()
        parts: list[Part] = []
        for i, sequence in enumerate(batch.sequences):
            own, units = logits[ends[i] : ends[i + 1]], sequence.units
            assert units is not None
            window = (int(units[0, 0]), int(units[-1, 1])) if len(units) else (0, 0)
            spans = self._best(own[1:, 0], own[1:, 1], units)
            parts.append({"no": float(own[0].sum()), "spans": spans, "window": window})
        return parts

    def _best(self, first: Any, last: Any, units: Any) -> list[tuple[float, int, int]]:
        """The KEPT likeliest stretches of at most `answer_length` tokens, the first first."""
        if not len(units):
            return []
        length = min(self.config.answer_length, len(units))
        later = np.append(last, np.full(length - 1, -np.inf))
        scores = (first[:, None] + sliding_window_view(later, length)).ravel()
        some = np.argpartition(-scores, min(KEPT, len(scores)) - 1)[:KEPT]
        found = []
        for place in sorted(some.tolist(), key=lambda place: (-scores[place], place)):
            start, more = divmod(place, length)
            if np.isfinite(scores[place]):
                span = int(units[start, 0]), int(units[start + more, 1])
                found.append((float(scores[place]), *span))
        return found

    def join(self, example: QaExample, parts: list[Part]) -> QaPrediction:
        """The best of all windows; no answer scores what it does where it scores least."""
        best = _by_most_context(parts)
        no = min(part["no"] for part in parts)
        ranked = sorted(best.items(), key=lambda item: -item[1])[:KEPT]
        chances = _softmax([no, *(score for _, score in ranked)])
        candidates = [
            Candidate(text=example.context[start:end], start=start, end=end, probability=chance)
            for ((start, end), _), chance in zip(ranked, chances[1:], strict=True)
        ]
        margin = no - ranked[0][1] if ranked else 0.0
        said = {"margin": margin, "candidates": candidates[: self.config.candidates]}
        limit = self.calibration.margin
        if not candidates or (limit is not None and margin > limit):
            return QaPrediction(answer=None, start=None, end=None, confidence=chances[0], **said)
        first = candidates[0]
        place = {"answer": first.text, "start": first.start, "end": first.end}
        return QaPrediction(**place, confidence=first.probability, **said)

    def calibrate(self, examples: Items[QaExample], parts: Items[list[Part]]) -> Calibration:
        """Up to which margin an answer is given; always, where every dev question has one."""
        gold = [texts_of(example) for example in examples]
        if all(gold):
            return Calibration()
        self.calibration = Calibration()
        given = [self.join(e, p) for e, p in zip(examples, parts, strict=True)]
        score = squad_score if self.config.rules == "squad" else cmrc_score
        worth = [score(g, p.answer or "").f1 for g, p in zip(gold, given, strict=True)]
        found = best_threshold(worth, [bool(g) for g in gold], [p.margin for p in given])
        return Calibration(margin=found.value)

    def as_set(self, calibration: Calibration) -> Calibration:
        margin = self.config.margin
        return calibration if margin is None else calibration.model_copy(update={"margin": margin})

    def remarks(self, examples: Items[QaExample], parts: Items[list[Part]]) -> list[str]:
        rough = [*self._too_long(), *self._other_rules(examples), *few_rows(len(examples))]
        limit = self.calibration.margin
        if limit is None:
            return ["every dev question has an answer, so that one is always given", *rough]
        given = [self.join(e, p) for e, p in zip(examples, parts, strict=True)]
        none = sum(p.answer is None for p in given) / len(given)
        by = "fitted on dev" if self.config.margin is None else "as set"
        return [
            f"{by}: no answer is given where it scores {limit:.2f} more than the best "
            f"one, which is so for {none:.1%} of dev",
            *rough,
        ]

    def _never_given(self, group: Group) -> bool:
        """Whether the answer that is learned is too long to be given, or in no window whole."""
        places = [_place(sequence, group.target) for sequence in group.sequences]
        given = any(last and last - first < self.config.answer_length for first, last in places)
        return not given and any(_located(group.target))

    def _too_long(self) -> list[str]:
        """What `look_over` has counted."""
        if not self.too_long:
            return []
        answers = counted(self.too_long, "answer", "answers")
        return [
            f"{answers} to learn from have over {self.config.answer_length} tokens, more than are "
            "ever given (--answer-length, in predicting too), or no window holds them (--overlap)"
        ]

    def _other_rules(self, examples: Items[QaExample]) -> list[str]:
        """A remark where rules that part words at spaces judge text that has none."""
        gold = [text for example in examples for text in texts_of(example)]
        chinese = sum(any(map(is_chinese, text)) for text in gold)
        if self.config.rules != "squad" or 2 * chinese <= len(gold):
            return []
        return [
            f"{chinese:,} of {counted(len(gold), 'answer', 'answers')} on dev hold Chinese, which "
            "rules = squad compares whole, since no space parts its words: --rules cmrc compares "
            "it by characters"
        ]

    def metrics(
        self, predictions: Items[QaPrediction], examples: Items[QaExample]
    ) -> Mapping[str, float]:
        if not examples:
            return {"f1": 0.0, "exact": 0.0}
        given = [p.answer or "" for p in predictions]
        found = qa_metrics([texts_of(e) for e in examples], given, self.config.rules)
        return {"f1": found.f1, "exact": found.exact}


def _place(sequence: Sequence, answers: Any) -> tuple[int, int]:
    """The first and last of a sequence's rows for the first answer that it holds whole.

    0, 0 where it holds none; PASSED_OVER where answers are known, but not one's place.
    """
    if len(answers) and (answers == PASSED_OVER).all():
        return PASSED_OVER, PASSED_OVER
    units = sequence.units
    assert units is not None
    for start, end in _located(answers):
        if len(units) and units[0, 0] <= start and end <= units[-1, 1]:
            found = units_of(Span(start, end, ""), units)
            if found is not None:
                return found.start + 1, found.end
    return 0, 0


def _by_most_context(parts: list[Part]) -> dict[tuple[int, int], float]:
    """The score of each stretch in the window that shows most of what is around it.

    As the reference implementation of BERT has it (Devlin et al. 2019, run_squad.py): at its end a
    window has not seen what follows, and what it says there does not count where another has.
    """
    windows = [part["window"] for part in parts]
    best: dict[tuple[int, int], float] = {}
    edges: dict[tuple[int, int], float] = {}
    for i, part in enumerate(parts):
        for score, start, end in part["spans"]:
            kept = best if _shows_most(windows, i, (start, end)) else edges
            kept[start, end] = max(score, kept.get((start, end), score))
    return best or edges


def _shows_most(windows: list[tuple[int, int]], i: int, span: tuple[int, int]) -> bool:
    """Whether no window beside the one numbered `i` has more on both sides of a stretch."""

    def room(j: int) -> int:
        return min(span[0] - windows[j][0], windows[j][1] - span[1])

    for step in (-1, 1):  # windows are in order: past one that does not hold it, none does
        j = i + step
        while 0 <= j < len(windows) and room(j) >= 0:
            if room(j) > room(i):
                return False
            j += step
    return True


def _located(answers: Any) -> Iterator[tuple[int, int]]:
    yield from ((start, end) for start, end in answers.tolist() if start != PASSED_OVER)


def _asked(batch: Batch) -> tuple[Tensor, Tensor]:
    """Each sequence's first row and those of its text, [M], and their bounds, [N + 1]."""
    rows = [
        np.concatenate([[0], sequence.rows]) + first
        for first, sequence in zip(batch.firsts.tolist(), batch.sequences, strict=True)
        if sequence.rows is not None
    ]
    ends = bounds(np.array([len(r) for r in rows], dtype=np.int64))
    return torch.from_numpy(np.concatenate(rows).astype(np.int64)), torch.from_numpy(ends)


def _softmax(scores: list[float]) -> list[float]:
    powers = np.exp(np.array(scores) - max(scores))
    shares: list[float] = (powers / powers.sum()).tolist()
    return shares
