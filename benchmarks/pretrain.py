"""Pretraining speed and memory: BERT-mini on wiki_en, ours beside Hugging Face, in turns.

    python benchmarks/pretrain.py [--quick] [--rounds N]

Every sample is a fresh process with the same threads. hf_default: BertForMaskedLM through Trainer,
fp32. hf_bf16: the same with bf16=True. hf_best: the best that can be made of the HF model, in a
loop of its own (see `harness/masked_rows.py`), its fastest variant chosen first. ours: the engine
as shipped, but 4,096 tokens a step like the others. ours_shipped: its default step size.
"""

import argparse
import json
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clozeworks.core.files import read_lines
from clozeworks.core.log import silence
from harness.measure import (
    Kept,
    Sample,
    apart,
    conclude,
    data,
    interleaved,
    machine,
    median,
    need,
    started,
    table,
)

CORPUS, VOCABULARY = "wiki_en/wiki_en.txt.xz", "vocab/bert-base-uncased-vocab.txt"
LENGTH, BATCH = 128, 32
LAYERS, WIDTH, VOCAB = 4, 256, 30_522
CORPUS_LINES = 20_000
"""Lines of wiki_en that everyone reads: about 6 MB, ten times what a run uses."""
STEPS = {
    "hf_default": (2, 8),
    "hf_bf16": (3, 12),
    "hf_best": (8, 40),
    "ours": (10, 60),
    "ours_shipped": (5, 30),
}
"""Steps of warm-up and measured steps."""
QUICK_STEPS = (1, 2)
VARIANTS = ("eager-autocast", "eager-pure", "sdpa-pure", "sdpa-autocast")
"""Attention and number format of hf_best; each is tried once, the fastest then takes its turns."""
SHOWN = ("tokens_per_second", "peak_mb", "seconds", "first_loss", "last_loss")


# === In the fresh process ===


def write_corpus(place: Path) -> None:
    """The same text in both forms: shards, and full blocks of 128 tokens as HF has them."""
    import clozeworks
    from clozeworks.text.load import load_tokenizer

    vocabulary = data(VOCABULARY)
    lines = list(islice(read_lines(data(CORPUS)), CORPUS_LINES))
    (place / "corpus.txt").write_text("\n".join(lines), "utf-8")
    load_tokenizer(vocabulary).save(place / "tokenizer")
    with silence():
        clozeworks.prepare(
            clozeworks.PrepareRecipe(
                files=[place / "corpus.txt"], tokenizer=place / "tokenizer", out=place / "shards"
            )
        )
    encoded = hf_tokenizer(place)(
        [line for line in lines if line], return_attention_mask=False, return_token_type_ids=False
    )
    ids = np.concatenate(encoded["input_ids"]).astype(np.int32)
    whole = len(ids) // LENGTH * LENGTH
    np.save(place / "blocks.npy", ids[:whole].reshape(-1, LENGTH))


def hf_tokenizer(place: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place / "tokenizer", use_fast=True)


def hf_blocks(place: Path) -> tuple[list[dict[str, Any]], Any]:
    """Full blocks with their special-token masks, and HF's collator."""
    from transformers import DataCollatorForLanguageModeling

    tokenizer = hf_tokenizer(place)
    blocks = np.load(place / "blocks.npy", mmap_mode="r")
    wanted = max(map(sum, STEPS.values())) * BATCH
    special = np.isin(blocks[:wanted], tokenizer.all_special_ids).astype(int)
    rows = [
        {"input_ids": ids.tolist(), "special_tokens_mask": mask.tolist()}
        for ids, mask in zip(blocks[:wanted], special, strict=True)
    ]
    return rows, DataCollatorForLanguageModeling(tokenizer)


def hf_sample(place: Path, steps: tuple[int, int], bf16: bool) -> Sample:
    from transformers import BertConfig, BertForMaskedLM

    from harness.peers import trainer_run

    rows, collator = hf_blocks(place)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=WIDTH // 64,
            intermediate_size=4 * WIDTH,
        )
    )
    found = trainer_run(model, rows, collator, steps, {"bf16": bf16})
    tokens = steps[1] * BATCH * LENGTH
    return {"tokens_per_second": tokens / found["seconds"], **found}


def best_sample(place: Path, steps: tuple[int, int], variant: str, compiled: bool) -> Sample:
    from harness.masked_rows import Variant, run

    rows, collator = hf_blocks(place)
    attention, numbers = variant.split("-")
    chosen = Variant(attention, pure=numbers == "pure", compiled=compiled)
    found = run((LAYERS, WIDTH, VOCAB), chosen, rows, collator, steps)
    tokens = steps[1] * BATCH * LENGTH
    return {"tokens_per_second": tokens / found["seconds"], **found}


def our_sample(place: Path, steps: tuple[int, int], batch: int | None) -> Sample:
    """The engine as `clozeworks pretrain` runs it, events and all; None: the step size shipped."""
    from clozeworks.model.families import sized
    from clozeworks.model.flops import flops_a_token
    from harness.engine import Timed, gemm_rate, pretraining

    before = gemm_rate()
    timed: Timed = pretraining(place / "shards", LENGTH, batch, steps)
    peak = (before + gemm_rate()) / 2
    rate = timed.tokens / timed.seconds
    config = sized("bert", "mini", VOCAB)
    flops = flops_a_token(config, timed.mean_attended, timed.masked_share)
    return {
        "tokens_per_second": rate,
        "seconds": timed.seconds,
        "first_loss": timed.losses[0],
        "last_loss": timed.losses[-1],
        "tokens_per_step": timed.tokens / steps[1],
        "masked_share": timed.masked_share,
        "mean_attended": timed.mean_attended,
        "gemm_gflops": peak / 1e9,
        "peak_share": flops * rate / peak,
    }


def take(contender: str, place: Path, quick: bool) -> Sample:
    """One contender's sample, in this process."""
    name, _, variant = contender.partition(":")
    steps = QUICK_STEPS if quick else STEPS[name]
    match name:
        case "ours":
            return our_sample(place, steps, BATCH * LENGTH)
        case "ours_shipped":
            return our_sample(place, steps, None)
        case "hf_best":
            return best_sample(place, steps, variant, compiled=not quick)
    return hf_sample(place, steps, bf16=name == "hf_bf16")


# === In the process that drives ===


def fastest_variant(kept: Kept, place: Path, quick: bool) -> tuple[str, dict[str, Any]]:
    """Try each way of running hf_best once; the name of the fastest, and all the rates."""
    if quick:
        return VARIANTS[0], {}
    rates = {}
    for variant in VARIANTS:
        run = partial(sample, f"hf_best:{variant}", place, quick)
        rates[variant] = kept.get(f"try-{variant}", run)["tokens_per_second"]
        print(f"hf_best tried as {variant}: {rates[variant]:,.0f} tokens/s", flush=True)
    return max(rates, key=lambda name: rates[name]), rates


def sample(contender: str, place: Path, quick: bool) -> Sample:
    """One contender's sample, from a fresh process."""
    return apart(__file__, "--run", contender, "--place", place, *["--quick"] * quick)


def main(options: argparse.Namespace) -> None:
    need("transformers", "accelerate")
    if options.run == "corpus":
        write_corpus(options.place)
    elif options.run:
        print(json.dumps(take(options.run, options.place, options.quick)))
    else:
        drive(options.quick, 1 if options.quick else options.rounds)


def drive(quick: bool, rounds: int) -> None:
    """Every contender in turn, then the table, the file and the last line."""
    for name in (CORPUS, VOCABULARY):
        data(name)
    before = machine()
    kept = Kept(f"pretrain{'-quick' * quick}/{before['code']}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        print("cutting the corpus", flush=True)
        apart(__file__, "--run", "corpus", "--place", place)
        variant, tried = fastest_variant(kept, place, quick)
        names = {"hf_best": f"hf_best:{variant}"}
        samples = interleaved(
            kept, list(STEPS), rounds, lambda n: sample(names.get(n, n), place, quick)
        )
    print(table(samples, SHOWN))
    notes = {"quick": quick, "hf_best_variant": variant, "hf_best_compiled": not quick}
    notes |= {"hf_best_tried": tried, "steps": QUICK_STEPS if quick else STEPS}
    conclude("pretrain", before, samples, figures(samples), notes)
    kept.clear()


def figures(samples: dict[str, list[Sample]]) -> dict[str, str]:
    """The last line's numbers: ratios of medians."""
    rates = {name: median(found, "tokens_per_second") for name, found in samples.items()}
    memory = median(samples["ours"], "peak_mb") / median(samples["hf_bf16"], "peak_mb")
    return {
        "vs_default": f"{rates['ours'] / rates['hf_default']:.2f}",
        "vs_bf16": f"{rates['ours'] / rates['hf_bf16']:.2f}",
        "vs_best": f"{rates['ours'] / rates['hf_best']:.2f}",
        "peak_share": f"{median(samples['ours'], 'peak_share'):.3f}",
        "memory_ratio": f"{memory:.2f}",
    }


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--quick", action="store_true", help="two steps each, nothing compiled")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--run", help=argparse.SUPPRESS)
    flags.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    started(flags, main)
