"""The strings of a report's page in every language it is written in."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from clozeworks.core.errors import choose

LANGUAGES = ("en", "zh")

Words = Mapping[str, str]
"""Strings by their key; `{name}` in one is filled by `str.format`."""


@cache
def catalogue(language: str) -> Words:
    """The strings in one language; raises UserError naming the languages there are."""
    name = choose(language, LANGUAGES, "report language")
    text = (files("clozeworks.evaluation") / "templates" / f"{name}.json").read_text("utf-8")
    words: dict[str, str] = json.loads(text)
    return words
