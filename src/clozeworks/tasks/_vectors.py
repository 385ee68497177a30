"""What is said of sentence vectors: predictions that hold them, and numbers that judge them."""

from array import array
from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import numpy as np
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from clozeworks.core.records import Ints, Prediction
from clozeworks.metrics.rank import RankMetrics
from clozeworks.metrics.regress import pearson, spearman
from clozeworks.metrics.retrieve import Floats, Found, Pool, retrieval_metrics, retrieve

if TYPE_CHECKING:
    Numbers = array[float]
else:
    Numbers = array

DIGITS = 8
"""Decimals of a vector's numbers: beyond those of fp32 where they are below 0.1."""
SCORED = ("spearman", "pearson")
RETRIEVED = ("mrr@10", "recall@1", "recall@5", "recall@10", "ndcg@10")


def _taken(value: Any) -> Numbers:
    """Numbers as fp32, four bytes each; raises ValueError where there are none."""
    try:
        return value if isinstance(value, array) else array("f", value)
    except TypeError as error:
        raise ValueError("a vector is a list of numbers") from error


def _written(value: Numbers) -> list[float]:
    rounded: list[float] = np.asarray(value, np.float64).round(DIGITS).tolist()
    return rounded


Vector = Annotated[
    Numbers,
    PlainValidator(_taken),
    PlainSerializer(_written, return_type=list[float]),
    WithJsonSchema({"type": "array", "items": {"type": "number"}}),
]
"""A list of fp32 numbers that takes little room; `numpy.asarray` reads it as it is."""


def vector(numbers: Floats) -> Numbers:
    """Numbers [H] as a Vector, rounded so that what is written of it reads back the same."""
    return array("f", np.asarray(numbers, np.float64).round(DIGITS).astype(np.float32).tobytes())


class EmbedPrediction(Prediction):
    """The vector of one text; of a pair, both and how alike they are."""

    vector: Vector
    """What stands for the text."""
    vector_pair: Vector | None = None
    """What stands for the text beside it."""
    similarity: float | None = None
    """The cosine of the two, from -1 to 1."""


class Row(Protocol):
    """What is read of an Example."""

    @property
    def text(self) -> str: ...

    @property
    def positive(self) -> str | None: ...

    @property
    def score(self) -> float | None: ...


def cosine(one: Floats, other: Floats) -> float:
    """The cosine of two vectors [H]; 0 where one has no length."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -1, 1)) if size else 0.0


def unit(vectors: Items[Numbers]) -> Floats:
    """Vectors as rows of length 1, [N, H] fp32."""
    rows = np.stack([np.asarray(v, np.float32) for v in vectors])
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Floats = rows / np.maximum(sizes, np.finfo(np.float32).tiny)
    return units


class Retrieval(NamedTuple):
    """What the texts of some rows found among all their positives."""

    found: Found
    relevant: list[list[int]]
    """Of each different text, the positives that belong to it."""
    query: Ints
    """Which of the different texts each row has."""
    candidates: list[str]
    """The different positives."""

    @property
    def metrics(self) -> RankMetrics:
        """Its numbers."""
        return retrieval_metrics(self.found, self.relevant)


def retrieval(predictions: Items[EmbedPrediction], rows: Items[Row]) -> Retrieval:
    """Let every text of the rows look for its positives among those of all rows.

    Texts that come more than once look once, and all their positives belong to them.
    """
    queries: dict[str, int] = {}
    candidates: dict[str, int] = {}
    relevant: list[list[int]] = []
    vectors, others, query = [], [], []
    for prediction, row in zip(predictions, rows, strict=True):
        assert row.positive is not None and prediction.vector_pair is not None
        if row.text not in queries:
            queries[row.text] = len(queries)
            vectors.append(prediction.vector)
            relevant.append([])
        if row.positive not in candidates:
            candidates[row.positive] = len(candidates)
            others.append(prediction.vector_pair)
        number, place = queries[row.text], candidates[row.positive]
        query.append(number)
        if place not in relevant[number]:
            relevant[number].append(place)
    same = [candidates.get(text) for text in queries]
    found = retrieve(Pool(unit(vectors), unit(others), relevant, same))
    return Retrieval(found, relevant, np.array(query, dtype=np.int64), list(candidates))


def retrieved(predictions: Items[EmbedPrediction], rows: Items[Row]) -> Mapping[str, float]:
    """The numbers of `RETRIEVED`."""
    metrics = retrieval(predictions, rows).metrics
    values = [metrics.mrr[10], *(metrics.recall[k] for k in (1, 5, 10)), metrics.ndcg[10]]
    return dict(zip(RETRIEVED, values, strict=True))


def scored(predictions: Items[EmbedPrediction], rows: Items[Row]) -> Mapping[str, float]:
    """The numbers of `SCORED`; 0 where one side is constant."""
    gold = np.array([row.score for row in rows], np.float64)
    given = np.array([p.similarity for p in predictions], np.float64)
    return {"spearman": spearman(gold, given) or 0.0, "pearson": pearson(gold, given) or 0.0}
