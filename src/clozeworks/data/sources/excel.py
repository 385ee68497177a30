"""Excel workbooks: the first sheet, its first row the column names."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from clozeworks.core.errors import UserError
from clozeworks.data.sources.base import Row, headed, keyed


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
        book = self._opened()
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
                    yield number, keyed(names, cells, where)
        finally:
            book.close()

    def _opened(self) -> Any:
        if self.path.suffix.lower() == ".xls":
            raise UserError(f"{self.path} is an old Excel file; save it as .xlsx or .csv")
        try:
            import openpyxl
        except ImportError as error:
            raise UserError(
                f"reading {self.path} needs openpyxl: pip install 'clozeworks[excel]', "
                "or save the sheet as .csv"
            ) from error
        try:
            return openpyxl.load_workbook(self.path, read_only=True, data_only=True)
        except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
            raise UserError(
                f"{self.path} cannot be read as an Excel workbook ({error}); "
                "save it again as .xlsx, without a password"
            ) from error
