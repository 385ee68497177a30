"""Clozeworks: from raw text to your own BERT in service."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clozeworks.api import *  # noqa: F403
    from clozeworks.showcase import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """The verbs and their recipes, imported when first used: torch takes seconds to load."""
    for source in ("clozeworks.api", "clozeworks.showcase"):
        module = importlib.import_module(source)
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module 'clozeworks' has no attribute {name!r}")
