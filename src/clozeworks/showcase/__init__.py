"""The whole path on text that is already here: `demo` gathers, trains, judges and predicts."""

from clozeworks.showcase.run import DemoRecipe, demo

__all__ = ["DemoRecipe", "demo"]
