"""Real prose that is already on the machine: what Python says about itself."""

import ast
import inspect
import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo"}
"""Folders of the standard library whose docstrings are not prose."""
SHORTEST = 40
"""Characters of a paragraph worth keeping."""
PROSE = 0.8
"""Share of letters and spaces in prose; tables and code have less."""
_UNDERLINE = re.compile(r"^[=\-~*^\"+.#]{3,}$")


def python_prose() -> Iterator[str]:
    """Documents, each its paragraphs a line each: language topics, then docstrings by module.

    The same Python gives the same text in the same order.
    """
    for name in sorted(pydoc_data.topics.topics):
        if lines := paragraphs(pydoc_data.topics.topics[name]):
            yield "\n".join(lines)
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if SKIPPED.isdisjoint(path.relative_to(root).parts) and (lines := _docstrings(path)):
            yield "\n".join(lines)


def _docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # a few files test just that
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [line for text in found if text for line in paragraphs(text)]


def paragraphs(text: str) -> list[str]:
    """The paragraphs of prose in a docstring or topic, each on one line; code is left out."""
    kept = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = [line.strip() for line in block.splitlines() if not _UNDERLINE.match(line.strip())]
        joined = " ".join(" ".join(lines).split())
        if len(joined) >= SHORTEST and ">>>" not in joined and _is_prose(joined):
            kept.append(joined)
    return kept


def _is_prose(text: str) -> bool:
    letters = sum(c.isalpha() or c == " " for c in text)
    return letters / len(text) > PROSE
