"""Excel workbooks: the first sheet, its first row the column names."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar
from xml.etree.ElementTree import ParseError

from clozeworks.core.errors import UserError
from clozeworks.data.sources.base import Row, headed, keyed

DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
)
"""What openpyxl, and the libraries under it, raise of damaged files."""
REMEDY = "the first row must hold the column names: remove a title above them, or name every column"
"""What to do about a row of more cells than there are columns."""


@dataclass(frozen=True)
class Excel:
    """The first sheet of an Excel workbook (.xlsx); needs the extra `excel`."""

    suffixes: ClassVar[tuple[str, ...]] = (".xlsx", ".xlsm", ".xls")
    unpacks: ClassVar[bool] = False
    cells: ClassVar[bool] = True
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every row that holds something; the row number is the sheet's."""
        with self.path.open("rb") as stream, self._readable():
            book = self._opened(stream)
            try:
                sheet = book.worksheets[0]
                sheet.reset_dimensions()  # some writers note a size that is too small
                names: list[str] | None = None
                for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
                    if all(cell is None for cell in cells):
                        continue
                    where = f"{self.path}, row {number}"
                    if names is None:
                        names = headed(cells, where)
                    else:
                        yield number, keyed(names, cells, where, REMEDY)
            finally:
                book.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raise UserError for whatever the library raises of a file that is damaged."""
        try:
            yield
        except UserError:
            raise
        except DAMAGES as error:
            raise UserError(
                f"{self.path} cannot be read as an Excel workbook ({error}); "
                "save it again as .xlsx, without a password"
            ) from error

    def _opened(self, stream: IO[bytes]) -> Any:
        if self.path.suffix.lower() == ".xls":
            raise UserError(f"{self.path} is an old Excel file; save it as .xlsx or .csv")
        try:
            import openpyxl
        except ImportError as error:
            raise UserError(
                f"reading {self.path} needs openpyxl: pip install 'clozeworks[excel]', "
                "or save the sheet as .csv"
            ) from error
        return openpyxl.load_workbook(stream, read_only=True, data_only=True)
