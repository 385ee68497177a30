"""Relations: how two marked spans of a text stand to each other."""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence as Items
from itertools import combinations
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.records import Example, Prediction, Record, Sequence, Vocabulary
from clozeworks.data.batches import Batch, Group
from clozeworks.data.draw import below, permutation
from clozeworks.metrics.calibrate import fit_temperature
from clozeworks.metrics.relation import relation_metrics
from clozeworks.model.heads import AnyEncoder, Model
from clozeworks.model.noise import Dropout
from clozeworks.tasks.base import Draw, Output, Part, Task, few_rows
from clozeworks.text.marked import Stretch, around, mark, marks_of, unused_lacking
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import joined


class RelationConfig(Settings):
    """How texts are read and which label means that there is no relation."""

    max_length: int = Field(default=128, ge=16)
    """Longest sequence in tokens, special tokens and the marks around both spans included; of a
    longer text the window around the spans is read, and what is cut is counted."""
    no_relation: str = ""
    """The label that means that there is no relation: F1 leaves it out; absent: every label is
    one."""
    negatives: float = Field(default=0.0, ge=0)
    """Most pairs of a text's spans that no row relates, as a share of the rows, that are learned
    from as rows without a relation."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values dropped before the classifier in training."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.negatives and not self.no_relation:
            raise ValueError(
                f"negatives = {self.negatives:g} needs a label for them; give one with "
                "--no-relation"
            )
        return self


class Mention(Record):
    """A stretch of the text that takes part in a relation."""

    start: int = Field(ge=0)
    """Its first character, or of tokens its first token, counted from 0."""
    end: int
    """One past its last."""
    type: str | None = None
    """What it is, such as person; read with the text where it is given."""
    text: str | None = None
    """Its characters; where given, they must stand there."""


class RelationExample(Example):
    """A text, or its tokens, two spans of it, and how they are related."""

    either: ClassVar[frozenset[str]] = frozenset({"text", "tokens"})

    text: str | None = None
    """The text; or give its tokens."""
    tokens: list[str] | None = None
    """The words or characters of the text, in order; spans then count these."""
    subject: Mention
    """The first of the two, e1 of labels such as Cause-Effect(e1,e2); it may stand after the
    other."""
    object: Mention
    """The second, e2."""
    label: str | None = None
    """The relation, without white space around it; not needed to predict."""

    @field_validator("label")
    @classmethod
    def _bare(cls, label: str | None) -> str | None:
        return None if label is None else label.strip() or None


class RelationPrediction(Prediction):
    """The relation of one pair of spans."""

    label: str
    """The likeliest relation, from the subject to the object."""
    confidence: float
    """Its calibrated probability."""
    subject: str
    """The subject as it stands in the text."""
    object: str
    """The object as it stands in the text."""
    scores: dict[str, float]
    """The probability of every label."""


class RelationHead(nn.Module):
    """The rows of two opening marks → class logits, [2N, H] → [N, K].

    Both rows side by side, so that it matters which is the subject's (Baldini Soares et al. 2019).
    """

    def __init__(self, encoder: AnyEncoder, num_classes: int, share: float) -> None:
        super().__init__()
        self.dropout = Dropout(share, encoder.noise)
        self.dense = nn.Linear(2 * encoder.config.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.dropout(x.reshape(len(x) // 2, -1)))
        return out


class Relation(Task):
    """Tell how two spans of a text are related."""

    name = "relation"
    Config, Example, Answer = RelationConfig, RelationExample, RelationPrediction
    config: RelationConfig

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self._marks = marks_of(vocabulary)

    @classmethod
    def pieces_lacking(cls, vocabulary: Vocabulary) -> list[str]:
        """What there is too little of to mark two spans with."""
        return unused_lacking(vocabulary)

    @property
    def marks(self) -> list[str]:
        """The pieces around spans, where no text has them."""
        known = self.vocabulary
        return [known.pieces[i] for i in self._marks if i in known.special]

    @property
    def question(self) -> str:
        none = self.config.no_relation
        return f"{self.name!r} with {f'no_relation {none!r}' if none else 'no label for none'}"

    # === Data ===

    def features(
        self, examples: Items[RelationExample], tokenizer: Tokenizer
    ) -> list[list[Sequence]]:
        """The text with marks around both spans; its rows are the subject's and the object's."""
        found = mark([_read(example) for example in examples], tokenizer, self._marks)
        return [[around(one, tokenizer.form, self.config.max_length)] for one in found]

    @classmethod
    def key(cls, example: RelationExample) -> str:
        """The text, so that all its pairs fall on one side."""
        return example.text or joined(example.tokens or [])[0]

    @classmethod
    def shown(cls, example: RelationExample) -> tuple[list[str], str | None]:
        """The text and both spans, which tell its rows apart, and the label."""
        text, spans = _read(example)
        return [text, *(text[span.start : span.end] for span in spans)], example.label

    def stratum(self, example: RelationExample) -> str:
        return example.label or ""

    @classmethod
    def readable(cls, example: RelationExample) -> None:
        """Raise UserError where a span does not lie in the text, or has other characters."""
        _read(example)

    def enlarged(self, examples: Items[RelationExample], draw: Draw) -> list[RelationExample]:
        """With pairs of spans that no row relates, either way, as rows without a relation."""
        pairs = _unrelated(examples) if self.config.negatives else []
        most = int(self.config.negatives * len(examples))
        turned = below(2, "relation.turn", draw.seed, np.arange(len(pairs)))
        made = []
        for i in np.sort(permutation(len(pairs), "relation.pair", draw.seed)[:most]).tolist():
            row, one, other = pairs[i]
            ends = {"subject": other, "object": one} if turned[i] else {"subject": one}
            ends = {"object": other, **ends}
            made.append(row.model_copy(update={**ends, "label": self.config.no_relation}))
        return [*examples, *made]

    def labels_in(self, examples: Items[RelationExample]) -> list[str]:
        names = sorted({str(example.label) for example in examples})
        if len(names) < 2:
            raise UserError(f"there is a single label {names[0]!r}; two or more are needed")
        none = self.config.no_relation
        if none and none not in names:
            made = ", and no text has two spans that no row relates" * bool(self.config.negatives)
            raise UserError(
                f"no row has the label {none!r} of --no-relation{made}{suggestion(none, names)}"
            )
        return names

    def target(self, example: RelationExample) -> int:
        if example.label is None:
            return -1
        if example.label not in self.labels:
            raise UserError(
                f"label {example.label!r} was never seen in training"
                f"{suggestion(example.label, self.labels)}"
            )
        return self.labels.index(example.label)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `marks` [2N], the rows of the opening marks, and `label` [N], both int64."""
        gold = torch.tensor([int(group.target) for group in groups], dtype=torch.int64)
        return batch.with_targets(marks=_openings(batch), label=gold)

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return RelationHead(encoder, len(self.labels), self.config.dropout)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["marks"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"relation": float(len(batch.targets["label"]))}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits = model.heads["relation"](rows).float()
        loss = F.cross_entropy(logits, batch.targets["label"], reduction="sum")
        return {"relation": loss}

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        """`logits` [N, K] fp32."""
        encoder = model.encoder
        read = _openings(batch).to(batch.input_ids.device)
        rows = encoder.encode(encoder.embed(batch), batch, read=read).x
        return {"logits": model.heads["relation"](rows).float()}

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        """`logits` [K]."""
        return [{"logits": logits} for logits in output["logits"].tolist()]

    def join(self, example: RelationExample, parts: list[Part]) -> RelationPrediction:
        text, (subject, other) = _read(example)
        logits = torch.tensor(parts[0]["logits"], dtype=torch.float64)
        chances = torch.softmax(logits / self.calibration.temperature, -1).tolist()
        best = int(np.argmax(chances))
        return RelationPrediction(
            label=self.labels[best],
            confidence=chances[best],
            subject=text[subject.start : subject.end],
            object=text[other.start : other.end],
            scores=dict(zip(self.labels, chances, strict=True)),
        )

    def calibrate(self, examples: Items[RelationExample], parts: Items[list[Part]]) -> Calibration:
        """The temperature at which the dev answers' probabilities are most believable."""
        logits = np.array([part[0]["logits"] for part in parts], dtype=np.float64)
        gold = np.array([self.target(example) for example in examples], dtype=np.int64)
        return Calibration(temperature=fit_temperature(logits, gold))

    def remarks(self, examples: Items[RelationExample], parts: Items[list[Part]]) -> list[str]:
        said = f"calibrated on dev: temperature {self.calibration.temperature:.2f}"
        return [said, *few_rows(len(examples))]

    def metrics(
        self, predictions: Items[RelationPrediction], examples: Items[RelationExample]
    ) -> Mapping[str, float]:
        if not examples:
            return {"macro_f1": 0.0, "micro_f1": 0.0, "accuracy": 0.0}
        gold, given = [str(e.label) for e in examples], [p.label for p in predictions]
        found = relation_metrics(gold, given, self.config.no_relation)
        return {
            "macro_f1": found.macro_f1,
            "micro_f1": found.micro.f1,
            "accuracy": found.accuracy,
        }


def places_of(example: RelationExample) -> tuple[str, Stretch, Stretch]:
    """The text, of tokens too, and the characters of subject and object."""
    text, (subject, other) = _read(example)
    return text, subject, other


def _read(example: RelationExample) -> tuple[str, list[Stretch]]:
    """The text and both spans by characters; raises UserError where they cannot be."""
    if example.text is not None and example.tokens is not None:
        raise UserError("both text and tokens; give one of them")
    text, given, what = example.text or "", None, "characters"
    if example.tokens is not None:
        text, given = joined(example.tokens)
        what = "tokens"
    count = len(text) if given is None else len(given)
    found = []
    for name, mention in (("subject", example.subject), ("object", example.object)):
        start, end = mention.start, mention.end
        if not start < end <= count:
            raise UserError(
                f"{name} from {start} to {end} does not lie within the {count} {what} of its text; "
                "correct start and end (one past the last)"
            )
        if given is not None:
            start, end = int(given[start, 0]), int(given[end - 1, 1])
        if mention.text not in (None, text[start:end]):
            raise UserError(
                f"{name} {mention.text!r} does not stand from {mention.start} to {mention.end} of "
                f"its text ({text[start:end]!r} does); correct start and end"
            )
        found.append(Stretch(start, end, mention.type or ""))
    return text, found


def _unrelated(examples: Items[RelationExample]) -> list[tuple[RelationExample, Mention, Mention]]:
    """Pairs of spans of one text that do not overlap and that no row relates, with such a row."""
    texts: dict[Any, list[RelationExample]] = defaultdict(list)
    for example in examples:
        texts[example.text, tuple(example.tokens or ())].append(example)
    found = []
    for rows in texts.values():
        spans = {(m.start, m.end): m for row in rows for m in (row.subject, row.object)}
        pairs = (((r.subject.start, r.subject.end), (r.object.start, r.object.end)) for r in rows)
        known = set(map(frozenset, pairs))
        for one, other in combinations(sorted(spans), 2):
            if one[1] <= other[0] and frozenset((one, other)) not in known:
                found.append((rows[0], spans[one], spans[other]))
    return found


def _openings(batch: Batch) -> Tensor:
    """The packed rows of each sequence's two opening marks, [2N] int64."""
    rows = [
        s.rows + first
        for first, s in zip(batch.firsts.tolist(), batch.sequences, strict=True)
        if s.rows is not None
    ]
    return torch.from_numpy(np.concatenate(rows))
