"""Looking before doing: what is wrong with data, what a folder holds, what can be chosen."""

from pathlib import Path

from pydantic import Field

from clozeworks import tasks
from clozeworks.api.describe import describe, describe_checkpoint, tokenizer_in_words
from clozeworks.core.bundle import open_bundle
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import existing
from clozeworks.core.log import clock, say
from clozeworks.data.doctor import Row, Window, examine
from clozeworks.data.findings import Findings
from clozeworks.data.read import read_examples
from clozeworks.data.shards import MANIFEST, Manifest, Shards
from clozeworks.data.sources.base import SOURCES
from clozeworks.interop.hub import local
from clozeworks.interop.huggingface import config_of
from clozeworks.interop.tensorflow import find_checkpoint
from clozeworks.model.families import FAMILIES
from clozeworks.tasks.base import Task
from clozeworks.text.load import load_tokenizer
from clozeworks.text.segmenters import SEGMENTERS
from clozeworks.train.state import latest_cursor


class DoctorRecipe(Settings):
    """What the `doctor` verb needs."""

    data: Path
    """Labelled examples to learn from."""
    task: str = "classify"
    """What they are for."""
    model: Path | None = None
    """Model or tokenizer folder, in whose tokens texts are counted; absent: they are not."""
    dev: Path | None = None
    """Examples to judge on while training."""
    test: Path | None = None
    """Examples to judge on at the end."""
    window: int = Field(default=128, ge=8)
    """Longest sequence in tokens that the model will see."""
    target_length: int | None = Field(default=None, ge=8)
    """The same of what it will write, for tasks that do; absent: as training has it."""
    separator: str | None = Field(default=None, min_length=1)
    """Sign between several labels in one cell; absent: a cell is one label."""
    columns: dict[str, str] = {}
    """Column names of the task's fields, where they are not called the same."""
    encoding: str = "utf-8"
    """Character encoding of the files; gb18030 for most Chinese files that are not UTF-8."""
    format: str | None = None
    """Form of the files, where their names do not tell it."""


def doctor(recipe: DoctorRecipe) -> Findings:
    """Look for what spoils training: duplicates, overlap, contradictions, empty and long texts."""
    task = tasks.TASKS.get(recipe.task)
    files = {"train": recipe.data, "dev": recipe.dev, "test": recipe.test}
    splits = {name: _rows(task, path, recipe) for name, path in files.items() if path is not None}
    window = Window(recipe.window, cuts=not task.windows, written=_longest_target(task, recipe))
    if recipe.model is None:
        say("no --model: lengths and unknown words, which are counted in its tokens, are left out")
        return examine(splits, None, window)
    folder = local(recipe.model)
    if (folder / "config.json").exists():
        window = window._replace(most=config_of(open_bundle(folder)).max_positions)
    return examine(splits, load_tokenizer(folder), window)


def _rows(task: type[Task], path: Path, recipe: DoctorRecipe) -> list[Row]:
    """What is looked at of a file's Examples."""
    found = [
        Row(*task.shown(example), task.apart, task.written(example))
        for example in read_examples(
            path,
            task.Example,
            recipe.columns,
            needed=task.answers if len(task.answers) == 1 else (),
            one_of=() if task.unlabelled else task.answers,
            encoding=recipe.encoding,
            format=recipe.format,
            empty="keep",
            check=task.readable,
        )
    ]
    if "label" not in task.answers:
        return found
    labels = [_label(row.label, recipe.separator) for row in found]
    if recipe.separator is None and not any(
        isinstance(label, list) and len(label) > 1 for label in labels
    ):
        labels = [label or None for label in labels]  # of one label a row, none at all is no answer
    return [row._replace(label=label) for row, label in zip(found, labels, strict=True)]


def _label(label: str | list[str] | None, separator: str | None) -> str | list[str] | None:
    """As training reads it: without white space around it, and in parts where a sign divides it."""
    if label is None or (isinstance(label, str) and separator is None):
        return label and label.strip()
    parts = label.split(separator) if isinstance(label, str) else label
    return [name for part in parts if (name := part.strip())]


def _longest_target(task: type[Task], recipe: DoctorRecipe) -> int | None:
    """The longest target that is learned; None, of a task that writes nothing."""
    field = task.Config.model_fields.get("target_length")
    if field is not None:
        return recipe.target_length or int(field.default)
    if recipe.target_length is not None:
        raise UserError(
            f"target_length is for tasks that write, and {recipe.task} does not; leave it out"
        )
    return None


INNER = ("*/run.json", "*/config.json", "snapshots/*/config.json")
"""Where a folder that is nothing itself may hold what was meant."""


class InfoRecipe(Settings):
    """What the `info` verb needs."""

    path: Path
    """A model, a run, shards, or a tokenizer: any folder this program makes or reads; a TensorFlow
    checkpoint; or a model by name, as hub:OWNER/NAME."""


def info(recipe: InfoRecipe) -> dict[str, str]:
    """What a folder holds, as lines of a name and a value."""
    path = local(recipe.path)
    if (path / MANIFEST).exists():
        return _of_shards(path)
    if (path / "run.json").exists():
        return _of_run(path)
    whole = [*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]
    if not whole and (prefix := find_checkpoint(path)) is not None:
        return describe_checkpoint(prefix)
    existing(path, "folder")
    if (path / "config.json").exists():
        return describe(path)
    if (path / "tokenizer.json").exists() or (path / "vocab.txt").exists():
        return _of_tokenizer(path)
    inner = [p.parent for pattern in INNER for p in sorted(path.glob(pattern))]
    hint = f"; did you mean {inner[0]}?" if inner else ""
    raise UserError(
        f"{path} is not a model (config.json), a run (run.json), shards ({MANIFEST}) or a "
        f"tokenizer (tokenizer.json){hint}"
    )


def _of_tokenizer(path: Path) -> dict[str, str]:
    tokenizer = load_tokenizer(path)
    return {
        "folder": str(path),
        "tokenizer": tokenizer_in_words(tokenizer),
        "special": ", ".join(tokenizer.roles.values()),
        "hash": tokenizer.hash[:12],
    }


def _of_run(path: Path) -> dict[str, str]:
    lines = {"folder": str(path), "recipe": str(path / "recipe.toml")}
    cursor = latest_cursor(path / "checkpoints")
    if cursor is not None:
        lines["progress"] = f"step {cursor.step:,} of {cursor.total:,}"
        lines["seen"] = f"{cursor.tokens:,} tokens in {clock(cursor.seconds)}"
    finished = (path / "bundle" / "config.json").exists()
    lines["model"] = str(path / "bundle") if finished else "not finished"
    return lines


def _of_shards(path: Path) -> dict[str, str]:
    manifest = Shards.open(path).manifest
    return {
        "folder": str(path),
        "sources": ", ".join(origin.name for origin in manifest.sources),
        "documents": f"{manifest.documents:,}",
        "sentences": f"{manifest.sentences:,}",
        "tokens": f"{manifest.tokens:,} ({manifest.unknown / manifest.tokens:.3%} unknown)",
        "words": manifest.words or "no bounds: prepare again with --words auto to hide whole ones",
        "left out": _left_out(manifest),
        "shards": f"{len(manifest.shards)}",
    }


def _left_out(manifest: Manifest) -> str:
    """How many documents were left out for each reason."""
    counts = {
        "duplicates": manifest.duplicates,
        "empty": manifest.empty,
        "too short": manifest.short,
        "in another script": manifest.other_scripts,
    }
    return ", ".join(f"{n:,} {why}" for why, n in counts.items() if n) or "none"


def _sizes(family: str) -> str:
    """A family's named sizes, each with its layers and width."""
    sizes = FAMILIES.get(family).sizes
    return ", ".join(f"{n} ({s['num_layers']} × {s['hidden_size']})" for n, s in sizes.items())


def listing() -> dict[str, dict[str, str]]:
    """All that can be named: tasks, families, sources, segmenters, sizes; a line on each."""
    return {
        "tasks": {name: tasks.TASKS.summary(name) for name in tasks.TASKS.names()},
        "families": {name: FAMILIES.summary(name) for name in FAMILIES.names()},
        "sources": {name: SOURCES.summary(name) for name in SOURCES.names()},
        "segmenters": {name: SEGMENTERS.summary(name) for name in SEGMENTERS.names()},
        "sizes": {name: _sizes(name) for name in FAMILIES.names()},
    }
