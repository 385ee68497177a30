"""One GPU: does it compute what the CPU does, and how fast does it pretrain BERT?

    python benchmarks/gpu.py [--quick] [--compile] [--device cuda] [--rounds N] [--cells tiny-128]

Parity first: loss and gradients of masked tokens in fp32, on the CPU and on the device, for a
small model with texts of many lengths; a gap is the largest difference over the largest magnitude.
Loss and gradients in bf16 on the device, where other kernels run, are held against the same.
Then BERT of 2 layers and width 128, mini and small (11 and 29 million parameters, which a model of
17 million lies between), base and large, at 128 and 512 tokens, documents of wiki_en
packed at their natural lengths, each sample a fresh process. `mfu` is against the data sheet's
dense bf16 peak where the GPU is known here, `peak_share` against a matrix product measured in the
same process. --device cpu --quick proves all of it where there is no GPU, at small size.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.core.records import Sequence
from clozeworks.data.batches import Batch, Group
from clozeworks.tasks.base import Draw, Task
from clozeworks.text.load import load_tokenizer
from clozeworks.train.gauge import gemm_rate, held_memory
from clozeworks.train.precision import pick_device, pick_dtype
from harness.contenders import CORPUS, VOCABULARY, Steps, write_shards
from harness.engine import Pretraining, fresh_model, pretraining
from harness.measure import (
    Kept,
    Sample,
    apart,
    conclude,
    data,
    interleaved,
    machine,
    median,
    started,
    table,
)

CELLS = (
    *("tiny-128", "tiny-512", "mini-128", "small-128"),
    *("base-128", "base-512", "large-128", "large-512"),
)
TOKENS = {"tiny": 131_072, "mini": 131_072, "small": 131_072, "base": 131_072, "large": 32_768}
"""Tokens of a step, in one pass: enough to fill a GPU, few enough for its memory: 42 GB of base."""
STEPS: Steps = (10, 40)
QUICK_CELLS, QUICK_TOKENS, QUICK_STEPS = CELLS[:2], 1024, (1, 2)
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations a second as the data sheets have them (of H100, the SXM form), by a part of
the name that torch gives the GPU."""
PARITY_LENGTHS = (5, 17, 64, 96, 128, 33, 128, 70)
SHOWN = ("tokens_per_second", "mfu", "peak_share", "device_mb", "seconds", "first_loss")


# === In the fresh process ===


def parity(device: torch.device) -> Sample:
    """How far loss and gradients on the device are from the CPU's, as shares of the largest."""
    tokenizer = load_tokenizer(data(VOCABULARY))
    task = tasks.create("mlm", {}, tokenizer.vocabulary)
    batch = task.collate(random_groups(task), Draw(0, 0))
    here = differentiated(task, batch, torch.device("cpu"), torch.float32)
    there = differentiated(task, batch, device, torch.float32)
    halves = differentiated(task, batch, device, torch.bfloat16)
    gaps = {name: gap(here[name], there[name]) for name in here}
    rounded = {name: gap(here[name], halves[name].float()) for name in here}
    loss, rounded_loss = gaps.pop("loss"), rounded.pop("loss")
    worst = max(gaps, key=lambda name: gaps[name])
    return {
        "loss_gap": loss,
        "gradient_gap": gaps[worst],
        "worst": worst,
        "tensors": len(gaps),
        "bf16_loss_gap": rounded_loss,
        "bf16_gradient_gap": max(rounded.values()),
    }


def random_groups(task: Task) -> list[Group]:
    """Sequences of ordinary tokens by chance, of lengths below and at a row's."""
    draw = np.random.default_rng(0)
    groups = []
    for index, length in enumerate(PARITY_LENGTHS):
        ids = draw.choice(task.vocabulary.drawable, length)
        ids[0], ids[-1] = task.vocabulary.cls, task.vocabulary.sep
        groups.append(Group(index, [Sequence(ids, np.zeros(length, dtype=np.int64))]))
    return groups


def differentiated(
    task: Task, batch: Batch, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The loss, and the gradient of every parameter, brought to the CPU."""
    model = fresh_model(Pretraining(size="tiny"), task)
    model.set_dropout(0.0)
    model = model.to(device, dtype).train()
    loss = task.loss(model, batch.to(device), Draw(0, 0))["mlm"]
    loss.backward()
    found = {"loss": loss.detach().cpu()}
    named = model.named_parameters()
    return found | {name: p.grad.cpu() for name, p in named if p.grad is not None}


def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference as a share of the largest magnitude."""
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-30))


def speed(cell: str, options: argparse.Namespace, device: torch.device) -> Sample:
    """Real steps of one size and length, and what they are of the peak."""
    size, length = cell.split("-")
    place, quick = options.place, options.quick
    tokens = QUICK_TOKENS if quick else TOKENS[size]
    what = Pretraining(
        size=size,
        length=int(length),
        batch=tokens,
        micro_tokens=tokens,
        compile=options.compile,
    )
    dtype = pick_dtype("auto", device)
    before = gemm_rate(device, dtype)
    made = pretraining(place / "shards", what, QUICK_STEPS if quick else STEPS, device)
    peak = (before + gemm_rate(device, dtype)) / 2
    done = made.timed.tokens * made.operations / made.timed.seconds
    sheet = data_sheet(device)
    return {
        "tokens_per_second": made.timed.tokens / made.timed.seconds,
        "seconds": made.timed.seconds,
        "first_loss": made.timed.losses[0],
        "last_loss": made.timed.losses[-1],
        "parameters": made.parameters,
        "operations_a_token": made.operations,
        "gemm_gflops": peak / 1e9,
        "peak_share": done / peak,
        "device_mb": held_memory(device),
        **({} if sheet is None else {"mfu": done / sheet}),
    }


def data_sheet(device: torch.device) -> float | None:
    """The peak by the data sheet; None for a device that is not known here."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


# === In the process that drives ===


def main(options: argparse.Namespace) -> None:
    try:
        device = pick_device(options.device)
    except UserError as error:
        sys.exit(str(error))
    match options.run:
        case None:
            drive(options, device)
        case "corpus":
            write_shards(options.place, options.quick)
        case "parity":
            print(json.dumps(parity(device)))
        case cell:
            print(json.dumps(speed(cell, options, device)))


def drive(options: argparse.Namespace, device: torch.device) -> None:
    """Parity, every cell in turn, then the table, the file and the last line."""
    for name in (CORPUS, VOCABULARY):
        data(name)
    quick, before = options.quick, machine()
    cells = QUICK_CELLS if quick else options.cells
    how = "-quick" * quick + "-compile" * options.compile
    kept = Kept(f"gpu-{device.type}{how}/{before['code']}")
    with tempfile.TemporaryDirectory() as name:
        flags = ["--quick"] * quick + ["--compile"] * options.compile
        shared = ("--device", str(device), "--place", name, *flags)

        def run(what: str) -> Sample:
            return apart(__file__, "--run", what, *shared)

        run("corpus")
        same = kept.get("parity", lambda: run("parity"))
        print(f"{device} beside cpu, fp32: {same}", flush=True)
        samples = interleaved(kept, cells, 1 if quick else options.rounds, run)
    print(table(samples, SHOWN))
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    notes: dict[str, Any] = {
        "quick": quick,
        "compile": options.compile,
        "gpu": gpu,
        "parity": same,
    }
    conclude("gpu", before, samples, figures(device, same, samples), notes)
    kept.clear()


def figures(device: torch.device, same: Sample, samples: dict[str, list[Sample]]) -> dict[str, str]:
    """The last line's numbers."""
    found = {
        "device": device.type,
        "loss_gap": f"{same['loss_gap']:.1e}",
        "gradient_gap": f"{same['gradient_gap']:.1e}",
        "bf16_loss_gap": f"{same['bf16_loss_gap']:.1e}",
        "bf16_gradient_gap": f"{same['bf16_gradient_gap']:.1e}",
    }
    for cell, rows in samples.items():
        name = cell.replace("-", "_")
        found[f"{name}_tokens_per_second"] = f"{median(rows, 'tokens_per_second'):.0f}"
        known = "mfu" in rows[0]
        found[f"{name}_mfu"] = f"{median(rows, 'mfu'):.3f}" if known else "not-known"
        found[f"{name}_peak_share"] = f"{median(rows, 'peak_share'):.3f}"
    return found


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--quick", action="store_true", help="the smallest size, two small steps")
    flags.add_argument("--compile", action="store_true", help="as --train.compile")
    flags.add_argument("--device", default="cuda", help="cuda, or cpu to try the script itself")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    flags.add_argument("--run", help=argparse.SUPPRESS)
    flags.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    started(flags, main)
