"""Pretraining speed and memory: BERT on wiki_en, ours beside Hugging Face, in turns.

    python benchmarks/pretrain.py [--quick] [--rounds N] [--cells mini-128 small-512 …] [--again]

A cell is a size of BERT and a length; a step has 4,096 tokens in each. Every sample is a fresh
process with the same threads. hf_default: BertForMaskedLM through Trainer, fp32. hf_bf16: the same
with bf16=True. hf_best: the best that can be made of the HF model, in a loop of its own (see
`harness/masked_rows.py`), the fastest of its variants. ours: the engine as shipped, but 4,096
tokens a step like the others. In cell mini-128 also ours alone: ours_shipped, its default step
size; ours_nsp, next sentences too and hidden dropout 0.1; ours_rtd, ELECTRA-small with its
generator. Samples are kept until all cells are done, so that cells may be measured one at a time.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from harness.contenders import (
    CORPUS,
    OWN,
    QUICK_STEPS,
    STEPS,
    VOCABULARY,
    Cell,
    take,
    write_corpus,
)
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

CELLS = ("mini-128", "mini-512", "small-128", "small-512")
FIRST = CELLS[0]
"""The one with the rows of ours alone, and whose figures have no name before them."""
CONTENDERS = ("hf_default", "hf_bf16", "hf_best", "ours")
VARIANTS = ("eager-autocast", "eager-pure", "sdpa-pure", "sdpa-autocast")
"""Attention and number format of hf_best; all are tried, the fastest then takes its turns."""
TRIES = 3
"""Rounds of them: of single samples the fastest would be the luckiest."""
SHOWN = ("tokens_per_second", "peak_mb", "seconds", "first_loss", "last_loss", "peak_share")


def main(options: argparse.Namespace) -> None:
    need("transformers", "accelerate")
    if options.run == "corpus":
        write_corpus(options.place, options.quick)
    elif options.run:
        cell = Cell.named(options.cells[0], options.quick)
        print(json.dumps(take(options.run, cell, options.place, options.quick)))
    else:
        drive(options)


def drive(options: argparse.Namespace) -> None:
    """Cell by cell every contender in turn, then the table, the file and the last line."""
    for name in (CORPUS, VOCABULARY):
        data(name)
    quick, before = options.quick, machine()
    cells = options.cells[:1] if quick else options.cells
    kept = Kept(f"pretrain{'-quick' * quick}/{before['code']}")
    if options.again:
        kept.clear()
    notes: dict[str, Any] = {"quick": quick, "steps": QUICK_STEPS if quick else STEPS}
    notes |= {"hf_best_compiled": not quick, "hf_best_variant": {}, "hf_best_tried": {}}
    samples: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        print("cutting the corpus", flush=True)
        apart(__file__, "--run", "corpus", "--place", place, *["--quick"] * quick)
        for cell in cells:
            variant, tried = fastest_variant(kept, cell, place, quick)
            notes["hf_best_variant"][cell], notes["hf_best_tried"][cell] = variant, tried
            samples |= turns(kept, cell, options, place, variant)
    print(table(samples, SHOWN))
    for cell, variant in notes["hf_best_variant"].items():
        print(f"{cell}: hf_best is {variant}")
    conclude("pretrain", before, samples, figures(samples), notes)
    if quick or set(cells) == set(CELLS):
        kept.clear()


def turns(
    kept: Kept, cell: str, options: argparse.Namespace, place: Path, variant: str
) -> dict[str, list[Sample]]:
    """The samples of one cell, by cell and contender."""
    names = [f"{cell}-{name}" for name in (*CONTENDERS, *(OWN if cell == FIRST else ()))]
    rounds = 1 if options.quick else options.rounds

    def run(name: str) -> Sample:
        contender = name.removeprefix(f"{cell}-")
        asked = f"hf_best:{variant}" if contender == "hf_best" else contender
        return sample(asked, cell, place, options.quick)

    return interleaved(kept, names, rounds, run)


def fastest_variant(
    kept: Kept, cell: str, place: Path, quick: bool
) -> tuple[str, dict[str, float]]:
    """Try each way of running hf_best, in turns; the one of the best median, and all of these."""
    if quick:
        return VARIANTS[0], {}
    names = [f"{cell}-try-{variant}" for variant in VARIANTS]

    def run(name: str) -> Sample:
        return sample(f"hf_best:{name.removeprefix(f'{cell}-try-')}", cell, place, quick)

    tried = interleaved(kept, names, TRIES, run)
    rates = {
        variant: median(tried[name], "tokens_per_second")
        for variant, name in zip(VARIANTS, names, strict=True)
    }
    return max(rates, key=lambda name: rates[name]), rates


def sample(contender: str, cell: str, place: Path, quick: bool) -> Sample:
    """One contender's sample, from a fresh process."""
    asked = ("--run", contender, "--cells", cell, "--place", place)
    return apart(__file__, *asked, *["--quick"] * quick)


def figures(samples: dict[str, list[Sample]]) -> dict[str, str]:
    """The last line's numbers: ratios of medians; those of the first cell without its name."""
    found: dict[str, str] = {}
    for cell in CELLS:
        if f"{cell}-ours" in samples:
            before = "" if cell == FIRST else f"{cell.replace('-', '_')}_"
            own = {name: samples[f"{cell}-{name}"] for name in CONTENDERS}
            found |= {before + key: value for key, value in figures_of(own).items()}
    for name in ("nsp", "rtd"):
        if rows := samples.get(f"{FIRST}-ours_{name}"):
            found[f"{name}_peak_share"] = f"{median(rows, 'peak_share'):.3f}"
    return found


def figures_of(samples: dict[str, list[Sample]]) -> dict[str, str]:
    """The numbers of one cell."""
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
    flags.add_argument("--quick", action="store_true", help="one cell, two small steps each")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    flags.add_argument("--again", action="store_true", help="forget the samples that are kept")
    flags.add_argument("--run", help=argparse.SUPPRESS)
    flags.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    started(flags, main)
