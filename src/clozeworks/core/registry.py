"""A registry is a folder: each file in it offers one thing, named after the file."""

import importlib
import pkgutil
from typing import Any, Generic, TypeVar

from clozeworks.core.errors import choose

T = TypeVar("T")


class Registry(Generic[T]):
    """The things one folder of modules offers; `classify.py` offers its class `Classify`.

    Names come from the file names alone, so listing imports nothing; `base.py`, and files that
    begin with an underscore, are parts of the others and never listed.
    """

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        self.package = package

    def names(self) -> list[str]:
        """Every name the folder offers, sorted."""
        paths = importlib.import_module(self.package).__path__
        names = [module.name for module in pkgutil.iter_modules(paths)]
        return sorted(name for name in names if name != "base" and name[0] != "_")

    def get(self, name: str) -> T:
        """The thing called `name`; raises UserError naming the choices if there is none."""
        module = importlib.import_module(f"{self.package}.{choose(name, self.names(), self.what)}")
        member: Any = getattr(module, "".join(part.title() for part in name.split("_")))
        return member  # type: ignore[no-any-return]

    def summary(self, name: str) -> str:
        """The first line of the named thing's docstring."""
        return (self.get(name).__doc__ or "").strip().split("\n")[0]
