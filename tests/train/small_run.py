"""A whole run of a tiny model in a folder."""

import json
from pathlib import Path

import numpy as np

from clozeworks.core.bundle import Card
from clozeworks.core.run import Run
from clozeworks.data.order import ExampleStream, ShardStream
from clozeworks.data.shards import Shards
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.encoder import initialise
from clozeworks.model.heads import encoder_of
from clozeworks.train.distributed import ALONE
from clozeworks.train.fit import Fit, Fitted
from clozeworks.train.loop import TrainSettings, held_out_losses
from tiny import (
    CLOCKED,
    TOKENIZER,
    VOCABULARY,
    groups_from,
    make_config,
    make_examples,
    make_groups,
    make_task,
)

SETTINGS = TrainSettings(
    duration="20 steps",
    lr=1e-3,
    batch=250,
    unit="tokens",
    micro_tokens=120,
    dropout=0.1,
    precision="fp32",
    checkpoint_minutes=5e-4,
)
WINDOW = 40
LENGTHS = [5 + 7 * i % 60 for i in range(60)]


def small_run(
    folder: Path,
    settings: TrainSettings = SETTINGS,
    each_judgement=None,
    name: str = "mlm+nsp",
    team=ALONE,
    shards: str | None = None,
) -> Fitted:
    """Train (or go on training) in the folder, and write the Bundle; of `shards`, or made-up rows.

    Shards are cut into windows of at most WINDOW tokens.
    """
    task = make_task(name)
    model = task.build(encoder_of(make_config(task).model_copy(update={"num_layers": 2})))
    task.equip(model)
    initialise(model, 0.02, settings.seed)
    groups = groups_for(task, LENGTHS)
    task.look_over(groups)
    groups = task.readings(groups)
    held_out = ExampleStream(task.readings(groups_for(task, [30, 20], seed=5)), 400, "tokens", 0)

    def judge(live):
        if each_judgement is not None:
            each_judgement()
        return held_out_losses(live, task, held_out, 150)

    stream = ExampleStream(groups, settings.batch, settings.unit, settings.seed)
    if shards is not None:
        stream = windows_of(shards, settings)
    card = Card(task=task.name, settings=task.settings)
    run = team.first(lambda: Run.start(folder, "pretrain", settings, {}))

    def write(live, place):
        write_bundle(place, live, TOKENIZER, card)

    fitted = Fit(model, task, stream, settings, run, judge, write=write, team=team)()
    team.first(lambda: write_bundle(run.bundle, model, TOKENIZER, card))
    return fitted


def groups_for(task, lengths, seed=0):
    """As many groups as lengths, which are theirs where a task learns from a corpus."""
    if task.from_shards:
        return make_groups(lengths, seed=seed)
    return groups_from(task, make_examples(task, len(lengths), seed))


def windows_of(shards: str, settings: TrainSettings) -> ShardStream:
    """The windows of all documents of some shards."""
    corpus = Shards.open(shards)
    documents = np.arange(len(corpus.documents) - 1)
    size, seed = settings.batch, settings.seed
    return ShardStream(corpus, documents, VOCABULARY, WINDOW, pairs="none", tokens=size, seed=seed)


def what_it_left(folder: Path) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """The Bundle's files, and every line of the metrics but for what it cost."""
    bundle = folder / "bundle"
    files = {
        str(p.relative_to(bundle)): p.read_bytes() for p in sorted(bundle.rglob("*")) if p.is_file()
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]
