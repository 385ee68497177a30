"""Every pretraining objective, packed here, beside Hugging Face's models on the same batch padded.

Losses and the gradient of every weight; and the loss of theirs that is wrong under accumulation.
"""

import importlib.metadata
import inspect

import pytest
import torch
import torch.nn.functional as F
import transformers
from relatives import LIMIT, Padded, gradient_gaps
from transformers import BertConfig, BertForMaskedLM

from clozeworks.core.bundle import GENERATOR, Card
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.families.bert import Bert
from clozeworks.train.loop import Learner, TrainSettings, take_step
from clozeworks.train.optim import Optimizer
from clozeworks.train.portion import Portion
from tiny import (
    CONFIG,
    DRAW,
    TOKENIZER,
    gap,
    make_config,
    make_groups,
    make_model,
    make_task,
)

CASES = [
    ("mlm", ["mlm"]),
    ("nsp", ["nsp"]),
    ("mlm+nsp", ["mlm", "nsp"]),
    ("mlm+sop", ["mlm", "sop"]),
    ("mlm+sop", ["sop"]),
    ("rtd", ["mlm", "rtd"]),
]


def opened_there(folder, name):
    """The folder's model as their class."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    kind = getattr(transformers, config.architectures[0])
    assert (name == "rtd") == (kind is transformers.ElectraForPreTraining)
    return kind.from_pretrained(folder, config=config).eval()


def spread(padded, rows, values, fill):
    """One value for each of some rows → [N, S]."""
    packed = torch.full((int(padded.mask.sum()),), fill, dtype=values.dtype)
    packed[rows] = values
    out = torch.full(padded.mask.shape, fill, dtype=values.dtype)
    out[padded.mask] = packed
    return out


def pretraining_sums(theirs, batch):
    """Our loss terms from their class for masked tokens, pairs, or both."""
    padded = Padded.of(batch, theirs, left=False)
    answer = theirs(**padded.inputs)
    targets, sums = batch.targets, {}
    if "mlm_rows" in targets:
        logits = getattr(answer, "prediction_logits", None)
        logits = answer.logits if logits is None else logits
        labels = spread(padded, targets["mlm_rows"], targets["mlm_labels"], -100)
        sums["mlm"] = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    for name, key in (("nsp", "seq_relationship_logits"), ("sop", "sop_logits")):
        if name in targets:
            logits = getattr(answer, key, None)
            logits = answer.logits if logits is None else logits
            sums[name] = F.cross_entropy(logits, targets[name], reduction="sum")
    return sums


def replaced_sum(theirs, batch):
    """The loss of their discriminator on what ours read."""
    padded = Padded.of(batch, theirs, left=False)
    rows = batch.targets["rtd_rows"]
    wanted = spread(padded, rows, batch.targets["rtd_replaced"], -1.0)
    logits = theirs(**padded.inputs).logits
    known = wanted >= 0
    return F.binary_cross_entropy_with_logits(logits[known], wanted[known], reduction="sum")


@pytest.mark.parametrize(("name", "terms"), CASES, ids=lambda value: "+".join(value))
def test_packed_is_padded(name, terms, tmp_path):
    task = make_task(name)
    model = make_model(task, make_config(task))
    write_bundle(tmp_path / "bundle", model, TOKENIZER, Card(task=name))
    theirs = opened_there(tmp_path / "bundle", name)
    batch = task.collate(make_groups([50, 5, 71, 33, 3]), DRAW)
    ours = task.loss(model, batch, DRAW)
    if name == "rtd":
        generator = opened_there(tmp_path / "bundle" / GENERATOR, "mlm")
        wanted = pretraining_sums(generator, batch)
        wanted["rtd"] = replaced_sum(theirs, task.begin(model, batch)[0])
    else:
        wanted = pretraining_sums(theirs, batch)
    for term in terms:
        assert gap(ours[term].detach(), wanted[term].detach()) < LIMIT, term
    for losses in (ours, wanted):
        sum(losses[term] for term in terms).backward()
    if name == "rtd":
        embeddings_together(theirs, generator)
        assert max(gradient_gaps(model.generator, generator, frozenset({"mlm"}))) < LIMIT
        model.generator = None
    assert max(gradient_gaps(model, theirs, frozenset(model.heads))) < LIMIT


def embeddings_together(theirs, generator):
    """Their two models hold the embeddings twice: the judge's gradient becomes that of both."""
    judges = dict(theirs.named_parameters())
    for name, parameter in generator.named_parameters():
        if ".embeddings." in name:
            judges[name].grad += parameter.grad
            parameter.grad = None


# === Accumulation ===


FOUR = [[40, 12], [9, 33], [25, 25], [18, 31]]
"""Lengths in four micro-batches."""


def their_bert():
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**Bert().values(CONFIG))).eval()


def their_rows(task, lengths):
    """A batch as their Trainer would have it: padded, labels everywhere, -100 where none."""
    batch = task.collate(make_groups(lengths, seed=sum(lengths)), DRAW)
    padded = Padded.of(batch, their_bert(), left=False)
    labels = spread(padded, batch.targets["mlm_rows"], batch.targets["mlm_labels"], -100)
    return {**padded.inputs, "labels": labels}


needs_523 = pytest.mark.skipif(
    not importlib.metadata.version("transformers").startswith("5.23."),
    reason="what is shown here is of transformers 5.23",
)


@needs_523
def test_their_bert_reports_four_times_the_loss_in_four_parts_and_ours_does_not():
    """Trainer passes `num_items_in_batch` to models that take any keyword, and divides no more.

    BERT takes it and passes it on to nobody: each of four parts is a mean of its own.
    """
    task = make_task("mlm")
    kinds = {p.kind for p in inspect.signature(BertForMaskedLM.forward).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD in kinds
    theirs, parts = their_bert(), [their_rows(task, lengths) for lengths in FOUR]
    items = sum(int((part["labels"] != -100).sum()) for part in parts)
    reported = 0.0
    for part in parts:
        loss = theirs(**part, num_items_in_batch=torch.tensor(items)).loss
        loss.backward()
        reported += float(loss.detach())
    fourfold = torch.cat([p.grad.flatten() for p in theirs.parameters()]).norm()
    logits = [theirs(**{k: v for k, v in part.items() if k != "labels"}).logits for part in parts]
    sums = [
        F.cross_entropy(x.flatten(0, 1), part["labels"].flatten(), reduction="sum")
        for x, part in zip(logits, parts, strict=True)
    ]
    theirs.zero_grad()
    (sum(sums) / items).backward()
    true = float(sum(sums).detach()) / items
    norm = torch.cat([p.grad.flatten() for p in theirs.parameters()]).norm()
    assert 3.8 < reported / true < 4.2
    assert 3.5 < float(fourfold / norm) < 4.5

    batches = [task.collate(make_groups(lengths, seed=sum(lengths)), DRAW) for lengths in FOUR]
    model = make_model(task)
    whole = sum(float(task.loss(model, b, DRAW)["mlm"].detach()) for b in batches)
    settings = TrainSettings(precision="fp32", lr=5e-5)
    optimizer = Optimizer(model, torch.float32)
    ours, _ = take_step(Learner(model, task, settings, optimizer), Portion.of(batches), 0.0)
    counted = sum(task.counts(b)["mlm"] for b in batches)
    assert ours["mlm"] == pytest.approx(whole / counted, rel=LIMIT)


@needs_523
def test_their_trainer_does_so(tmp_path):
    pytest.importorskip("accelerate", reason="their Trainer needs accelerate")
    task = make_task("mlm")
    batch = their_rows(task, [30] * 16)
    rows = [{name: tensor[i] for name, tensor in batch.items()} for i in range(16)]

    def reported(size, parts):
        settings = transformers.TrainingArguments(
            output_dir=str(tmp_path / f"{size}"),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=parts,
            max_steps=1,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(their_bert(), settings, train_dataset=rows)
        trainer.train()
        return trainer.state.log_history[0]

    whole, cut = reported(16, 1), reported(4, 4)
    assert cut["loss"] / whole["loss"] == pytest.approx(4, rel=0.02)
    assert cut["grad_norm"] / whole["grad_norm"] == pytest.approx(4, rel=0.05)
