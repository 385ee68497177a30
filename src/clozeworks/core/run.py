"""A Run is an output folder: its recipe, its environment, its metrics, its checkpoints."""

import json
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clozeworks.core.bundle import read_json
from clozeworks.core.config import Settings, to_toml
from clozeworks.core.errors import UserError
from clozeworks.core.files import explained, write_file
from clozeworks.core.log import say

PACKAGES = ("clozeworks", "torch", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Run:
    """The folder of one run; `resumed` says whether it held the same run already."""

    path: Path
    resumed: bool
    inputs: dict[str, str]
    """Hashes of what the run reads, by name."""

    @classmethod
    def start(cls, path: str | Path, verb: str, recipe: Settings, inputs: dict[str, str]) -> "Run":
        """Make the folder, or take it up again if it holds this very run.

        `inputs` are hashes of what the run reads: what lies at its paths. Settings that are `free`
        may differ from those it began with; other versions of the packages are told and noted.
        Raises UserError if the folder holds another run (naming everything that differs) or other
        files.
        """
        path = Path(path)
        identity = {"verb": verb, "recipe": recipe.model_dump(mode="json"), "inputs": inputs}
        identity = json.loads(json.dumps(identity))
        if (path / "run.json").exists():
            there = read_json(path / "run.json", "choose another --out, or remove that folder")
            _refuse_if_other(path, there, identity, _free(recipe, "recipe."))
            _note_versions(path / "environment.json")
            return cls(path, resumed=True, inputs=inputs)
        with explained(path):
            if path.exists() and (not path.is_dir() or _holds_other_files(path)):
                raise UserError(f"{path} is not empty; choose another --out, or remove it")
        with write_file(path / "recipe.toml") as stream:
            stream.write(to_toml(recipe))
        with write_file(path / "environment.json") as stream:
            json.dump(environment(), stream, indent=2)
        with write_file(path / "run.json") as stream:  # last: its presence makes the folder a run
            json.dump(identity, stream, indent=2, ensure_ascii=False)
        return cls(path, resumed=False, inputs=inputs)

    @property
    def bundle(self) -> Path:
        """Where the run's model folder goes."""
        return self.path / "bundle"

    @property
    def best(self) -> Path:
        """Where the model folder of the best judgement goes."""
        return self.path / "best"

    @property
    def rescued(self) -> Path:
        """Where the model folder of a diverged run's last checkpoint goes."""
        return self.path / "rescued"

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints go."""
        return self.path / "checkpoints"

    def forget_after(self, step: int) -> None:
        """Drop lines of `metrics.jsonl` past `step`: a resumed run writes them again."""
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return
        kept = []
        for line in file.read_bytes().splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # the line that was being written when the power went
                continue
            if isinstance(event, dict) and event.get("step", 0) <= step:
                kept.append(line + b"\n")
        with write_file(file, "wb") as out:
            out.writelines(kept)


def _holds_other_files(path: Path) -> bool:
    """Whether there is more than what a run killed at its very start leaves."""
    names = {p.name for p in path.iterdir() if not re.fullmatch(r"\..+\.tmp", p.name)}
    return bool(names - {"recipe.toml", "environment.json"})


def _note_versions(file: Path) -> None:
    """Say where a run is taken up with other versions than last time, and write down which."""
    if not file.exists():
        return
    begun = read_json(file, "remove it")
    sittings = [begun, *begun.get("later", [])]
    then, now = sittings[-1].get("versions", {}), versions()
    differ = [
        f"{name} was {then.get(name)}, now {now.get(name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    if not differ:
        return
    say(
        f"{file.parent} goes on with other versions ({'; '.join(differ)}): its last digits may "
        "differ from those of an undisturbed run"
    )
    with write_file(file) as stream:
        json.dump({**begun, "later": [*sittings[1:], environment()]}, stream, indent=2)


LONGEST = 40
"""Characters of a value that a refusal shows: enough to tell two hashes apart."""


def _refuse_if_other(
    path: Path, there: dict[str, Any], here: dict[str, Any], free: set[str]
) -> None:
    flat_there, flat_here = _flat(there), _flat(here)
    differ = [
        f"{key} was {_shown(flat_there.get(key))}, now {_shown(flat_here.get(key))}"
        for key in sorted(flat_there.keys() | flat_here.keys())
        if flat_there.get(key) != flat_here.get(key) and not _within(key, free)
    ]
    if differ:
        raise UserError(
            f"{path} holds a different run ({'; '.join(differ)}); "
            "choose another --out, or remove that folder"
        )


def _within(key: str, names: set[str]) -> bool:
    """Whether a flat key is one of some names, or of a table of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _free(settings: Settings, prefix: str) -> set[str]:
    """The flat keys of the settings that may change."""
    found = {prefix + name for name in settings.free}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found |= _free(value, f"{prefix}{name}.")
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def versions() -> dict[str, str]:
    """Versions of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """What a reader of the run needs to know of the machine."""
    return {
        "versions": versions(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


LOCK = ".lock"
"""The file by which a process says that it is at work in a folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder inside the block.

    Raises UserError if one does already. Where the file system knows no locks, nothing is kept from
    anyone.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    with explained(folder):
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"{folder} is being worked on by another process; wait for it, stop it, or choose "
                "another --out"
            ) from error
        except NotImplementedError:
            say(f"{folder}: no locks on this file system; start no second run there")
    try:
        yield
    finally:
        lock.release()
