"""What the transformers library says of a folder, where it is installed; nothing else asks it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clozeworks.data.batches import Batch
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import FAMILIES, Heads

OLDEST = 5
"""First major version of transformers whose classes are asked."""


def class_of(config: EncoderConfig, heads: Heads) -> Any:
    """The transformers class that holds these heads; None where there is none to be had."""
    name = FAMILIES.get(config.family).architectures.get(heads)
    try:
        old = int(version("transformers").split(".")[0]) < OLDEST
    except PackageNotFoundError:
        return None
    if name is None or old:
        return None
    return getattr(import_module("transformers"), name, None)


def their_answers(
    kind: Any, folder: Path, config: EncoderConfig, heads: Heads, batch: Batch
) -> dict[str, Tensor]:
    """What the class says of each sequence alone, named and shaped as `Model.answers` has it.

    Without heads, `x` [T, H]: the vectors of tokens. Only safetensors are read.
    """
    with _quiet():
        model = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
    found: list[dict[str, Tensor]] = []
    for start, end in pairwise(batch.offsets.tolist()):
        ids = batch.input_ids[None, start:end]
        inputs = {
            "input_ids": ids[None] if "choice" in heads else ids,  # a text with one option
            "attention_mask": torch.ones_like(ids),
            "position_ids": batch.positions[None, start:end] + config.first_position,
        }
        if config.num_segments > 1:
            inputs["token_type_ids"] = batch.segments[None, start:end]
        with torch.inference_mode():
            found.append(_by_head(model(**inputs), heads))
    return {name: torch.cat([one[name] for one in found]).float() for name in found[0]}


def _by_head(answer: Any, heads: Heads) -> dict[str, Tensor]:
    """One sequence's answer by our head's name, without the dimension of the batch for tokens."""
    if not heads:
        return {"x": answer.last_hidden_state[0]}
    if len(heads) == 2:
        (other,) = heads - {"mlm"}
        second = answer.sop_logits if other == "sop" else answer.seq_relationship_logits
        return {"mlm": answer.prediction_logits[0], other: second}
    (head,) = heads
    if head == "qa":
        return {"qa": torch.stack([answer.start_logits[0], answer.end_logits[0]], -1)}
    return {head: answer.logits[0] if head in ("mlm", "rtd", "tag") else answer.logits}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from reporting on what it loads; afterwards it speaks as before."""
    logging = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
