"""What a long run has found so far: a file of results, one JSON object a line, added to at once."""

import json
from pathlib import Path
from statistics import stdev
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"

Row = dict[str, Any]


class Ledger:
    """benchmarks/results/NAME.jsonl."""

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.jsonl"

    def add(self, row: Row) -> None:
        """Write a row."""
        RESULTS.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def rows(self, **key: Any) -> list[Row]:
        """The rows that have these values, in the order in which they were written."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        return [row for row in map(json.loads, lines) if key.items() <= row.items()]

    def find(self, **key: Any) -> Row | None:
        """The first of them, if there is one."""
        return next(iter(self.rows(**key)), None)


def spread(values: list[float]) -> float:
    """Standard deviation; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0
