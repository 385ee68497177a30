"""Predict every row of a file of any size."""

import csv
import json
from codecs import BOM_UTF8, lookup
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from math import isfinite
from pathlib import Path
from typing import IO, Any

from clozeworks.api.labelled import asked_with, unread
from clozeworks.api.model import learned_without, load, say_cut, trained_columns
from clozeworks.api.vectors import Vector, write_vectors
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import write_file
from clozeworks.core.log import Meter, counted, say
from clozeworks.core.records import Prediction
from clozeworks.data.read import check_characters, read_examples
from clozeworks.data.sources.base import open_source
from clozeworks.inference.engine import WINDOW, BadExample, Engine
from clozeworks.train.precision import Precision

Row = dict[str, Any]
FORMS = {".jsonl": "jsonl", ".csv": ",", ".tsv": "\t"}
MARK = "\ufeff"
"""The byte-order mark, by which Excel knows UTF-8: a .csv without it is read in the encoding of the
system."""


class PredictRecipe(Settings):
    """What the `predict` verb needs."""

    model: Path
    """A trained Bundle."""
    data: Path
    """Rows to predict: jsonl, csv, tsv, conll, txt, xlsx or parquet; all but these two also packed
    (.gz, .xz)."""
    out: Path
    """File for the predictions, a row for each row: .jsonl, .csv or .tsv."""
    vectors: Path | None = None
    """Of sentence vectors: a file for numpy (.npy) that the texts' go into, instead of into `out`;
    of a pair, `out` keeps the cosine."""
    columns: dict[str, str] = {}
    """Column names of the task's fields; absent: those it was trained with."""
    encoding: str = "utf-8"
    """Character encoding of the file; gb18030 for most Chinese files that are not UTF-8."""
    format: str | None = None
    """Form of the file, where its name does not tell it."""
    scores: bool = False
    """Write the probability of every class, label or relation, too; other tasks have none."""
    keep_empty: bool = False
    """Predict empty texts as they are, instead of stopping at the first."""
    settings: dict[str, str | int | float] = {}
    """Settings of the task that are to be others than in training, such as top 10."""
    precision: Precision = "auto"
    """Number format: bf16 where the machine multiplies it natively, else fp32."""
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto for a GPU if there is one."""


class Predicted(Settings):
    """What the `predict` verb made."""

    out: Path
    rows: int
    cut: int
    """Rows of which something was over the model's limits, and not read."""


def predict(recipe: PredictRecipe) -> Predicted:
    """Write each row of the file with its prediction, in order, streaming.

    A jsonl row gains an object `prediction`; a csv row gains columns `prediction_…`. The file
    appears when it is whole. Raises UserError for a form that cannot be written or an unusable row.
    """
    if recipe.out.suffix not in FORMS:
        raise UserError(
            f"--out {recipe.out}: cannot write {recipe.out.suffix!r} (choices: {', '.join(FORMS)})"
        )
    if recipe.out.is_dir():
        raise UserError(f"--out {recipe.out} is a folder; name a file in it")
    if recipe.out.resolve() == recipe.data.resolve():
        raise UserError(f"--out {recipe.out} is the file to predict; choose another name")
    engine = load(recipe.model, recipe.device, recipe.precision, recipe.settings)
    if recipe.scores and "scores" not in engine.task.Answer.model_fields:
        raise UserError(
            f"--scores: {recipe.model} was trained for {engine.task.name!r}, whose predictions "
            "have none; leave it out"
        )
    apart = None if recipe.vectors is None else _vector_file(recipe.vectors, recipe.model, engine)
    rows = 0
    with ExitStack() as stack:
        keep = stack.enter_context(apart) if apart else None
        stream = stack.enter_context(write_file(recipe.out))
        meter = stack.enter_context(Meter("predicting", None, "rows"))
        write = _writer(stream, recipe.out.suffix)
        for number, row, prediction in _answered(recipe, engine):
            if keep is not None:
                keep(prediction.vector)  # type: ignore[attr-defined]  # its task's answers have one
            values = _values(prediction, recipe.scores, apart=keep is not None)
            if not rows and _for_a_spreadsheet(recipe):
                stream.write(MARK)
            try:
                write(row, values)
            except UserError as error:
                raise UserError(f"{recipe.data}, row {number}: {error}") from error
            meter.advance(1)
            rows += 1
    say_cut(engine)
    say(f"{counted(rows, 'prediction', 'predictions')} → {recipe.out}")
    return Predicted(out=recipe.out, rows=rows, cut=engine.cut_examples)


def _for_a_spreadsheet(recipe: PredictRecipe) -> bool:
    """Whether the rows come from one, and go where it can read them."""
    if recipe.out.suffix != ".csv":
        return False
    if recipe.data.suffix == ".xlsx" or lookup(recipe.encoding).name != "utf-8":
        return True
    with recipe.data.open("rb") as stream:
        return stream.read(len(BOM_UTF8)) == BOM_UTF8


def _vector_file(
    path: Path, model: Path, engine: Engine
) -> AbstractContextManager[Callable[[Vector], None]]:
    """The file for vectors; raises UserError where there are none, or it has no such name."""
    if "vector" not in engine.task.Answer.model_fields:
        raise UserError(
            f"--vectors {path}: {model} was trained for {engine.task.name!r}, which gives no "
            "vectors; leave it out"
        )
    if path.suffix != ".npy":
        raise UserError(f"--vectors {path}: cannot write {path.suffix!r} (choices: .npy)")
    return write_vectors(path)


def _answered(recipe: PredictRecipe, engine: Engine) -> Iterator[tuple[int, Row, Prediction]]:
    """Each row as it stands in the file, its number and its prediction; the file is read twice, in
    step."""
    source = open_source(recipe.data, format=recipe.format, encoding=recipe.encoding)
    answers = engine.task.answers
    last = deque[tuple[int, int]](maxlen=WINDOW)  # as many as are read ahead
    read = count(1)
    columns = trained_columns(recipe.model)
    lacked = learned_without(recipe.model).difference(recipe.columns) | unread(recipe.columns)
    examples = read_examples(
        recipe.data,
        engine.task.Example,
        {f: column for f, column in recipe.columns.items() if column and f not in answers},
        remembered=columns,
        needed=asked_with(engine.task, columns),
        encoding=recipe.encoding,
        format=recipe.format,
        empty="keep" if recipe.keep_empty else "refuse",
        without=answers | lacked,
        check=engine.task.readable,
        seen=lambda number: last.append((next(read), number)),
    )
    try:
        for prediction, numbered in zip(engine.predict(examples), source.rows(), strict=True):
            yield *numbered, prediction
    except BadExample as error:
        row = dict(last)[error.number]
        raise UserError(f"{recipe.data}, row {row:,}: {error.why}") from error


def _values(prediction: Prediction, scores: bool, apart: bool) -> Row:
    """What is written of a prediction; `apart`: its vectors are not."""
    left_out: set[str] = {"vector", "vector_pair"} if apart else set()
    values = prediction.model_dump(mode="json", exclude=left_out)
    if not scores:
        values.pop("scores", None)
    return values


def _cell(value: Any) -> Any:
    """A value as one cell of a table: a list or an object as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _refuse_taken(row: Row, names: Iterable[str]) -> None:
    """Raise UserError if the file has a column that the predictions would overwrite."""
    taken = next((name for name in names if name in row), None)
    if taken is not None:
        raise UserError(f"the file has a column {taken!r}, which is to hold predictions; rename it")


def _json(row: Row) -> str:
    """One line of jsonl: as it is, or escaped where it holds half a character; NaN is null."""
    try:
        line = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(row, default=str, allow_nan=False)
    except ValueError:
        return _json(_finite(row))
    return line


def _finite(value: Any) -> Any:
    """A value in which null stands for what is no number."""
    match value:
        case dict():
            return {name: _finite(inner) for name, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
        case float() if not isfinite(value):
            return None
    return value


class _Lines:
    """A stream of table rows that end in a line feed, whatever ends a row for the writer.

    The writer puts a cell in quotes where it holds a part of its own line end, so that only with
    the longer one a carriage return in a cell stays in it.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def _writer(stream: IO[str], suffix: str) -> Callable[[Row, Row], None]:
    """A function that writes one row with its prediction."""
    if suffix == ".jsonl":

        def write_json(row: Row, values: Row) -> None:
            _refuse_taken(row, ["prediction"])
            stream.write(_json({**row, "prediction": values}) + "\n")

        return write_json
    table: csv.DictWriter[str] | None = None

    def write_row(row: Row, values: Row) -> None:
        nonlocal table
        flat = {f"prediction_{k}": _cell(v) for k, v in values.items() if not isinstance(v, dict)}
        for name, score in values.get("scores", {}).items():
            flat[f"prediction_score_{name}"] = score
        _refuse_taken(row, flat)
        for name, value in row.items():
            check_characters(value, name)
        if table is None:
            names = [*row, *flat]
            table = csv.DictWriter(_Lines(stream), names, delimiter=FORMS[suffix])
            table.writeheader()
        if strange := row.keys() - set(table.fieldnames):
            raise UserError(
                f"a column {min(strange)!r} that the first row has not, which "
                f"{suffix} cannot hold; use --out NAME.jsonl"
            )
        table.writerow({**{name: _cell(value) for name, value in row.items()}, **flat})

    return write_row
