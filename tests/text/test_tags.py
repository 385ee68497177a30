"""Laws of tags: entities to tags and back, legal neighbours, and how senseless tags are read."""

import gzip
import json
from itertools import chain, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.errors import UserError
from clozeworks.text.tags import (
    SCHEMES,
    Span,
    characters_of,
    labels_of,
    legal_moves,
    spans_of,
    tags_of,
    types_of,
    units_of,
)

TYPES = ["人名", "creative-work", "_"]
schemes = st.sampled_from(list(SCHEMES))


@st.composite
def flat_entities(draw):
    """Entities that share no unit, some side by side, and how many units there are."""
    sizes = draw(
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, *TYPES])), max_size=6)
    )
    spans, at = [], 0
    for size, type in sizes:
        if type:
            spans.append(Span(at, at + size, type))
        at += size
    return spans, at


def any_tags(scheme):
    return st.lists(st.sampled_from(labels_of(TYPES, scheme)), max_size=12)


def follows(tags, labels, legal):
    """Whether every neighbour is legal, start and end included."""
    path = [labels.index(tag) for tag in tags]
    return all(legal[a, b] for a, b in zip([-1, *path], [*path, -1], strict=True))


@given(flat_entities(), schemes)
def test_entities_come_back_from_their_tags_in_either_reading(entities, scheme):
    spans, length = entities
    tags = tags_of(spans, length, scheme)
    labels = labels_of(TYPES, scheme)
    assert len(tags) == length and follows(tags, labels, legal_moves(labels, scheme))
    assert spans_of(tags) == spans_of(tags, strict=scheme) == spans
    assert types_of(tags) == sorted({span.type for span in spans})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_are_legal_exactly_where_they_say_what_they_are_read_as(scheme):
    """Every sequence of up to three tags of two types."""
    labels = labels_of(["a", "b"], scheme)
    legal = legal_moves(labels, scheme)
    for tags in chain.from_iterable(product(labels, repeat=n) for n in range(4)):
        written = tags_of(spans_of(tags), len(tags), scheme)
        assert follows(tags, labels, legal) == (written == list(tags)), tags
        if written == list(tags):
            assert spans_of(tags, strict=scheme) == spans_of(tags)


@given(st.data(), schemes)
def test_the_default_reading_loses_no_tag_and_the_strict_one_adds_none(data, scheme):
    tags = data.draw(any_tags(scheme))
    spans = spans_of(tags)
    inside = [i for span in spans for i in range(span.start, span.end)]
    assert inside == [i for i, tag in enumerate(tags) if tag != "O"]
    for span in spans_of(tags, strict=scheme):
        part = tags_of([span], len(tags), scheme)[span.start : span.end]
        assert tags[span.start : span.end] == part


@given(st.data(), schemes)
@settings(max_examples=200)
def test_senseless_tags_are_read_as_seqeval_reads_them(data, scheme):
    pytest.importorskip("seqeval")
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import IOB2, IOBES, Tokens

    tags = data.draw(any_tags(scheme))
    default = [Span(start, end + 1, type) for type, start, end in get_entities(tags)]
    assert spans_of(tags) == default
    kind = IOB2 if scheme == "bio" else IOBES
    strict = [Span(e.start, e.end, e.tag) for e in Tokens(tags, kind).entities] if tags else []
    assert spans_of(tags, strict=scheme) == strict


@pytest.mark.parametrize(
    ("tags", "default", "strict"),
    [
        ("O I-a I-a O", [(1, 3, "a")], []),
        ("B-a I-b I-b", [(0, 1, "a"), (1, 3, "b")], [(0, 1, "a")]),
        ("B-a B-a I-a", [(0, 1, "a"), (1, 3, "a")], [(0, 1, "a"), (1, 3, "a")]),
        ("I-a B-a", [(0, 1, "a"), (1, 2, "a")], [(1, 2, "a")]),
    ],
)
def test_bio_that_breaks_the_rules(tags, default, strict):
    assert spans_of(tags.split()) == default
    assert spans_of(tags.split(), strict="bio") == strict


def test_other_ways_to_write_the_same():
    bioes = ["B-a", "I-a", "E-a", "S-b", "O"]
    for written in ("B-a M-a E-a S-b O", "B-a I-a L-a U-b O", "B-a M-a E-a W-b O"):
        assert spans_of(written.split()) == spans_of(bioes, strict="bioes")
        assert spans_of(written.split(), strict="bioes") == spans_of(bioes)
    assert spans_of(["I-a", "I-a", "B-a", "O"]) == [(0, 2, "a"), (2, 3, "a")], "IOB1"
    assert spans_of(["B", "E", "S"]) == [(0, 2, "_"), (2, 3, "_")], "words without a type"


def test_bad_input_is_named():
    with pytest.raises(UserError, match=r"'X-a' is no tag.*B-person"):
        spans_of(["O", "X-a"])
    with pytest.raises(UserError, match="'B-' is no tag"):
        spans_of(["B-"])
    with pytest.raises(UserError, match="'E-a' is none of bio"):
        spans_of(["B-a", "E-a"], strict="bio")
    with pytest.raises(UserError, match=r"\(0, 3, 'a'\) and \(2, 4, 'b'\) overlap"):
        tags_of([Span(2, 4, "b"), Span(0, 3, "a")], 5)
    for span in [Span(0, 0, "a"), Span(3, 6, "a"), Span(-1, 2, "a")]:
        with pytest.raises(UserError, match="does not lie within the 5 units"):
            tags_of([span], 5)
    with pytest.raises(UserError, match="did you mean 'bioes'"):
        tags_of([], 5, "bioe")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=8), st.data())
def test_units_and_characters_go_both_ways(gaps, data):
    """Units in a text, with gaps between them, as words have and characters have not."""
    bounds, at = [], 0
    for gap, size in gaps:
        bounds.append((at + gap, at + gap + size))
        at += gap + size
    bounds = np.array(bounds)
    start = data.draw(st.integers(0, len(bounds) - 1))
    span = Span(start, data.draw(st.integers(start + 1, len(bounds))), "a")
    assert units_of(characters_of(span, bounds), bounds) == span
    first = data.draw(st.integers(0, at - 1))
    part = Span(first, data.draw(st.integers(first + 1, at)), "a")
    units = units_of(part, bounds)
    touched = [i for i, (a, b) in enumerate(bounds) if a < part.end and b > part.start]
    assert touched == ([] if units is None else list(range(units.start, units.end)))


@pytest.mark.parametrize("name", ["wnut17", "cluener"])
def test_public_tags_are_legal_as_they_stand(public_data, name):
    path = public_data / name / "dev.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        assert len(row["tags"]) == len(row["tokens"])
        spans = spans_of(row["tags"], strict="bio")
        assert tags_of(spans, len(row["tags"])) == row["tags"]
