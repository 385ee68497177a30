"""How special tokens stand around one text, and around two, as a tokenizer's file says."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from clozeworks.core.records import Ints, Vocabulary


class Part(NamedTuple):
    """One stretch of a Sequence: special ids, or the text numbered `text`."""

    ids: list[int]
    text: int | None
    segment: int


class Form(NamedTuple):
    """How special tokens stand around one text, and around two."""

    single: list[Part]
    pair: list[Part]

    @classmethod
    def of(cls, library: tokenizers.Tokenizer, vocabulary: Vocabulary) -> "Form":
        """The form a library's post-processor gives texts; BERT's where it has none that tells."""
        for processor in _processors(library):
            if processor["type"] == "TemplateProcessing":
                return cls(_template(processor, "single"), _template(processor, "pair"))
            if processor["type"] == "RobertaProcessing":
                start, end = processor["cls"][1], processor["sep"][1]
                single = [Part([start], None, 0), Part([], 0, 0), Part([end], None, 0)]
                more = [Part([end], None, 0), Part([], 1, 0), Part([end], None, 0)]
                return cls(single, [*single, *more])
        start, end = vocabulary.cls, vocabulary.sep
        single = [Part([start], None, 0), Part([], 0, 0), Part([end], None, 0)]
        return cls(single, [*single, Part([], 1, 1), Part([end], None, 1)])

    @property
    def single_length(self) -> int:
        """Special tokens around one text."""
        return sum(len(part.ids) for part in self.single)

    @property
    def pair_length(self) -> int:
        """Special tokens around two texts."""
        return sum(len(part.ids) for part in self.pair)

    def single_of(self, text: Ints) -> tuple[Ints, Ints, int]:
        """Token ids of a text as ids and segments, [n] each, and where the text begins in them."""
        return _laid_out(self.single, [text])

    def pair_of(self, first: Ints, second: Ints) -> tuple[Ints, Ints, int]:
        """Token ids of two texts as ids and segments, [n] each, and where the second begins."""
        return _laid_out(self.pair, [first, second])


def _laid_out(parts: list[Part], texts: list[Ints]) -> tuple[Ints, Ints, int]:
    """Ids and segments of the texts with what stands around them, and where the last one begins."""
    pieces = [np.array(p.ids) if p.text is None else texts[p.text] for p in parts]
    lengths = [len(piece) for piece in pieces]
    last = next(i for i, part in enumerate(parts) if part.text == len(texts) - 1)
    segments = np.repeat(np.array([part.segment for part in parts], dtype=np.int64), lengths)
    return np.concatenate(pieces).astype(np.int64), segments, sum(lengths[:last])


def _processors(library: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    """The post-processors as values, one after another."""
    if library.post_processor is None:
        return []
    values = json.loads(library.post_processor.__getstate__())
    inner: list[dict[str, Any]] = values.get("processors", [values])
    return inner


def _template(values: Mapping[str, Any], which: str) -> list[Part]:
    parts = []
    for piece in values[which]:
        ((kind, one),) = piece.items()
        if kind == "Sequence":
            parts.append(Part([], "AB".index(one["id"]), one["type_id"]))
        else:
            parts.append(Part(values["special_tokens"][one["id"]]["ids"], None, one["type_id"]))
    return parts
