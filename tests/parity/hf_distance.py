"""How far our model is from Hugging Face's: outputs, losses and gradients on one batch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

from clozeworks.core.bundle import open_bundle
from clozeworks.data.batches import Batch
from clozeworks.interop.huggingface import open_model
from clozeworks.model.families.bert import Bert
from clozeworks.model.heads import Model
from clozeworks.model.names import to_theirs
from clozeworks.tasks.base import Task
from tiny import CONFIG, DRAW, LABELS, gap, make_groups, make_task

CLASSES = {
    "mlm": BertForMaskedLM,
    "nsp": BertForNextSentencePrediction,
    "mlm+nsp": BertForPreTraining,
    "classify": BertForSequenceClassification,
}
BARE = BertModel
LIMIT = 1e-5
IGNORED = -100
"""The label Hugging Face's losses pass over."""


def their_model(kind, config=CONFIG):
    """A random model of theirs: no bias zero, no norm one, nothing dropped."""
    named = dict(enumerate(LABELS)) if kind is BertForSequenceClassification else {0: "a", 1: "b"}
    values = {**Bert().values(config), "id2label": named}
    model = kind(BertConfig(**values)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
            if "LayerNorm.weight" in name:
                parameter.add_(1.0)
    return model


def opened(folder, task):
    """Our model of their folder, nothing left to chance."""
    model, fresh = open_model(open_bundle(folder), task)
    assert fresh == []
    return model.eval()


@dataclass(frozen=True)
class Padded:
    """A packed batch as [N, S] tensors, and where its tokens stand in them."""

    inputs: dict[str, torch.Tensor]
    mask: torch.Tensor

    @classmethod
    def of(cls, batch: Batch) -> "Padded":
        lengths = batch.offsets.diff()
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        inputs = {"attention_mask": mask.long()}
        for name, values in (("input_ids", batch.input_ids), ("token_type_ids", batch.segments)):
            inputs[name] = torch.zeros(mask.shape, dtype=torch.int64)
            inputs[name][mask] = values
        return cls(inputs, mask)

    def spread(self, values: torch.Tensor, fill: int) -> torch.Tensor:
        """One value a token → [N, S]."""
        out = torch.full(self.mask.shape, fill, dtype=values.dtype)
        out[self.mask] = values
        return out


def random_batch(task: Task) -> Batch:
    return task.collate(make_groups(classes=3 if task.name == "classify" else 2), DRAW)


def distance(ours: Model, theirs: nn.Module, name: str) -> float:
    """The worst gap of any output, loss or gradient, on one random batch."""
    task = make_task(name)
    batch = random_batch(task)
    padded = Padded.of(batch)
    answer = theirs(
        **padded.inputs, **_their_labels(batch, padded, name), output_hidden_states=True
    )
    gaps = _output_gaps(ours, batch, padded, answer)
    theirs.zero_grad()
    ours.zero_grad()
    answer.loss.backward()
    sums, counts = task.loss(ours, batch, DRAW), task.counts(batch)
    loss = torch.stack([sums[term] / counts[term] for term in sums]).sum()
    loss.backward()
    gaps["loss"] = gap(loss, answer.loss)
    return max([*gaps.values(), *gradient_gaps(ours, theirs).values()])


def gradient_gaps(ours: Model, theirs: nn.Module) -> dict[str, float]:
    """The gap of every parameter's gradient, by their name; an absent one of ours is 0."""
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in ours.named_parameters()
    }
    names = Bert().names(frozenset(ours.heads))
    renamed = to_theirs(gradients, names, Bert().layers(ours.config))
    known = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    if not any(name.startswith("bert.") for name in known):
        known = {f"bert.{name}": tensor for name, tensor in known.items()}
    assert known.keys() <= renamed.keys()
    return {name: gap(renamed[name], known[name], _scale(name, known)) for name in known}


def _scale(name: str, known: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a gradient is measured against: its own size, or for a key's bias the query's.

    A key's bias moves every score of a row alike, so its true gradient is 0.
    """
    return known[name.replace("key.bias", "query.bias")]


def _their_labels(batch: Batch, padded: Padded, name: str) -> dict[str, torch.Tensor]:
    targets = batch.targets
    found = {}
    if "mlm" in name:
        labels = torch.full_like(batch.input_ids, IGNORED)
        labels[targets["mlm_rows"]] = targets["mlm_labels"]
        found["labels"] = padded.spread(labels, IGNORED)
    if name == "nsp":
        found["labels"] = targets["nsp"]
    if name == "mlm+nsp":
        found["next_sentence_label"] = targets["nsp"]
    if name == "classify":
        found["labels"] = targets["label"]
    return found


def _output_gaps(ours: Model, batch: Batch, padded: Padded, answer) -> dict[str, float]:
    encoded = ours.encoder.encode(ours.encoder.embed(batch), batch, want=["hidden"])
    fast = ours.encoder.encode(ours.encoder.embed(batch), batch).x
    gaps = {"fast": gap(fast, answer.hidden_states[-1][padded.mask])}
    for i, (x, theirs) in enumerate(zip(encoded.hidden, answer.hidden_states, strict=True)):
        gaps[f"hidden {i}"] = gap(x, theirs[padded.mask])
    for name, head in ours.heads.items():
        if name == "mlm":
            logits = F.linear(head(fast), ours.encoder.embeddings.tokens.weight, head.bias)
            theirs = getattr(answer, "prediction_logits", None)
            theirs = (answer.logits if theirs is None else theirs)[padded.mask]
        else:
            logits = head(ours.pooled(fast[batch.firsts], batch))
            theirs = getattr(answer, "seq_relationship_logits", None)
            theirs = answer.logits if theirs is None else theirs
        gaps[name] = gap(logits, theirs)
    return gaps
