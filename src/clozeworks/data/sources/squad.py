"""SQuAD's nested JSON: articles, their paragraphs, the questions about each."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from clozeworks.core.errors import UserError
from clozeworks.core.files import read_lines
from clozeworks.data.sources.base import Row


@dataclass(frozen=True)
class Squad:
    """The official files of SQuAD 1.1, 2.0 and CMRC 2018; named by --format squad, or .squad."""

    suffixes: ClassVar[tuple[str, ...]] = (".squad",)
    unpacks: ClassVar[bool] = True
    cells: ClassVar[bool] = False
    path: Path
    encoding: str = "utf-8"

    def rows(self) -> Iterator[Row]:
        """Every question, numbered as they come: `id`, `title`, `context`, `question`, `answers`.

        `answers` holds the lists `text` and `answer_start`, empty where `is_impossible` says so;
        where the file has none (a test set), it is left out.
        """
        try:
            values = json.loads("\n".join(read_lines(self.path, self.encoding)))
            articles = values["data"]
            questions = [found for article in articles for found in _questions(article)]
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path} is not JSON: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.path} is not in SQuAD's form: data → paragraphs → context, qas → question "
                f"({type(error).__name__}: {error}); of one object a line, use --format jsonl"
            ) from error
        yield from enumerate(questions, 1)


def _questions(article: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for paragraph in article["paragraphs"]:
        for asked in paragraph["qas"]:
            row = {
                "id": asked.get("id"),
                "title": article.get("title"),
                "context": paragraph["context"],
                "question": asked["question"],
            }
            if "answers" in asked:
                row["answers"] = _answers(asked)
            yield row


def _answers(asked: dict[str, Any]) -> dict[str, list[Any]]:
    answers = [] if asked.get("is_impossible") else asked["answers"]
    return {
        "text": [answer["text"] for answer in answers],
        "answer_start": [answer["answer_start"] for answer in answers],
    }
