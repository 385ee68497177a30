"""Pretrain an encoder on a prepared corpus."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from clozeworks import tasks
from clozeworks.api.masking import prepare_masks, report_masks
from clozeworks.api.model import adopt, check_prepared, keep
from clozeworks.api.pairing import check_pairs, described
from clozeworks.api.watch import Losses, Watch, names_of, shown
from clozeworks.core.bundle import open_bundle
from clozeworks.core.config import Settings
from clozeworks.core.errors import UserError
from clozeworks.core.files import digest
from clozeworks.core.log import say
from clozeworks.core.records import Ints
from clozeworks.core.run import Run
from clozeworks.data.order import ShardStream
from clozeworks.data.pairs import held_out
from clozeworks.data.shards import MANIFEST, Shards
from clozeworks.evaluation.probe import Probe, ProbeSettings
from clozeworks.interop.hub import local
from clozeworks.metrics.classify import Floats
from clozeworks.model.encoder import initialise
from clozeworks.model.families import FAMILIES, check_class, sized
from clozeworks.model.heads import Model, TokenHead, encoder_of
from clozeworks.tasks.base import Task
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.train.best import check_wish
from clozeworks.train.diagnosis import Facts, History
from clozeworks.train.distributed import Team, gathered
from clozeworks.train.fit import Fit, Fitted, took
from clozeworks.train.loop import TrainSettings, held_out_losses
from clozeworks.train.optim import Diverged
from clozeworks.train.precision import pick_device, pick_dtype
from clozeworks.train.rates import pretraining_rate, rated

TOKENIZERS_OWN = {"vocab_size", "pad_id"}
"""Values of an encoder that are none of the recipe's business."""
MOST_HELD_OUT = 0.1
"""Share of a small corpus that is held out at most."""


class PretrainSettings(TrainSettings):
    """How an encoder is pretrained."""

    duration: str = "1 epoch"
    batch: int = Field(default=8192, gt=0)
    unit: Literal["tokens", "examples"] = "tokens"
    decay: float = Field(default=0.1, ge=0)
    """Weight decay, on everything but biases and norms: times the learning rate, it is the share
    that a step takes off. With little of it the weights of a long run grow, until attention looks
    at single tokens and fine-tuning hardly moves them."""
    beta2: float = Field(default=0.98, gt=0, lt=1)
    eps: float = Field(default=1e-6, gt=0)
    """Added to the root of AdamW's second moment; at 1e-6, as BERT's, the faint steady gradients of
    words that hardly occur do not all push their vectors the same way."""
    dropout: float | None = Field(default=0.0, ge=0, lt=1)


class PretrainRecipe(Settings):
    """What the `pretrain` verb needs."""

    free: ClassVar[frozenset[str]] = frozenset(
        {"data", "out", "model", "judge_on", "device", "settings.names", "settings.mlm.names"}
        | {f"settings.{part}{name}" for part in ("", "mlm.") for name in ("top", "scoring")}
    )

    task: str = "mlm+nsp"
    """Objectives, joined by +: mlm, nsp, sop, rtd."""
    data: Path
    """Folder of shards that `prepare` wrote."""
    out: Path
    """Folder of the run; the finished model is its `bundle`."""
    family: str = "bert"
    """Family of a fresh encoder."""
    size: str = "mini"
    """Its size, by the family's own names (`clozeworks list`)."""
    encoder: dict[str, Any] = {}
    """Values of a fresh encoder that differ from its size's."""
    model: Path | None = None
    """Model to go on from, instead of a fresh encoder: a folder, or hub:OWNER/NAME@REVISION."""
    scratch: bool = False
    """Keep that model's shape but not its weights."""
    max_length: int = Field(default=128, ge=8)
    """Longest sequence in tokens, special tokens included."""
    held_out_tokens: int = Field(default=200_000, ge=1)
    """About how many tokens are held out, by document, to judge on."""
    judge_on: dict[str, Path] = {}
    """Other texts to judge on as well: a name, and the folder of shards of which the same share is
    held out. After going on from a model, losses before and after are said for each."""
    probe: ProbeSettings = ProbeSettings()
    settings: dict[str, Any] = {}
    """The objectives' own settings."""
    weights: dict[str, float] = {}
    """Weights of the losses in the sum that is minimised; absent: 1, and 50 for rtd."""
    train: PretrainSettings = PretrainSettings()
    planned_tokens: int | None = Field(default=None, ge=1)
    """What `plan` thought the run would read; in the end the run says what it did read."""
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto for a GPU if there is one."""


class Pretrained(Settings):
    """What the `pretrain` verb made."""

    bundle: Path
    held_out: dict[str, float]
    """Mean of each loss on held-out documents, in nats, and the share of right answers; the name of
    another text stands before its own (`general/mlm`)."""
    label_share: float | None
    """Share of the held-out pairs whose label is 1: what always answering 1 would get right."""
    before: dict[str, float]
    """The judgement before the first step, where the run went on from a model."""
    unigram: float
    """Loss in nats on the held-out tokens of knowing nothing but how frequent each is."""
    cost: str


def pretrain(recipe: PretrainRecipe) -> Pretrained:
    """Pretrain to the end of the recipe's duration, and write the Bundle.

    The same recipe and folder continue a run that stopped, bit for bit as if it had not. Started by
    torchrun, its processes share each step; the first one writes.
    """
    with gathered(pick_device(recipe.device)) as team:
        return _pretrain(recipe, team)


@dataclass(frozen=True)
class Material:
    """What a recipe names, opened and checked: text, tokenizer, task and model."""

    shards: Shards
    tokenizer: Tokenizer
    task: Task
    model: Model
    train: Ints
    """Documents to learn from."""
    held: Ints
    """Documents held out."""
    inputs: dict[str, str]
    """Hashes of everything that decides what is learned."""

    @classmethod
    def of(cls, recipe: PretrainRecipe) -> "Material":
        """Open it all; raises UserError for what does not fit together."""
        shards = Shards.open(recipe.data)
        shards.verify()
        tokenizer = load_tokenizer(shards.tokenizer_folder)
        task = tasks.create(recipe.task, recipe.settings, tokenizer.vocabulary, (), recipe.weights)
        if not task.from_shards:
            raise UserError(
                f"{recipe.task!r} learns from labelled examples; use `clozeworks finetune`"
            )
        names = prepare_masks(task, shards, tokenizer)
        model = _model(recipe, task, tokenizer)
        inputs = _inputs(recipe, shards) | names
        return cls(shards, tokenizer, task, model, *_split(recipe, shards), inputs)

    def stream(self, recipe: PretrainRecipe) -> ShardStream:
        """The documents to learn from, cut as the recipe says."""
        return _stream(recipe, self.shards, self.train, self.task)

    def texts(self, recipe: PretrainRecipe) -> dict[str, ShardStream]:
        """What is judged on, by name; the run's own held-out documents have none."""
        own = _judged_on(recipe, self.shards, self.held, self.task.judged)
        return {"": own, **_others(recipe, self.shards, self.task.judged)}


def check(recipe: PretrainRecipe, has: Material, texts: Iterable[str]) -> None:
    """Raise UserError for what a run would come to grief over, before it leaves anything behind."""
    check_wish(recipe.train.keep_best, names_of(has.task, texts, recipe.probe.data is not None))
    check_pairs(has.stream(recipe).plan(0), has.task.pairs)


def _pretrain(recipe: PretrainRecipe, team: Team) -> Pretrained:
    has = Material.of(recipe)
    shards, tokenizer, task, model = has.shards, has.tokenizer, has.task, has.model
    width, muon = model.config.hidden_size, recipe.train.optimizer == "muon"
    recipe = rated(recipe, pretraining_rate(width, muon), width)
    train, held = has.train, has.held
    texts = has.texts(recipe)
    probe = Probe.of(recipe.probe, tokenizer, recipe.max_length) if recipe.probe.data else None
    check(recipe, has, texts)
    stream = has.stream(recipe)
    run = team.first(lambda: Run.start(recipe.out, "pretrain", recipe, has.inputs))
    chances = frequencies(shards, train, tokenizer.vocabulary.size)
    unigram = unigram_loss(shards, held, chances)
    begin_with_frequencies(model, chances)
    say(
        f"{len(train):,} documents to learn from, {len(held):,} held out; "
        f"loss of guessing by frequency: {unigram:.3f} nats"
    )
    say("to learn from: " + described(stream.plan(0), task.pairs))
    say("to judge on: " + described(texts[""].plan(0), task.pairs))
    team.first(lambda: report_masks(run, task, stream, tokenizer, recipe.train.seed))
    losses = {name: _losses(recipe, task.judged, text) for name, text in texts.items()}
    history = History(task.weights)
    watch = Watch(run, losses, _facts(recipe, unigram, shards), probe, recipe.probe, history)
    before = team.first(lambda: _before(recipe, watch, model))

    def write(live: Model, folder: Path) -> None:
        keep(run, live, task, tokenizer, recipe, folder)

    fit = Fit(model, task, stream, recipe.train, run, watch.judge, watch.saw, write, team)
    fitted = _fitted(fit, watch)
    say(f"pretrained in {took(fitted.cursor)}")
    if recipe.planned_tokens is not None:
        read = fitted.cursor.tokens
        share = read / recipe.planned_tokens
        say(f"planned: {recipe.planned_tokens:,} tokens; read: {read:,} ({share:.0%})")
    team.first(lambda: keep(run, model, task, tokenizer, recipe))
    say(f"held out: {shown(fitted.judged)}")
    team.first(lambda: watch.conclude(before, fitted.judged))
    say(f"model → {run.bundle}")
    return Pretrained(
        bundle=run.bundle,
        held_out=dict(fitted.judged),
        label_share=texts[""].plan(0).share,
        before=before,
        unigram=unigram,
        cost=took(fitted.cursor),
    )


def _fitted(fit: Fit, watch: Watch) -> Fitted:
    """Train to the end; a run that diverges leaves a diagnosis behind."""
    try:
        return fit()
    except Diverged as error:
        why = str(error)
        fit.team.first(lambda: watch.gave_up(why))
        raise


def _model(recipe: PretrainRecipe, task: Task, tokenizer: Tokenizer) -> Model:
    if recipe.model is not None:
        parent = open_bundle(local(recipe.model))
        check_prepared(recipe.data, parent, recipe.model, tokenizer)
        model = adopt(parent, task, tokenizer, recipe)
    else:
        for name in TOKENIZERS_OWN & recipe.encoder.keys():
            value = recipe.encoder[name]
            raise UserError(f"encoder: {name} = {value!r}: the tokenizer decides it; leave it out")
        size, pad = tokenizer.vocabulary.size, tokenizer.vocabulary.pad
        config = sized(recipe.family, recipe.size, size, pad_id=pad, **recipe.encoder)
        model = task.build(encoder_of(config))
        task.equip(model)
        initialise(model, config.init_std, recipe.train.seed)
        model = model.to(pick_device(recipe.device))
    objectives = [name for name in tasks.TASKS.names() if tasks.TASKS.get(name).from_shards]
    check_class(FAMILIES.get(model.config.family)(), frozenset(model.heads), objectives)
    positions = model.encoder.config.max_positions
    if recipe.max_length > positions:
        raise UserError(
            f"max_length {recipe.max_length} is more than the model's {positions} positions; "
            f"use --max-length {positions} or less"
        )
    return model


def _stream(recipe: PretrainRecipe, shards: Shards, documents: Ints, task: Task) -> ShardStream:
    return ShardStream(
        shards,
        documents,
        task.vocabulary,
        recipe.max_length,
        pairs=task.pairs,
        tokens=recipe.train.batch,
        seed=recipe.train.seed,
        words=task.needs_words,
    )


def _split(recipe: PretrainRecipe, shards: Shards) -> tuple[Ints, Ints]:
    """The documents to learn from, and those held out; raises UserError where there is one."""
    if shards.manifest.documents < 2:
        raise UserError(
            f"{shards.folder} holds one document, which cannot be divided into a part to learn "
            "from and one to judge on; give at least two (a blank line ends one in a text file)"
        )
    share = min(MOST_HELD_OUT, recipe.held_out_tokens / max(1, shards.manifest.tokens))
    return held_out(len(shards.documents) - 1, share)


def _judged_on(recipe: PretrainRecipe, shards: Shards, held: Ints, task: Task) -> ShardStream:
    """Held-out documents, cut the same way whatever the run's seed and batch."""
    return _stream(recipe.model_copy(update={"train": PretrainSettings()}), shards, held, task)


def _others(recipe: PretrainRecipe, shards: Shards, task: Task) -> dict[str, ShardStream]:
    """The held-out part of each other text, by its name.

    Raises UserError where the ids would not mean the same.
    """
    found = {}
    for name, folder in recipe.judge_on.items():
        if not name or "/" in name:
            raise UserError(f"--judge-on {name!r}: a text's name is a word without /")
        other = Shards.open(folder)
        other.verify()
        if other.vocabulary_hash != shards.vocabulary_hash:
            raise UserError(
                f"{folder} was prepared with another tokenizer than {recipe.data}; prepare both "
                "with that of the model"
            )
        found[name] = _judged_on(recipe, other, _split(recipe, other)[1], task)
    return found


def _losses(recipe: PretrainRecipe, task: Task, text: ShardStream) -> Losses:
    return lambda live: held_out_losses(live, task, text, recipe.train.micro_tokens)


def _before(recipe: PretrainRecipe, watch: Watch, model: Model) -> dict[str, float]:
    """The judgement of the model that the run goes on from, if it does."""
    if recipe.model is None or recipe.scratch:
        return {}
    return watch.before(model, pick_dtype(recipe.train.precision, model.device))


def _facts(recipe: PretrainRecipe, unigram: float, shards: Shards) -> Facts:
    rate, warmup = recipe.train.peak, recipe.train.warmup
    corpus, decay = shards.manifest.tokens, recipe.train.decay
    return Facts(unigram, recipe.max_length, rate, warmup, total=0, corpus=corpus, decay=decay)


def _inputs(recipe: PretrainRecipe, shards: Shards) -> dict[str, str]:
    found = {"tokenizer": shards.manifest.tokenizer, MANIFEST: digest(recipe.data / MANIFEST)}
    found |= {f"judge_on/{n}": digest(f / MANIFEST) for n, f in recipe.judge_on.items()}
    if recipe.probe.data is not None:
        found["probe"] = digest(recipe.probe.data)
    if recipe.model is None:
        return found
    bundle = open_bundle(local(recipe.model))
    inner = [] if bundle.generator is None else bundle.generator.files
    files = [*bundle.files, *inner]
    return found | {str(path.relative_to(bundle.path)): digest(path) for path in files}


def frequencies(shards: Shards, documents: Ints, size: int) -> Floats:
    """How likely each id is in some documents, [size] float64; none is impossible.

    Every id counts once more than it was seen.
    """
    seen = _histogram(shards, documents, size) + 1
    return np.asarray(seen / seen.sum(), dtype=np.float64)


def unigram_loss(shards: Shards, held: Ints, chances: Floats) -> float:
    """Cross-entropy in nats of the held-out tokens under `chances`."""
    wanted = _histogram(shards, held, len(chances))
    return float(-(wanted * np.log(chances)).sum() / max(1, wanted.sum()))


def begin_with_frequencies(model: Model, chances: Floats) -> None:
    """Set the bias of a fresh masked-token head to the logarithm of each token's frequency.

    Otherwise every word that hardly occurs is first pushed away from all that is read, in one
    direction: their vectors become alike (Gao et al. 2019, "representation degeneration"), and
    what is fine-tuned on them later cannot tell them apart. A head with any bias but 0 has learned
    something already, and stays.
    """
    guesser = model if model.generator is None else model.generator
    if "mlm" not in guesser.heads:
        return
    head = guesser.heads["mlm"]
    assert isinstance(head, TokenHead)
    if not head.bias.any():
        logs = torch.from_numpy(np.log(chances))
        with torch.no_grad():
            head.bias.fill_(float(logs.min()))  # of rows that no piece is known for
            head.bias[: len(logs)] = logs


def _histogram(shards: Shards, documents: Ints, size: int) -> Ints:
    """How often each id occurs in some documents, [size] int64."""
    starts = shards.sentences[shards.documents[documents]].tolist()
    ends = shards.sentences[shards.documents[documents + 1]].tolist()
    counts = np.zeros(size, dtype=np.int64)
    for start, end in zip(starts, ends, strict=True):
        np.add.at(counts, shards.take(start, end), 1)
    return counts
