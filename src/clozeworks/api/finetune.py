"""Fine-tune a model for a task on labelled examples."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from clozeworks import tasks
from clozeworks.api.labelled import labelled_examples
from clozeworks.api.model import adopt, begin_anew, check_window, keep, limits_of, say_cut
from clozeworks.core.bundle import Bundle, open_bundle
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest
from clozeworks.core.log import counted, say
from clozeworks.core.run import Run
from clozeworks.data.batches import Group
from clozeworks.data.order import ExampleStream
from clozeworks.data.split import hold_out
from clozeworks.inference.engine import Engine
from clozeworks.interop.hub import SHIPPED, local
from clozeworks.interop.huggingface import labels_of
from clozeworks.interop.sentences import is_sentence_folder, said_of
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Draw, Part, Task
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.train.best import TOTAL, check_wish
from clozeworks.train.distributed import Team, gathered
from clozeworks.train.fit import Fit, took
from clozeworks.train.loop import TrainSettings, held_out_losses
from clozeworks.train.precision import pick_device
from clozeworks.train.rates import finetuning_rate, rated


class FinetuneRecipe(Settings):
    """What the `finetune` verb needs."""

    free: ClassVar[frozenset[str]] = frozenset({"data", "model", "out", "dev", "device"})

    task: str
    """What to fine-tune for, such as classify or tag."""
    data: Path
    """Labelled examples: jsonl, csv, tsv, conll, xlsx or parquet; all but these two also packed
    (.gz, .xz)."""
    model: Path = SHIPPED
    """Model to start from: a Bundle, a Hugging Face folder, or hub:OWNER/NAME@REVISION; by default
    the small one for English and Chinese that comes with the package."""
    out: Path
    """Folder of the run; the finished model is its `bundle`."""
    dev: Path | None = None
    """Labelled examples to judge and calibrate on; absent: some of `data` are held out."""
    dev_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of `data` held out, by a hash of the text, where there is no dev file."""
    columns: dict[str, str] = {}
    """Column names of the task's fields, where they are not called the same."""
    encoding: str = "utf-8"
    """Character encoding of the files; gb18030 for most Chinese files that are not UTF-8."""
    format: str | None = None
    """Form of the files, where their names do not tell it."""
    skip_empty: bool = False
    """Leave out rows whose text is empty, and count them, instead of stopping."""
    scratch: bool = False
    """Keep the model's shape but not its weights: what pretraining is worth is then measured."""
    reinit: int | None = Field(default=None, ge=0)
    """Start the pooler and so many of the last layers from chance: 0 is the pooler alone. Absent:
    nothing, but for the pooler of a sentence-transformers folder, which took no part in its
    vectors."""
    settings: dict[str, Any] = {}
    """The task's own settings."""
    train: TrainSettings = TrainSettings()
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto for a GPU if there is one."""

    @model_validator(mode="after")
    def _dev_or_a_share(self) -> Self:
        usual = type(self).model_fields["dev_share"].default
        if self.dev is not None and self.dev_share != usual:
            raise ValueError(
                f"dev_share {self.dev_share:g} is of rows held out, and none are where there are "
                "dev rows; leave out one of the two"
            )
        return self


class Finetuned(Settings):
    """What the `finetune` verb made."""

    bundle: Path
    """The finished model's folder."""
    dev: dict[str, float]
    """Metrics on the dev set."""
    cost: str
    """Steps, tokens and time."""


def finetune(recipe: FinetuneRecipe) -> Finetuned:
    """Fine-tune to the end of the recipe's duration, calibrate on dev, and write the Bundle.

    The same recipe and folder continue a run that stopped. Started by torchrun, its processes share
    each step; the first one writes. Raises UserError for unusable data.
    """
    with gathered(pick_device(recipe.device)) as team:
        return _finetune(recipe, team)


def _finetune(recipe: FinetuneRecipe, team: Team) -> Finetuned:
    kind = tasks.TASKS.get(recipe.task)
    if kind.from_shards:
        raise UserError(f"{recipe.task!r} learns from a prepared corpus; use `clozeworks pretrain`")
    parent = open_bundle(local(recipe.model))
    theirs = load_tokenizer(parent.path)
    tokenizer = _with_pieces(theirs, kind)
    settings = {**said_of(recipe.task, parent), **recipe.settings}
    draft = tasks.create(recipe.task, settings, tokenizer.vocabulary)
    for name, limit in draft.limits.items():
        check_window(parent, limit, name)
    train = labelled_examples(recipe.data, draft, recipe)
    recipe = _asking(recipe, draft, train)
    train, dev = (train, []) if recipe.dev else _held_out(draft, train, recipe.dev_share)
    train = _enlarged(draft, train, recipe.train.seed)
    labels = _labels(draft, train, parent, recipe.data)
    task = tasks.create(recipe.task, settings, tokenizer.vocabulary, labels)
    if recipe.dev is not None:
        dev = labelled_examples(recipe.dev, task, recipe, task.target)
        _say_shared(task, train, dev)
    groups = _groups(task, train, tokenizer)
    task.look_over(groups)
    task.calibration = task.as_set(task.calibration)  # so that dev is judged by it on the way, too
    groups = task.readings(groups)
    check_wish(recipe.train.keep_best, [*_losses(task), *task.measured(dev)])
    model = adopt(parent, task, theirs, recipe, tokenizer)
    _begin_anew(model, task, parent, recipe)
    width = model.config.hidden_size
    recipe = rated(recipe, finetuning_rate(width, task.pace), width)
    run = team.first(lambda: Run.start(recipe.out, "finetune", recipe, _inputs(recipe, parent)))

    outcome = _Outcome(recipe, task, tokenizer, dev, run)
    stream = ExampleStream(groups, recipe.train.batch, recipe.train.unit, recipe.train.seed)
    fit = Fit(
        model,
        task,
        stream,
        recipe.train,
        run,
        outcome.judge,
        write=outcome.write_aside,
        team=team,
    )
    fitted = fit()
    team.first(lambda: outcome.write(model))
    dev_numbers = dict(fitted.judged)
    say(f"trained in {took(fitted.cursor)}")
    say("dev: " + ", ".join(f"{name} {value:.4f}" for name, value in dev_numbers.items()))
    say(f"model → {run.bundle}")
    return Finetuned(bundle=run.bundle, dev=dev_numbers, cost=took(fitted.cursor))


def _asking(recipe: FinetuneRecipe, task: Task, train: list[Any]) -> FinetuneRecipe:
    """The recipe with the columns of what rows to learn from were asked with, empty for what they
    were not, so that a file of another kind is not taken for one of theirs."""
    had = [f for f in sorted(task.asked_with) if any(getattr(row, f) is not None for row in train)]
    columns = {field: field if field in had else "" for field in sorted(task.asked_with)}
    for field in had:
        if lacking := sum(getattr(row, field) is None for row in train):
            say(f"{counted(lacking, 'row has', 'rows have')} no {field}, which others have")
    return recipe.model_copy(update={"columns": {**columns, **recipe.columns}})


def _say_shared(task: Task, train: list[Any], dev: list[Any]) -> None:
    """Say how many of the rows to judge by are also among those to learn from."""
    learned = {task.key(example) for example in train}
    if shared := sum(task.key(example) in learned for example in dev):
        say(
            f"{shared:,} of the {counted(len(dev), 'dev row', 'dev rows')} ask what rows to learn "
            "from ask: what is judged and calibrated by them flatters; name others with --dev"
        )


def _begin_anew(model: Model, task: Task, parent: Bundle, recipe: FinetuneRecipe) -> None:
    """Let start from chance what the recipe says, or what took no part in the parent's training."""
    layers = recipe.reinit
    if layers is None and task.pooled and not recipe.scratch and is_sentence_folder(parent):
        layers = 0
        say(f"the pooler of {parent.path} took no part in its sentence vectors: begun from chance")
    if layers is not None:
        begin_anew(model, layers, recipe.train.seed)


@dataclass(frozen=True)
class _Outcome:
    """What is done with the model of a run: it is judged, calibrated on dev, and written."""

    recipe: FinetuneRecipe
    task: Task
    tokenizer: Tokenizer
    dev: list[Any]
    run: Run

    def judge(self, live: Model) -> Mapping[str, float]:
        """Its metrics on dev, or on a sample of it, and then its loss on all of it."""
        task, rows = self.task, self.dev
        losses: dict[str, float] = {}
        if task.sampled is not None:
            rows = _evenly(self.dev, task.sampled)
            train = self.recipe.train
            losses = held_out_losses(live, task.judged, self.held_out, train.micro_tokens)
        engine = Engine(live, task, self.tokenizer)
        numbers = task.metrics(list(engine.predict(rows)), rows) if rows else {}
        return {**losses, **numbers}

    @cached_property
    def held_out(self) -> ExampleStream:
        """Dev as training reads it."""
        train = self.recipe.train
        groups = _groups(self.task, self.dev, self.tokenizer, "dev: ")
        return ExampleStream(groups, train.batch, train.unit, train.seed)

    def write_aside(self, live: Model, folder: Path) -> None:
        """Write it as it is now; judgements to come must not know of its calibration."""
        before = self.task.calibration
        self._calibrate(live)
        keep(self.run, live, self.task, self.tokenizer, self.recipe, folder)
        self.task.calibration = before

    def write(self, finished: Model) -> None:
        """Write the finished model, and say what its calibration came to."""
        engine, examples, parts = self._calibrate(finished)
        say_cut(engine, "dev: ")
        for remark in self.task.remarks(examples, parts):
            say(remark)
        keep(self.run, finished, self.task, self.tokenizer, self.recipe)

    def _calibrate(self, live: Model) -> tuple[Engine, Items[Any], Items[list[Part]]]:
        engine = Engine(live, self.task, self.tokenizer)
        if self.task.sampled is not None:
            return engine, self.dev, []
        examples, parts = zip(*engine.parts(self.dev), strict=True)
        self.task.calibration = self.task.as_set(self.task.calibrate(examples, parts))
        return engine, examples, parts


def _evenly(rows: list[Any], count: int) -> list[Any]:
    """So many of the rows, from all over them."""
    count = min(count, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _losses(task: Task) -> list[str]:
    """The losses a run is judged by, where it is."""
    return [] if task.sampled is None else [TOTAL, *task.weights]


def _held_out(task: Task, examples: list[Any], share: float) -> tuple[list[Any], list[Any]]:
    """The examples to learn from, and those to judge on; says how many."""
    kept, dev = hold_out(examples, share, key=task.key, label=task.stratum)
    alike = ", of each class alike" if len({task.stratum(row) for row in examples}) > 1 else ""
    say(
        f"no dev file: {len(dev):,} of {counted(len(examples), 'row', 'rows')} held out by a hash "
        f"of their text{alike}; give --dev FILE to choose them yourself"
    )
    return kept, dev


def _with_pieces(tokenizer: Tokenizer, kind: type[Task]) -> Tokenizer:
    """The tokenizer with the pieces that the task needs besides."""
    lacking = kind.pieces_lacking(tokenizer.vocabulary) if tokenizer.is_wordpiece else []
    if not lacking:
        return tokenizer
    say(f"new in the vocabulary, for marks in texts: {', '.join(lacking)}")
    return tokenizer.with_pieces(lacking)


def _enlarged(task: Task, examples: list[Any], seed: int) -> list[Any]:
    """The examples with those that the task makes of them; says how many."""
    more = task.enlarged(examples, Draw(seed, 0))
    if len(more) > len(examples):
        say(f"{counted(len(more) - len(examples), 'row', 'rows')} more, made of those given")
    return more


def _labels(task: Task, train: list[Any], parent: Bundle, path: Path) -> list[str]:
    """The label names: in the parent's order if it has just these."""
    try:
        found = task.labels_in(train)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    inherited = labels_of(parent)
    labels = inherited if set(inherited) == set(found) else found
    named = f", {len(labels)} labels" if len(labels) > 1 else ""
    say(f"{counted(len(train), 'row', 'rows')} to learn from{named}")
    return labels


def _groups(task: Task, examples: list[Any], tokenizer: Tokenizer, of: str = "") -> list[Group]:
    """Tokenised examples with what is to be learned of them; says how many were cut, `of` whose."""
    features = task.features(examples, tokenizer)
    pairs = enumerate(zip(examples, features, strict=True))
    groups = [Group(i, sequences, task.target(example)) for i, (example, sequences) in pairs]
    cut = [sum(s.truncated for s in sequences) for sequences in features]
    if any(cut):
        rows, tokens = sum(n > 0 for n in cut), counted(sum(cut), "token", "tokens")
        say(
            f"{of}{counted(rows, 'row', 'rows')} of {len(cut):,} too long: {tokens} lost; raise "
            f"{limits_of(task, '--')} to keep more"
        )
    return groups


def _inputs(recipe: FinetuneRecipe, parent: Bundle) -> dict[str, str]:
    found = {"data": digest(recipe.data)} | {path.name: digest(path) for path in parent.files}
    return found if recipe.dev is None else found | {"dev": digest(recipe.dev)}
