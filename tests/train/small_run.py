"""A whole run of a tiny model in a folder."""

import json
from pathlib import Path

from clozeworks.core.bundle import Card
from clozeworks.core.run import Run
from clozeworks.data.order import ExampleStream
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.encoder import initialise
from clozeworks.model.heads import encoder_of
from clozeworks.train.distributed import ALONE
from clozeworks.train.fit import Fit, Fitted
from clozeworks.train.loop import TrainSettings, held_out_losses
from tiny import CLOCKED, TOKENIZER, make_config, make_groups, make_task

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
LENGTHS = [5 + 7 * i % 60 for i in range(60)]


def small_run(
    folder: Path,
    settings: TrainSettings = SETTINGS,
    each_judgement=None,
    name: str = "mlm+nsp",
    team=ALONE,
) -> Fitted:
    """Train (or go on training) in the folder, and write the Bundle."""
    task = make_task(name)
    model = task.build(encoder_of(make_config(task).model_copy(update={"num_layers": 2})))
    task.equip(model)
    initialise(model, 0.02, settings.seed)
    held_out = ExampleStream(make_groups([30, 20], seed=5), 400, "tokens", 0)

    def judge(live):
        if each_judgement is not None:
            each_judgement()
        return held_out_losses(live, task, held_out, 150)

    stream = ExampleStream(make_groups(LENGTHS), settings.batch, settings.unit, settings.seed)
    card = Card(task=task.name, settings=task.settings)
    run = team.first(lambda: Run.start(folder, "pretrain", settings, {}))

    def write_best(best):
        write_bundle(run.best, best, TOKENIZER, card)

    fitted = Fit(model, task, stream, settings, run, judge, write_best=write_best, team=team)()
    team.first(lambda: write_bundle(run.bundle, model, TOKENIZER, card))
    return fitted


def what_it_left(folder: Path) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """The Bundle's files, and every line of the metrics but for what it cost."""
    bundle = folder / "bundle"
    files = {
        str(p.relative_to(bundle)): p.read_bytes() for p in sorted(bundle.rglob("*")) if p.is_file()
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]
