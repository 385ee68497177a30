"""A Bundle is a model folder: a Hugging Face folder plus `clozeworks.json`, the card."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from clozeworks.core.config import Settings, validated
from clozeworks.core.errors import UserError, suggestion
from clozeworks.core.files import existing, explained

CARD = "clozeworks.json"
OWN = "clozeworks.safetensors"
"""Weights that no class of Hugging Face's has a name for, such as those of a CRF."""
GENERATOR = "generator"
"""Folder inside a Bundle: the model that put in the tokens this one learned to find."""


class Fold(Settings):
    """Folding of characters before the tokenizer's own normalisation; offsets are kept."""

    width: bool = False
    """Turn full-width letters, digits and signs into their ordinary forms (Ａ１ → A1)."""
    simplified: bool = False
    """Turn traditional Chinese characters into simplified ones, one for one."""


class Calibration(Settings):
    """How raw scores become probabilities, and when the model says "I don't know"."""

    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by this before the softmax; fitted on the dev set."""
    threshold: float = Field(default=0.0, ge=0, le=1)
    """A top probability below this is answered "I don't know"."""
    thresholds: list[float] | None = None
    """With any number of labels: the probability from which on each is given; of nested entities,
    one for all."""
    margin: float | None = None
    """Of answers from a text: none is given where that scores so much more than the best one."""
    zero: float = 0.0
    """Of numbers: what a score of 0 stands for."""
    unit: float = Field(default=1.0, gt=0)
    """Of numbers: by how much one differs for each 1 of its score."""


class Provenance(Settings):
    """Where a model comes from."""

    parent: str | None = None
    """The Bundle or run this one was made from."""
    data: dict[str, str] = {}
    """SHA-256 of each file the run read, by its name or by what it was to the run."""
    recipe: dict[str, Any] = {}
    """The resolved recipe of the run that made it."""
    versions: dict[str, str] = {}
    """Versions of the packages it was made with."""
    seed: int | None = None
    """The seed of that run."""


class Card(Settings):
    """The contents of `clozeworks.json`: what no other file of the folder says."""

    format: Literal[1] = 1
    """Version of this file's form."""
    task: str | None = None
    """The task the heads were trained for; None for a folder from elsewhere."""
    settings: dict[str, Any] = {}
    """The task's own settings, as its Config takes them."""
    labels: list[str] | None = None
    """Label names in the order of the head's outputs, each once."""
    calibration: Calibration = Calibration()
    fold: Fold = Fold()
    tokenizer: str | None = None
    """Hash of the tokenizer the weights were trained with."""
    max_length: int | None = None
    """The window in tokens the model was trained with."""
    provenance: Provenance = Provenance()

    @field_validator("labels")
    @classmethod
    def _each_once(cls, labels: list[str] | None) -> list[str] | None:
        twice = next((label for label in labels or [] if (labels or []).count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice; each label names one output")
        return labels


@dataclass(frozen=True)
class Bundle:
    """A model folder read as data: its path, HF config and card; weights stay in their file."""

    path: Path
    config: dict[str, Any]
    card: Card

    @property
    def weights(self) -> list[Path]:
        """The weight files, safetensors before `.bin`.

        Where the folder has an index, the files it names. Raises UserError if there are none, or
        one is missing.
        """
        for whole in ("model.safetensors", "pytorch_model.bin"):
            if (self.path / whole).exists():
                return [self.path / whole]
            if (self.path / f"{whole}.index.json").exists():
                return self._indexed(self.path / f"{whole}.index.json")
        raise UserError(
            f"{self.path} holds no weights: copy model.safetensors or pytorch_model.bin there"
        )

    def _indexed(self, index: Path) -> list[Path]:
        """The files a weight index names, which must lie beside it."""
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise UserError(f"{index} names no files: it has no weight_map; copy it again")
        names = sorted({str(name) for name in places.values()})
        for name in names:
            if Path(name).name != name or name in ("", ".", ".."):
                raise UserError(f"{index} names {name!r}, which does not lie beside it")
        return [existing(self.path / name, "weight file") for name in names]

    @property
    def files(self) -> list[Path]:
        """Every file that decides what the model says: weights, config, tokenizer, card."""
        names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", CARD, OWN)
        return [*self.weights, *(p for p in (self.path / name for name in names) if p.exists())]

    @property
    def generator(self) -> "Bundle | None":
        """The generator it was trained with, where the folder holds one."""
        inner = self.path / GENERATOR
        return open_bundle(inner) if (inner / "config.json").exists() else None


def open_bundle(path: str | Path) -> Bundle:
    """Read a Bundle's config and card; raises UserError naming what is missing or damaged."""
    path = Path(path)
    if not path.exists():
        raise _absent(path)
    if not path.is_dir():
        raise UserError(f"{path} is a file; name the model folder that holds config.json")
    if not (path / "config.json").exists():
        inner = [
            p.parent
            for depth in ("*", "snapshots/*")
            for p in sorted(path.glob(f"{depth}/config.json"))
        ]
        hint = f"; did you mean {inner[0]}?" if inner else ""
        raise UserError(f"{path} is not a model folder: config.json is missing{hint}")
    check_links(path.iterdir())
    values = read_json(path / CARD) if (path / CARD).exists() else {}
    return Bundle(path, read_json(path / "config.json"), validated(Card, values, str(path / CARD)))


def _absent(path: Path) -> UserError:
    """Why a model folder that is not there cannot be opened, with the models that lie beside it."""
    beside = sorted(
        str(place)
        for folder in path.parent.glob("[!.]*")
        for place in (folder, folder / "bundle")
        if (place / "config.json").is_file()
    )
    choices = suggestion(str(path), beside) if beside else ""
    return UserError(
        f"model folder {path} does not exist{choices}; name one that does, hub:OWNER/NAME for a "
        "model of the Hub, or clozeworks-mini, which comes with the package"
    )


def check_links(files: Iterable[Path]) -> None:
    """Raise UserError if one of the files stands for one outside its folder.

    In a Hugging Face cache a model's files are links into its own `blobs`, which is not elsewhere.
    """
    for file in files:
        if not file.is_symlink():
            continue
        target, home = Path(os.path.realpath(file)), file.parent.resolve()
        if not any(target.is_relative_to(place) for place in (home, *_blobs(home))):
            raise UserError(f"{file} is a link that leads out of its folder; copy the file there")


def _blobs(home: Path) -> list[Path]:
    """Where a Hugging Face cache (`models--…/snapshots/REVISION`) keeps what a folder links to."""
    models = [place.parents[1] for place in (home, home.parent) if place.parent.name == "snapshots"]
    return [model / "blobs" for model in models if model.name.startswith("models--")]


def read_json(path: Path, remedy: str = "copy it again") -> dict[str, Any]:
    """The JSON object in a file; raises UserError if it is absent, cut short or not an object."""
    with explained(existing(path), "read"):
        text = path.read_bytes()
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged or cut short ({error}); {remedy}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} should hold a JSON object, not a {type(values).__name__}")
    return values
