"""Parquet files, read one record batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from clozeworks.core.errors import UserError
from clozeworks.data.sources.base import Row

BATCH = 1024
"""Rows made into Python values at once."""


@dataclass(frozen=True)
class Parquet:
    """Apache Parquet (.parquet)."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")
    unpacks: ClassVar[bool] = False
    cells: ClassVar[bool] = False
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every row; raises UserError if the file is damaged or packed once more."""
        import pyarrow
        import pyarrow.parquet

        number = 0
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=BATCH):
                    for values in batch.to_pylist():
                        number += 1
                        yield number, values
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.path} cannot be read as parquet after row {number} ({reason}); write "
                "the file again"
            ) from error
