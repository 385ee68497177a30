"""Clozeworks: from raw text to your own BERT in service."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clozeworks.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """The verbs and their recipes, imported when first used: torch takes seconds to load."""
    api = importlib.import_module("clozeworks.api")
    if name in api.__all__:
        return getattr(api, name)
    raise AttributeError(f"module 'clozeworks' has no attribute {name!r}")
