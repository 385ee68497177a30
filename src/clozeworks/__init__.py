"""Clozeworks: from raw text to your own BERT in service."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    # The libraries under torch's CPU products, oneDNN and ideep, keep a kernel of a megabyte or two
    # for each of the last 1,024 shapes: on texts of ever new lengths, memory grows for hours. A
    # training step meets some forty. They look at their first product, so it is said here.
    os.environ.setdefault(_cache, "128")

if TYPE_CHECKING:
    from clozeworks.api import *  # noqa: F403
    from clozeworks.showcase import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """The package's parts, and the verbs and their recipes, imported when first used.

    torch takes seconds to load, and `from clozeworks import cli` asks here first.
    """
    if name.isidentifier() and not name.startswith("_"):
        if find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        for source in ("clozeworks.api", "clozeworks.showcase"):
            module = import_module(source)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'clozeworks' has no attribute {name!r}")
