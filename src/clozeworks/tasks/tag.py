"""Finding entities: a tag for every word, or a score for every span, read as characters."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor, nn

from clozeworks.core.bundle import Calibration
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.records import Sequence, Vocabulary
from clozeworks.data.batches import Batch, Group
from clozeworks.metrics.tag import tag_metrics
from clozeworks.model.heads import AnyEncoder, Model
from clozeworks.tasks._entities import (
    Entity,
    Found,
    TagExample,
    TagPrediction,
    entities_of,
    read,
    text_of,
)
from clozeworks.tasks._spans import LEAST, NestedSpans
from clozeworks.tasks._tags import WordTags, asked
from clozeworks.tasks.base import Draw, Output, Part, Task, few_rows
from clozeworks.text.tags import Scheme, Span, types_of
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import windowed

__all__ = [
    "Entity",
    "Found",
    "Tag",
    "TagConfig",
    "TagExample",
    "TagPrediction",
    "entities_of",
    "text_of",
]


class TagConfig(Settings):
    """How texts are read and entities told."""

    max_length: int = Field(default=128, ge=16)
    """Longest sequence in tokens, special tokens included; longer texts are read in windows."""
    overlap: int = Field(default=32, ge=2)
    """Tokens that two windows of one text share, half a window at most."""
    scheme: Scheme = "bio"
    """Tags that are learned: bio (first, inside), or bioes (last and single ones of their own)."""
    crf: bool = False
    """Score whole sequences of tags (a conditional random field) instead of each tag by itself."""
    enforce: bool = True
    """Give only tags that may follow one another, whatever each word by itself looks like."""
    nested: bool = False
    """Score spans instead of tagging words, so that entities may overlap or lie inside one
    another."""
    longest: int = Field(default=32, ge=1)
    """Most words, or Chinese characters, of an entity where spans are scored."""
    threshold: float | None = Field(default=None, ge=LEAST, le=1)
    """Least probability of an entity where spans are scored; absent: what the dev set told."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values dropped before the head in training."""

    @model_validator(mode="after")
    def _tags_or_spans(self) -> Self:
        about: dict[str, tuple[str, ...]] = {
            "tags, and nested entities have none": ("crf", "scheme", "enforce")
        }
        if not self.nested:
            about = {"nested entities, which --nested learns": ("longest", "threshold")}
        for what, names in about.items():
            for name in names:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is about {what}")
        return self


class Tag(Task):
    """Find entities, such as names and places, and where they stand."""

    name = "tag"
    Config, Example, Answer = TagConfig, TagExample, TagPrediction
    free = frozenset({"enforce", "threshold"})
    answers = frozenset({"entities", "tags"})
    windows = True
    config: TagConfig

    def __init__(self, config: Settings, vocabulary: Vocabulary, labels: Items[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        kind = NestedSpans if self.config.nested else WordTags
        self.told: WordTags | NestedSpans = kind(self.config, self.labels)
        """How entities are told: by tags, or by spans."""

    # === Data ===

    def features(self, examples: Items[TagExample], tokenizer: Tokenizer) -> list[list[Sequence]]:
        length = self.config.max_length
        limits = length, min(self.config.overlap, length // 2)
        return [windowed(*read(example), tokenizer, *limits) for example in examples]

    @classmethod
    def key(cls, example: TagExample) -> str:
        return text_of(example)

    @classmethod
    def shown(cls, example: TagExample) -> tuple[list[str], list[str] | None]:
        """The text, of tokens too, and the types in it."""
        labelled = example.entities is not None or example.tags is not None
        types = sorted({span.type for span in entities_of(example)}) if labelled else None
        return [text_of(example)], types

    def stratum(self, example: TagExample) -> str:
        """The types in it, so that a rare one does not fall into the dev set whole."""
        return " ".join(sorted({span.type for span in entities_of(example)}))

    @classmethod
    def readable(cls, example: TagExample) -> None:
        """Raise UserError where the text is given twice, or an entity does not lie in it."""
        if example.entities is not None or example.tags is not None:
            entities_of(example)
        else:
            read(example)

    def check(self, example: TagExample) -> None:
        super().check(example)
        self.told.check(entities_of(example))

    def labels_in(self, examples: Items[TagExample]) -> list[str]:
        """The labels that the entities' types need."""
        types = sorted({span.type for example in examples for span in entities_of(example)})
        if not types:
            raise UserError("no row has an entity; there is nothing to learn")
        return self.told.labels_of(types)

    def target(self, example: TagExample) -> Any:
        """The entities [n, 3] int64: first character, one past the last, and number of the type."""
        self.check(example)
        types, rows = types_of(self.labels), []
        for span in entities_of(example):
            if span.type not in types:
                raise UserError(
                    f"entity type {span.type!r} was never seen in training"
                    f"{suggestion(span.type, types)}"
                )
            rows.append((span.start, span.end, types.index(span.type)))
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def look_over(self, groups: Items[Group]) -> None:
        self.told.look_over(groups)

    def mark(self, batch: Batch, groups: Items[Group], draw: Draw) -> Batch:
        """Add `tag_rows` [M] int64, `tag_bounds` [N + 1] of each sequence's, and gold `tag`."""
        rows, ends = asked(batch)
        return self.told.mark(batch.with_targets(tag_rows=rows, tag_bounds=ends), groups)

    # === Model ===

    def head(self, encoder: AnyEncoder) -> nn.Module:
        return self.told.head(encoder)

    def read(self, model: Model, batch: Batch) -> Tensor:
        return batch.targets["tag_rows"]

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"tag": self.told.count(batch)}

    def terms(self, model: Model, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        x = model.token_vectors(rows)
        return {"tag": self.told.loss(model.heads["tag"], x, batch)}

    # === Prediction ===

    def predict(self, model: Model, batch: Batch) -> Output:
        encoder = model.encoder
        rows, ends = (tensor.to(batch.input_ids.device) for tensor in asked(batch))
        x = encoder.encode(encoder.embed(batch), batch, read=rows).x
        return self.told.predict(model.heads["tag"], model.token_vectors(x), ends)

    def decode(self, output: Output, batch: Batch) -> list[Part]:
        return self.told.decode(output, batch)

    def join(self, example: TagExample, parts: list[Part]) -> TagPrediction:
        """What the windows found, each word or span judged where it stands farthest inside."""
        text, given = read(example)
        found = self.told.join(parts, self.calibration)
        entities = [
            Found(start=a, end=b, label=label, text=text[a:b], confidence=sure)
            for (a, b, label), sure in found
        ]
        tags = None if given is None else self.told.tags(found, given)
        return TagPrediction(entities=entities, tags=tags)

    def calibrate(self, examples: Items[TagExample], parts: Items[list[Part]]) -> Calibration:
        """How likely a span of dev must be to be an entity, where spans are scored."""
        return self.told.calibrate([entities_of(example) for example in examples], parts)

    def as_set(self, calibration: Calibration) -> Calibration:
        least = self.config.threshold
        return calibration if least is None else Calibration(thresholds=[least])

    def remarks(self, examples: Items[TagExample], parts: Items[list[Part]]) -> list[str]:
        return [*self.told.remarks(self.calibration), *few_rows(len(examples))]

    def metrics(
        self, predictions: Items[TagPrediction], examples: Items[TagExample]
    ) -> Mapping[str, float]:
        if not examples:
            return {"f1": 0.0, "precision": 0.0, "recall": 0.0}
        found = [[Span(e.start, e.end, e.label) for e in p.entities] for p in predictions]
        micro = tag_metrics([entities_of(example) for example in examples], found).micro
        return {"f1": micro.f1, "precision": micro.precision, "recall": micro.recall}
