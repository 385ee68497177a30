"""What a person says and reads of entities in a text."""

from typing import ClassVar

from pydantic import Field, field_validator

from clozeworks.core.errors import UserError
from clozeworks.core.records import Example, Ints, Prediction, Record
from clozeworks.text.tags import Span, characters_of, spans_of
from clozeworks.text.units import joined


class Entity(Record):
    """A stretch of the text and what it is."""

    start: int = Field(ge=0)
    """Its first character, counted from 0."""
    end: int
    """One past its last."""
    label: str = Field(min_length=1)
    """Its type, without white space around it."""
    text: str | None = None
    """Its characters; where given, they must stand there."""
    confidence: float | None = None
    """How sure a model was of it; not learned from."""

    @field_validator("label", mode="before")
    @classmethod
    def _bare(cls, label: object) -> object:
        return label.strip() if isinstance(label, str) else label


class TagExample(Example):
    """A text, or its tokens, and the entities in it."""

    either: ClassVar[frozenset[str]] = frozenset({"text", "tokens"})

    text: str | None = None
    """The text; or give its tokens."""
    tokens: list[str] | None = None
    """The words or characters of the text, in order."""
    entities: list[Entity] | None = None
    """The entities, by their characters; an empty list where there are none."""
    tags: list[str] | None = None
    """Or a tag for each token: O, B-TYPE, I-TYPE; BIOES and its kin are understood."""


class Found(Record):
    """An entity that was found."""

    start: int
    """Its first character, counted from 0."""
    end: int
    """One past its last."""
    label: str
    """Its type."""
    text: str
    """Its characters, as they stand in the text."""
    confidence: float
    """The least of its words' probabilities; where spans are scored, its own."""


class TagPrediction(Prediction):
    """The entities of one text, in order."""

    entities: list[Found]
    tags: list[str] | None = None
    """A tag for each token, where tokens were given and no entity lies inside another."""


def read(example: TagExample) -> tuple[str, Ints | None]:
    """The text, and the characters of its tokens where it was given in tokens."""
    if example.tokens is not None:
        if example.text is not None:
            raise UserError("both text and tokens; give one of them")
        return joined(example.tokens)
    return example.text or "", None


def text_of(example: TagExample) -> str:
    """The text, of tokens too: what entities are counted in."""
    return read(example)[0]


def entities_of(example: TagExample) -> list[Span]:
    """The gold entities by characters, in order; raises UserError where they cannot be."""
    text, given = read(example)
    if example.entities is not None and example.tags is not None:
        raise UserError("both entities and tags; give one of them")
    if example.entities is not None:
        for e in example.entities:
            _check_place(e, text)
        return sorted(Span(e.start, e.end, e.label) for e in example.entities)
    if given is None or example.tags is None or len(example.tags) != len(given):
        raise UserError(
            f"{len(example.tags or [])} tags for {0 if given is None else len(given)} tokens; "
            "give a tag for each token"
        )
    return [characters_of(span, given) for span in spans_of(example.tags)]


def _check_place(entity: Entity, text: str) -> None:
    start, end = entity.start, entity.end
    if not start < end <= len(text):
        raise UserError(
            f"entity {entity.label!r} from {start} to {end} does not lie within the {len(text)} "
            "characters of its text; correct start and end (one past the last)"
        )
    if entity.text not in (None, text[start:end]):
        raise UserError(
            f"entity {entity.text!r} does not stand from {start} to {end} of its text "
            f"({text[start:end]!r} does); correct start and end"
        )
