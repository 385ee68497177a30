"""Vectors written one by one as one of numpy's files, however many there will be."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from clozeworks.core.errors import UserError
from clozeworks.core.files import write_file

Vector = npt.ArrayLike
"""Numbers, as many in every vector."""
ROOM = 128
"""Bytes of the header: it is written first and once more at the end, when the rows are counted."""


@contextmanager
def write_vectors(path: Path) -> Iterator[Callable[[Vector], None]]:
    """A function that appends a vector; the file, [rows, H] fp32, appears when it is whole."""
    rows, width = 0, 0
    with write_file(path, "wb") as stream:
        stream.write(b"\0" * ROOM)

        def keep(vector: Vector) -> None:
            nonlocal rows, width
            numbers = np.asarray(vector, "<f4")
            if rows and len(numbers) != width:
                raise UserError(f"vector {rows + 1} has {len(numbers)} numbers, not {width}")
            rows, width = rows + 1, len(numbers)
            stream.write(numbers.tobytes())

        yield keep
        stream.seek(0)
        _write_header(stream, rows, width)


def _write_header(stream: IO[Any], rows: int, width: int) -> None:
    """numpy's header, version 1.0, of as many bytes as were left for it."""
    values = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    before = b"\x93NUMPY\x01\x00" + (ROOM - 10).to_bytes(2, "little")
    text = repr(values).encode("latin1")
    stream.write(before + text + b" " * (ROOM - 11 - len(text)) + b"\n")
