"""Families of models: each file maps one family's config and weight names to the one encoder."""

from typing import Any, Protocol

from clozeworks.core.registry import Registry
from clozeworks.model.config import EncoderConfig
from clozeworks.model.names import Table


class Family(Protocol):
    """What a family must say of itself; values and tables only."""

    model_type: str
    """`model_type` in its config.json."""
    prefix: str
    """Before the encoder's names in a model with heads, absent from a bare encoder's file."""
    names: Table
    """Our tensor names → theirs."""
    ignored: tuple[str, ...]
    """Ends of tensor names that carry nothing: buffers and copies of tied weights."""
    architectures: dict[frozenset[str], str]
    """Heads → the name of the Hugging Face class that holds just those."""

    def config(self, values: dict[str, Any]) -> EncoderConfig:
        """Read their config.json."""
        ...

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        """Write their config.json, heads aside."""
        ...


FAMILIES: Registry[type[Family]] = Registry("model family", "clozeworks.model.families")
