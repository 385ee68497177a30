"""The best that can be made of Hugging Face's BertForMaskedLM on a CPU, keeping its modules.

Head and softmax on the masked rows only; no dropout; bf16, throughout or by autocast; eager or SDPA
attention; one fused AdamW; the whole step's forward and backward through torch.compile.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

RATE = 5e-5
"""The learning rate Trainer has by default."""


@dataclass(frozen=True)
class Variant:
    """One way of running it: bf16 weights throughout (pure), or fp32 weights and autocast."""

    batch: int
    """Blocks of a step."""
    attention: str
    pure: bool
    compiled: bool


class MaskedRows(nn.Module):
    """Mean cross-entropy of the masked rows: ids [B, S], rows [M] of B * S, labels [M]."""

    def __init__(self, model: BertForMaskedLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        hidden = self.model.bert(input_ids=ids).last_hidden_state.flatten(0, 1)
        logits = self.model.cls(hidden.index_select(0, rows))
        return F.cross_entropy(logits, labels)


def run(
    sizes: tuple[int, int, int],
    variant: Variant,
    rows: Sequence[dict[str, Any]],
    collator: Any,
    steps: tuple[int, int],
) -> dict[str, float]:
    """Train for (warm-up, measured) steps; the seconds of the measured ones, and the losses."""
    model = build(sizes, variant)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    step = torch.compile(model) if variant.compiled else model
    losses, ends = [], []
    for batch in batches(rows, collator, sum(steps), variant.batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=not variant.pure):
            loss = step(*masked(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        ends.append(time.perf_counter())
    seconds = ends[-1] - ends[steps[0] - 1]
    return {"seconds": seconds, "first_loss": losses[0], "last_loss": losses[-1]}


def build(sizes: tuple[int, int, int], variant: Variant) -> MaskedRows:
    """BERT of (layers, width, vocabulary), in training mode, without dropout."""
    layers, width, vocab = sizes
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation=variant.attention,
    )
    model = MaskedRows(BertForMaskedLM(config)).train()
    return model.bfloat16() if variant.pure else model


def batches(rows: Sequence[dict[str, Any]], collator: Any, count: int, size: int) -> Iterator[Any]:
    """`count` batches of `size` blocks in a random order through HF's collator."""
    order = torch.randperm(len(rows))[: count * size].view(count, size).tolist()
    for chosen in order:
        yield collator([rows[i] for i in chosen])


def masked(batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """ids [B, S], and the masked rows with their labels; their number differs every time."""
    labels = batch["labels"].flatten()
    rows = torch.nonzero(labels != -100).flatten()
    wanted = labels[rows]
    for tensor in (rows, wanted):  # otherwise each new number is compiled anew
        torch._dynamo.mark_dynamic(tensor, 0)
    return batch["input_ids"], rows, wanted
