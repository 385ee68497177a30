"""Public labelled sets as the tasks read them: their files, or the same rows under other names."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clozeworks.core.files import write_file
from clozeworks.data.sources.base import open_source
from clozeworks.text.sentences import sentence_spans
from corpora import PAIR
from harness.measure import DATA

Row = dict[str, Any]


@dataclass(frozen=True)
class Sets:
    """Rows to learn from, to be judged by while learning (or some of the first), and to judge."""

    train: Path
    test: Path
    dev: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)


def as_given(name: str, test: str = "test", columns: dict[str, str] | None = None) -> Sets:
    """A set whose columns need no more than other names; without a third part, dev judges."""
    parts = {part: DATA / name / f"{part}.jsonl.gz" for part in ("train", "dev", test)}
    dev = parts["dev"] if test != "dev" and parts["dev"].exists() else None
    return Sets(parts["train"], parts[test], dev, columns or {})


def converted(
    name: str, out: Path, change: Callable[[Iterable[Row]], Iterable[Row]], test: str = "test"
) -> Sets:
    """A set whose rows are written anew, in `out`."""
    given = as_given(name, test)

    def written(path: Path | None) -> Path | None:
        if path is None:
            return None
        made = out / "sets" / name / path.name.removesuffix(".gz")
        if not made.exists():
            with write_file(made) as stream:
                stream.writelines(
                    json.dumps(row, ensure_ascii=False) + "\n" for row in change(rows(path))
                )
        return made

    train, judged = written(given.train), written(given.test)
    assert train is not None and judged is not None
    return Sets(train, judged, written(given.dev))


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file as they stand there."""
    for _, row in open_source(path).rows():
        yield row


def pairs(name: str, test: str = "test") -> Sets:
    """A set of pairs."""
    return as_given(name, test, PAIR)


def with_absent_answers(given: Iterable[Row]) -> Iterator[Row]:
    """Each question over its own text, and over one that does not hold its answer.

    That is the same text without the sentences that hold an answer: what is left speaks of what is
    asked, as where SQuAD 2.0 has no answer. Of a text that has no other sentences, another one.
    """
    known = list(given)
    draw = random.Random(0)
    nothing = {"text": [], "answer_start": []}
    for row in known:
        yield {key: row[key] for key in ("context", "question", "answers")}
        told = [answer for answer in row["answers"]["text"] if answer]
        others = (draw.choice(known)["context"] for _ in range(50))
        without = (c for c in (_cut(row["context"], told), *others) if c)
        strange = next((c for c in without if not any(answer in c for answer in told)), None)
        if strange is not None:
            yield {"context": strange, "question": row["question"], "answers": nothing}


def _cut(text: str, told: list[str]) -> str:
    # an answer that runs over a sentence's end is in neither half: the caller looks once more
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    return " ".join(one for one in sentences if not any(answer in one for answer in told))


def with_every_summary(given: Iterable[Row]) -> Iterator[Row]:
    """Documents with all their summaries, where several people wrote one."""
    for row in given:
        yield {"document": row["document"], "summary": row.get("references") or [row["summary"]]}
