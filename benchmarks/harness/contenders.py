"""Who pretrains in benchmarks/pretrain.py, each in a fresh process: Hugging Face thrice, and us.

Everyone has the same text: we its documents at their natural lengths, packed; Hugging Face full
blocks. Imports are inside, so that no contender's memory holds another's library.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clozeworks.core.files import read_lines
from clozeworks.core.log import silence
from clozeworks.model.families import sized
from harness.measure import Sample, as_without_us, data

if TYPE_CHECKING:
    from harness.engine import Pretraining

CORPUS, VOCABULARY = "wiki_en/wiki_en.txt.xz", "vocab/bert-base-uncased-vocab.txt"
VOCAB = 30_522
TOKENS, QUICK_TOKENS = 4096, 1024
"""Tokens a step in every cell."""
LINES, QUICK_LINES = 20_000, 2_000
"""Lines of wiki_en that everyone reads: 20,000 are about 6 MB, several times what a run uses."""

Steps = tuple[int, int]
"""Steps of warm-up and measured steps."""
QUICK_STEPS: Steps = (1, 2)
OURS, OWN = "ours", ("ours_shipped", "ours_nsp", "ours_rtd")
"""We as the others; alone: the step size shipped, another recipe, another objective."""
STEPS: dict[str, dict[str, Steps]] = {
    "mini": {
        "hf_default": (2, 8),
        "hf_bf16": (3, 12),
        "hf_best": (8, 40),
        "ours": (10, 60),
        "ours_shipped": (5, 30),
        "ours_nsp": (10, 50),
        "ours_rtd": (5, 25),
    },
    "small": {"hf_default": (1, 4), "hf_bf16": (2, 6), "hf_best": (6, 20), "ours": (8, 30)},
}
"""By the size of BERT; fewer where steps are long, so that a round takes minutes."""


@dataclass(frozen=True)
class Cell:
    """A size of BERT and a length of text, and the tokens of a step."""

    size: str
    length: int
    tokens: int = TOKENS

    @classmethod
    def named(cls, name: str, quick: bool) -> "Cell":
        """The cell of a name such as mini-128."""
        size, length = name.split("-")
        return cls(size, int(length), QUICK_TOKENS if quick else TOKENS)

    @property
    def rows(self) -> int:
        """Full blocks of a step."""
        return self.tokens // self.length

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, width and vocabulary."""
        config = sized("bert", self.size, VOCAB)
        return config.num_layers, config.hidden_size, VOCAB


def write_shards(place: Path, quick: bool) -> list[str]:
    """The text as our shards, with its tokenizer beside it; returns its lines."""
    import clozeworks
    from clozeworks.text.load import load_tokenizer

    lines = list(islice(read_lines(data(CORPUS)), QUICK_LINES if quick else LINES))
    (place / "corpus.txt").write_text("\n".join(lines), "utf-8")
    load_tokenizer(data(VOCABULARY)).save(place / "tokenizer")
    with silence():
        clozeworks.prepare(
            clozeworks.PrepareRecipe(
                files=[place / "corpus.txt"], tokenizer=place / "tokenizer", out=place / "shards"
            )
        )
    return lines


def write_corpus(place: Path, quick: bool) -> None:
    """The same text in both forms: shards, and the ids of full blocks as HF has them."""
    lines = write_shards(place, quick)
    encoded = hf_tokenizer(place)(
        [line for line in lines if line], return_attention_mask=False, return_token_type_ids=False
    )
    np.save(place / "ids.npy", np.concatenate(encoded["input_ids"]).astype(np.int32))


def take(contender: str, cell: Cell, place: Path, quick: bool) -> Sample:
    """One contender's sample, in this process; the best of HF is named with its variant."""
    name, _, variant = contender.partition(":")
    steps = QUICK_STEPS if quick else STEPS[cell.size][name]
    if name == "hf_best":
        return best_sample(place, cell, steps, variant, compiled=not quick)
    if name.startswith("hf"):
        return hf_sample(place, cell, steps, bf16=name == "hf_bf16")
    return our_sample(place, ours(name, cell), steps)


# === Hugging Face ===


def hf_tokenizer(place: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place / "tokenizer", use_fast=True)


def hf_blocks(place: Path, cell: Cell, steps: Steps) -> tuple[list[dict[str, Any]], Any]:
    """As many full blocks as are needed, with their special-token masks, and HF's collator."""
    from transformers import DataCollatorForLanguageModeling

    tokenizer = hf_tokenizer(place)
    ids = np.load(place / "ids.npy", mmap_mode="r")[: sum(steps) * cell.tokens]
    blocks = ids.reshape(-1, cell.length)
    special = np.isin(blocks, tokenizer.all_special_ids).astype(int)
    rows = [
        {"input_ids": ids.tolist(), "special_tokens_mask": mask.tolist()}
        for ids, mask in zip(blocks, special, strict=True)
    ]
    return rows, DataCollatorForLanguageModeling(tokenizer)


def hf_sample(place: Path, cell: Cell, steps: Steps, bf16: bool) -> Sample:
    """BertForMaskedLM through Trainer, as it comes."""
    from transformers import BertConfig, BertForMaskedLM

    from harness.peers import trainer_run

    as_without_us()
    rows, collator = hf_blocks(place, cell, steps)
    layers, width, vocab = cell.shape
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=vocab,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
        )
    )
    arguments = {"bf16": bf16, "per_device_train_batch_size": cell.rows}
    found = trainer_run(model, rows, collator, steps, arguments)
    return {"tokens_per_second": steps[1] * cell.tokens / found["seconds"], **found}


def best_sample(place: Path, cell: Cell, steps: Steps, variant: str, compiled: bool) -> Sample:
    """The best that can be made of it, as one variant."""
    from harness.masked_rows import Variant, run

    as_without_us()
    rows, collator = hf_blocks(place, cell, steps)
    attention, numbers = variant.split("-")
    chosen = Variant(cell.rows, attention, pure=numbers == "pure", compiled=compiled)
    found = run(cell.shape, chosen, rows, collator, steps)
    return {"tokens_per_second": steps[1] * cell.tokens / found["seconds"], **found}


# === Ours ===


def ours(name: str, cell: Cell) -> "Pretraining":
    """What a row of ours trains."""
    from harness.engine import Pretraining

    like_theirs = {"size": cell.size, "length": cell.length, "batch": cell.tokens}
    match name:
        case "ours_shipped":
            return Pretraining(size=cell.size, length=cell.length)
        case "ours_nsp":  # of hidden values alone; attention's would be another thing again
            encoder = {"dropout": 0.1, "attention_dropout": 0.0}
            return Pretraining(**like_theirs, task="mlm+nsp", encoder=encoder, dropout=None)
        case "ours_rtd":
            return Pretraining(**like_theirs | {"family": "electra", "size": "small"}, task="rtd")
    return Pretraining(**like_theirs)


def our_sample(place: Path, what: "Pretraining", steps: Steps) -> Sample:
    """The engine as `clozeworks pretrain` runs it, events and all."""
    import torch

    from clozeworks.train.gauge import gemm_rate
    from harness.engine import CPU, pretraining

    before = gemm_rate(CPU, torch.bfloat16)
    made = pretraining(place / "shards", what, steps)
    peak = (before + gemm_rate(CPU, torch.bfloat16)) / 2
    timed = made.timed
    rate = timed.tokens / timed.seconds
    return {
        "tokens_per_second": rate,
        "seconds": timed.seconds,
        "first_loss": timed.losses[0],
        "last_loss": timed.losses[-1],
        "tokens_per_step": timed.tokens / steps[1],
        "parameters": made.parameters,
        "operations_a_token": made.operations,
        "gemm_gflops": peak / 1e9,
        "peak_share": made.operations * rate / peak,
    }
