"""What a long run has found so far: a file of results, one JSON object a line, added to at once."""

import json
import shutil
import time
from pathlib import Path
from statistics import stdev
from typing import Any

from filelock import FileLock

from clozeworks.core.files import digest
from harness.measure import code_version

RESULTS = Path(__file__).parents[1] / "results"

Row = dict[str, Any]


class Ledger:
    """NAME.jsonl in the folder of the runs it tells of, copied to benchmarks/results.

    What is in that folder alone is taken for done: figures of somebody else's runs never are. Rows
    have the values in `common`; those with others are passed over.
    """

    def __init__(self, name: str, home: Path, **common: Any) -> None:
        self.name, self.common = name, common
        self.path = home / f"{name}.jsonl"

    def add(self, row: Row) -> None:
        """Write a row, and of which code it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.mkdir(exist_ok=True)
        known = {"code": code_version(), "date": time.strftime("%Y-%m-%d %H:%M %Z")}
        # trials may run beside each other, several on one GPU
        with FileLock(f"{self.path}.lock"):
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({**self.common, **row, **known}) + "\n")
            shutil.copyfile(self.path, RESULTS / self.path.name)

    def rows(self, **key: Any) -> list[Row]:
        """The rows that have these values, in the order in which they were written."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        wanted: Row = json.loads(json.dumps({**self.common, **key}))
        return [row for row in map(json.loads, lines) if wanted.items() <= row.items()]

    def find(self, **key: Any) -> Row | None:
        """The first of them, if there is one."""
        return next(iter(self.rows(**key)), None)


def weights_of(model: Path) -> str:
    """A short digest of a model's weights: results of another model are other results."""
    return digest(*sorted(model.glob("*.safetensors")))[:12]


def spread(values: list[float]) -> float:
    """Standard deviation; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0
