"""Families of models: each file maps one family's config and weight names to the one encoder."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from clozeworks.core.config import validated
from clozeworks.core.errors import UserError, choose
from clozeworks.core.registry import Registry
from clozeworks.model.config import EncoderConfig
from clozeworks.model.names import Table

Heads = frozenset[str]
Size = Mapping[str, Any]
"""Values of the EncoderConfig that make a named size."""


class Family(Protocol):
    """What a family must say of itself; values and tables only."""

    model_type: str
    """`model_type` in its config.json."""
    prefix: str
    """Before the encoder's names in a model with heads, absent from a bare encoder's file."""
    sizes: Mapping[str, Size]
    """Its published sizes by name, smallest first."""
    tokenizer: str
    """The kind of tokenizer its published models have."""
    architectures: Mapping[Heads, str]
    """Heads → the name of the Hugging Face class that holds just those; empty where none does."""
    modules: Collection[str]
    """Our names of its modules below the heads; the pooler's too, if its bare class has one."""
    ignored: tuple[str, ...]
    """Ends of tensor names that carry nothing: buffers."""
    tied: Mapping[str, str]
    """Ends of the names of copies in its masked-token head → the name of what is copied."""
    tensorflow: Sequence[tuple[str, str]]
    """Patterns and replacements that lead from names in Google's checkpoints to Hugging Face's."""

    def names(self, heads: Heads) -> Table:
        """Our tensor names → theirs, in the class that holds these heads."""
        ...

    def layers(self, config: EncoderConfig) -> list[str]:
        """Their name of each distinct layer, in order: what `{}` stands for in `names`."""
        ...

    def config(self, values: Mapping[str, Any]) -> EncoderConfig:
        """Read their config.json; raises UserError for values this encoder does not have."""
        ...

    def values(self, config: EncoderConfig) -> dict[str, Any]:
        """Write their config.json, heads aside."""
        ...


FAMILIES: Registry[type[Family]] = Registry("model family", "clozeworks.model.families")


def family_named(model_type: str) -> Family:
    """The family of a `model_type`, in which `-` and `_` are the same."""
    name = choose(model_type.replace("-", "_"), FAMILIES.names(), "model_type")
    return FAMILIES.get(name)()


def sized(family: str, size: str, vocab_size: int, **more: Any) -> EncoderConfig:
    """The config of a family's named size; raises UserError for a name or value there is not."""
    sizes = FAMILIES.get(family).sizes
    values = sizes[choose(size, sizes, f"size of {family}")]
    own = {**values, "family": family, "vocab_size": vocab_size}
    config = validated(EncoderConfig, {**own, **more}, "encoder")
    check_holds(config)
    return config


def check_holds(config: EncoderConfig) -> None:
    """Raise UserError if the family's files cannot say what the config says."""
    family = FAMILIES.get(config.family)()
    back = family.config(family.values(config))
    for field in EncoderConfig.model_fields:
        ours, theirs = getattr(config, field), getattr(back, field)
        if ours != theirs:
            raise UserError(
                f"encoder: {field} = {ours!r}: a {config.family} model has {theirs!r}; leave it "
                "out, or choose another family"
            )


def public_heads(heads: Collection[str]) -> frozenset[str]:
    """Those of some heads that any class knows; the others are ours alone."""
    known = [some for name in FAMILIES.names() for some in FAMILIES.get(name).architectures]
    return frozenset(heads) & frozenset[str]().union(*known)


def check_class(
    family: Family, heads: frozenset[str], among: Collection[str] | None = None
) -> None:
    """Raise UserError if no Hugging Face class of the family holds just these heads.

    A family that no class holds at all has folders of our own form, with any heads. `among` are the
    heads that could be asked for instead; absent: all.
    """
    if family.architectures and heads not in family.architectures:
        offered = [some for some in family.architectures if some and some <= set(among or some)]
        known = sorted("+".join(sorted(some)) for some in offered)
        raise UserError(
            f"no {family.model_type} model has heads for {'+'.join(sorted(heads))} "
            f"(choices: {', '.join(known)}); choose another task, or a family that has them: "
            f"{', '.join(_families_with(heads)) or 'none does'}"
        )


def _families_with(heads: frozenset[str]) -> list[str]:
    """The families whose folders hold just these heads."""
    offered = {name: FAMILIES.get(name).architectures for name in FAMILIES.names()}
    return [name for name, classes in offered.items() if not classes or heads in classes]
