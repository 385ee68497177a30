"""The command line: argv in, text out; flags and help are made from the settings classes."""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Optional, get_origin

import tyro
from pydantic import BaseModel, Field, create_model
from tyro.conf import OmitArgPrefixes, Positional

import clozeworks
from clozeworks.core.config import Settings, read_toml, validated
from clozeworks.core.errors import UserError, choose
from clozeworks.core.log import follows, say

TRAINING = ("pretrain", "finetune")
"""Verbs that several processes share."""
TRACEBACK = "CLOZEWORKS_TRACEBACK"
"""Environment variable that lets the whole traceback of a defect be seen."""
STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Verb(NamedTuple):
    """One word of the command line."""

    help: str
    recipe: str
    """Name of its settings class in `clozeworks.api`."""
    positional: tuple[str, ...]
    """Settings that need no flag, in order."""
    answers: bool = True
    """Whether the columns of right answers are read."""


VERBS = {
    "tokenizer": Verb("train a WordPiece tokenizer on text", "TokenizerRecipe", ("files",)),
    "prepare": Verb("turn a corpus into shards of token ids", "PrepareRecipe", ("files",)),
    "extend": Verb("give a model more pieces or positions", "ExtendRecipe", ("model", "files")),
    "plan": Verb("propose the sizes of a pretraining for this machine", "PlanRecipe", ("run",)),
    "pretrain": Verb("pretrain an encoder on prepared shards", "PretrainRecipe", ("data",)),
    "finetune": Verb("fine-tune a model on labelled examples", "FinetuneRecipe", ("data",)),
    "evaluate": Verb("judge a model and write a report", "EvaluateRecipe", ("model", "data")),
    "predict": Verb("predict every row of a file", "PredictRecipe", ("model", "data"), False),
    "convert": Verb(
        "bring a model from elsewhere into a folder", "ConvertRecipe", ("source", "out")
    ),
    "doctor": Verb("look for what is wrong with labelled data", "DoctorRecipe", ("data",)),
    "info": Verb("say what a folder holds", "InfoRecipe", ("path",)),
    "list": Verb("list tasks, families, sources, segmenters and sizes", "", ()),
    "demo": Verb("run the whole path on built-in text", "DemoRecipe", ()),
}


def main(argv: list[str] | None = None) -> None:
    """Run one verb; leaves with code 0, 2 after a user's error, 1 after ours, 130 after Ctrl-C."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        say(f"error: {about}{error.strerror or error}")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        say(str(stop) or "stopped")
        sys.exit(STOPPED)
    except Exception as error:
        if os.environ.get(TRACEBACK) or follows():  # of several processes, only the first speaks
            raise
        say(_defect(error))
        sys.exit(1)


def _defect(error: Exception) -> str:
    """One line on an exception that nobody foresaw."""
    about = " ".join(str(error).split())[:300]
    return (
        f"error: a defect of the program, not of what it was given: {type(error).__name__}"
        f"{': ' if about else ''}{about}; run it again with {TRACEBACK}=1 to see where, and "
        "report that"
    )


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return
    if argv[0] == "--version":
        print(clozeworks.__version__)
        return
    name = choose(argv[0], VERBS, "verb")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and name not in TRAINING:
        raise UserError(
            f"`{name}` runs in one process; leave torchrun out (choices: {', '.join(TRAINING)})"
        )
    verb, rest = VERBS[name], argv[1:]
    if name == "list":
        if not {"-h", "--help"} & set(rest):
            _refuse_more(rest)
            _print_sections(clozeworks.listing())
            return
        _parsed(create_model("List", __base__=Settings), rest, f"clozeworks {name}", verb)
    recipe = _recipe(name, verb, getattr(clozeworks, verb.recipe), rest)
    _show(getattr(clozeworks, name)(recipe))


def _refuse_more(rest: list[str]) -> None:
    """Raise UserError where a verb that takes nothing is given something."""
    if rest:
        raise UserError(f"`clozeworks list` takes nothing more, not {rest[0]!r}")


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "Clozeworks: from raw text to your own BERT in service.",
            "",
            "usage: clozeworks VERB …   (clozeworks VERB --help explains one)",
            "",
            *lines,
            "",
            "Every verb also takes --recipe FILE, a TOML file of settings; a flag overrides it.",
        ]
    )


def _recipe(name: str, verb: Verb, kind: type[Settings], argv: list[str]) -> Settings:
    """The verb's settings from a recipe file, if one is named, and flags."""
    values, argv = _from_file(kind, argv)
    task = None
    if "task" in kind.model_fields and name != "doctor":
        task, argv = _task_word(name, kind, values, argv)
        values["task"] = task
        _refuse_other_verb(name, task)
    flags = _flags(verb, kind, task, values)
    prog = f"clozeworks {name}" + (f" {task}" if task else "")
    given = _gathered(kind, _parsed(flags, argv, prog, verb))
    both = {n for n, value in given.items() if isinstance(value, dict)} & values.keys()
    tables = {name: {**values[name], **given[name]} for name in both}
    return validated(kind, {**values, **given, **tables}, prog)


def _parsed(flags: Any, argv: list[str], prog: str, verb: Verb) -> Any:
    """The flags as they are given; leaves after `--help`, and where one is not known."""
    with _said_once():
        return tyro.cli(
            flags,
            args=argv,
            prog=prog,
            description=verb.help[0].upper() + verb.help[1:] + ".",
            config=(tyro.conf.FlagCreatePairsOff,),
        )


@contextmanager
def _said_once() -> Iterator[None]:
    """Let only the first of several processes print."""
    if not follows():
        yield
        return
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _from_file(kind: type[Settings], argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of `--recipe FILE`, checked for unknown keys, and the other arguments."""
    argv = [part for word in argv for part in _split_recipe(word)]
    if "--recipe" not in argv:
        return {}, argv
    at = argv.index("--recipe")
    if at + 1 == len(argv):
        raise UserError("--recipe needs a TOML file after it")
    path = argv[at + 1]
    values = read_toml(path)
    partial = create_model(
        kind.__name__,
        __base__=Settings,
        **{  # type: ignore[call-overload]
            field: (Optional[info.annotation], None)  # noqa: UP045  # the annotation is a value
            for field, info in kind.model_fields.items()
        },
    )
    validated(partial, values, path)
    return values, [*argv[:at], *argv[at + 2 :]]


def _split_recipe(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--recipe=") else [word]


def _own_tasks(name: str) -> list[str]:
    """The tasks that are learned with a verb, `pretrain` or `finetune`."""
    from clozeworks.tasks import TASKS

    return [task for task in TASKS.names() if TASKS.get(task).from_shards == (name == "pretrain")]


def _task_word(
    name: str, kind: type[Settings], values: Mapping[str, Any], argv: list[str]
) -> tuple[str, list[str]]:
    """The task: the first word if it names one, else the recipe's, else the verb's default."""
    from clozeworks.tasks import TASKS

    own = _own_tasks(name)
    if argv and not argv[0].startswith("-") and set(argv[0].split("+")) <= set(TASKS.names()):
        return argv[0], argv[1:]
    default = kind.model_fields["task"]
    if "task" in values or not default.is_required():
        return str(values.get("task", default.default)), argv
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            print("name the task first, for its flags: clozeworks finetune TASK --help\n\ntasks:")
            for task in own:
                print(f"  {task:<12} {TASKS.summary(task)}")
            sys.exit(0)
        raise UserError(f"name the task after the verb (choices: {', '.join(own)})")
    return choose(argv[0], own, "task"), argv[1:]


def _refuse_other_verb(name: str, task: str) -> None:
    """Raise UserError where a task is unknown, or learned with the other training verb."""
    own, (other,) = _own_tasks(name), set(TRAINING) - {name}
    for part in task.split("+"):
        if part in _own_tasks(other):
            text = "labelled examples" if other == "finetune" else "a prepared corpus"
            raise UserError(f"{task!r} learns from {text}; use `clozeworks {other}`")
        choose(part, own, "task")


def _flags(verb: Verb, kind: type[Settings], task: str | None, values: Mapping[str, Any]) -> Any:
    """A settings class as the command line shows it.

    Positional settings lose their flag, `settings` its prefix, and `columns` becomes a flag for
    each column; what the recipe file says is the default.
    """
    fields: dict[str, Any] = {}
    for name, info in kind.model_fields.items():
        if name == "task" and task is not None:
            continue
        if name == "columns":
            fields |= _column_flags(task, values.get("columns", {}), verb.answers)
            continue
        annotation: Any = info.annotation
        default = info.get_default(call_default_factory=True)
        if name == "settings" and task is not None:
            if "+" in task:
                continue
            from clozeworks.tasks import TASKS

            annotation, default = TASKS.get(task).Config, TASKS.get(task).Config()
        if isinstance(default, BaseModel):
            annotation = _unchecked(type(default))
            default = annotation(**default.model_dump())
        if name in values and get_origin(annotation) is not dict:  # those are merged at the end
            default = _merged(annotation, default, values[name])
        if name == "encoder":
            continue
        if name == "settings":
            annotation = OmitArgPrefixes[annotation]  # type: ignore[misc]
        if name in verb.positional:
            shown = tyro.conf.arg(metavar=name.upper())
            annotation = Positional[Annotated[annotation, shown]]  # type: ignore[misc]
        required = info.is_required() and name not in values
        about = Field(default=... if required else default, description=info.description)
        fields[name] = (annotation, about)
    return create_model(kind.__name__, __base__=Settings, **fields)


def _unchecked(kind: type[BaseModel]) -> type[BaseModel]:
    """The same settings without their checks: those are made at the end, with our own errors."""
    fields: dict[str, Any] = {}
    for name, info in kind.model_fields.items():
        default = info.get_default(call_default_factory=True)
        annotation: Any = info.annotation
        if isinstance(default, BaseModel):
            annotation = _unchecked(type(default))
            default = annotation(**default.model_dump())
        fields[name] = (annotation, Field(default=default, description=info.description))
    return create_model(kind.__name__, __base__=Settings, __doc__=kind.__doc__, **fields)


def _merged(annotation: Any, default: Any, value: Any) -> Any:
    """A value from a recipe file as the setting's own type."""
    if isinstance(default, BaseModel) and isinstance(value, Mapping):
        return validated(type(default), {**default.model_dump(), **value}, "the recipe")
    if annotation == list[Path]:
        return [Path(item) for item in value]
    return Path(value) if annotation in (Path, Path | None) else value


def _column_flags(task: str | None, given: Mapping[str, str], answers: bool) -> dict[str, Any]:
    """A flag for each column the task's Examples have, or any task's where none is named."""
    from clozeworks.tasks import TASKS

    names = task.split("+") if task else TASKS.names()
    fields: dict[str, set[str | None]] = {}
    for kind in map(TASKS.get, names):
        for name, info in kind.Example.model_fields.items():
            if answers or name not in kind.answers:
                fields.setdefault(name, set()).add(info.description)
    for name in given:
        choose(name, fields, "field in [columns]")
    return {
        name: (
            Annotated[str | None, tyro.conf.arg(metavar="COLUMN")],
            Field(default=given.get(name), description=_column_of(name, said)),
        )
        for name, said in fields.items()
    }


def _column_of(name: str, said: AbstractSet[str | None]) -> str:
    """What a column's flag is described as, where tasks may say different things of it."""
    if len(said) > 1:
        return f"Column of: the {name}, of any task."
    (only,) = said
    return f"Column of: {only}"


def _gathered(kind: type[Settings], parsed: BaseModel) -> dict[str, Any]:
    """The parsed flags as the settings class takes them: columns back in one place."""
    given = {name: getattr(parsed, name) for name in type(parsed).model_fields}
    columns = {n: v for n, v in given.items() if n not in kind.model_fields and v is not None}
    own = {n: v for n, v in given.items() if n in kind.model_fields}
    # settings of a task that are not given are the model's; of others, None may be a choice
    plain = {
        n: v.model_dump(exclude_none=n == "settings") if isinstance(v, BaseModel) else v
        for n, v in own.items()
    }
    return {**plain, "columns": columns} if "columns" in kind.model_fields else plain


def _show(result: Any) -> None:
    """Print what a verb answers: lines for people; results with files have said where they are."""
    if isinstance(result, dict):
        width = max(map(len, result))
        for name, value in result.items():
            print(f"{name:<{width}}  {value}")
    elif callable(lines := getattr(result, "lines", None)):
        print("\n".join(lines()))


def _print_sections(sections: Mapping[str, Mapping[str, str]]) -> None:
    for title, entries in sections.items():
        print(f"{title}:")
        for name, about in entries.items():
            print(f"  {name:<12} {about}")
