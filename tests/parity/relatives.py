"""Every family beside Hugging Face's classes: random models of theirs, opened as ours, compared."""

from dataclasses import dataclass

import torch
import transformers
from torch import nn

from clozeworks.core.bundle import open_bundle
from clozeworks.core.records import Sequence
from clozeworks.data.batches import Batch, Group, pack
from clozeworks.interop.huggingface import open_with
from clozeworks.model.families import FAMILIES
from clozeworks.model.heads import Model, Pooler, head_of, needs_pooler
from clozeworks.model.names import to_theirs
from tiny import gap

NAMES = [name for name in FAMILIES.names() if FAMILIES.get(name).architectures]
LENGTHS = [40, 5, 71, 33, 3]
"""One sequence far longer than the local window, one shorter."""
CLASSES = 3
VOCABULARY = 60
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
    "num_labels": CLASSES,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
}
THEIRS = {
    "bert": {"layer_norm_eps": 1e-3},
    "roberta": {"max_position_embeddings": 82, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "xlm_roberta": {
        "max_position_embeddings": 82,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    },
    "albert": {"embedding_size": 16, "num_hidden_groups": 2, "inner_group_num": 2},
    "distilbert": {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0},
    "electra": {"embedding_size": 16, "summary_last_dropout": 0.0},
    "modernbert": {
        "local_attention": 12,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "norm_eps": 1e-3,
        "classifier_pooling": "mean",
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
}
"""What each family's config says besides SHAPE."""
DROPPED = {"attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
MORE_DROPPED = {"classifier_dropout_prob": 0.0}
LIMIT = 1e-5


def classes(name):
    """Each set of heads the family has a class for; two models in one have tests of their own."""
    return sorted((h for h in FAMILIES.get(name).architectures if "seq2seq" not in h), key=sorted)


def their_model(name, heads, spread=0.1):
    """A random model of their class: no bias zero, no norm one, nothing dropped."""
    family = FAMILIES.get(name)()
    values = {**SHAPE, **DROPPED, **MORE_DROPPED, **THEIRS[name]}
    if heads == {"nsp"} or heads == {"mlm", "nsp"} or heads == {"mlm", "sop"} or heads == {"qa"}:
        values["num_labels"] = 2
    config = transformers.AutoConfig.for_model(family.model_type, **values)
    config._attn_implementation = "eager"
    model = getattr(transformers, family.architectures[heads])(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            parameter.normal_(0.0, spread, generator=generator)
            if parameter.dim() == 1 and part.endswith("weight"):
                parameter.add_(1.0)
    return model


def build(heads):
    """A function that stands the heads on an encoder."""

    def built(encoder):
        bare = not heads and "pooler.dense" in FAMILIES.get(encoder.config.family).modules
        pooled = bare or needs_pooler(encoder.config, heads)
        modules = {name: head_of(name, encoder, CLASSES) for name in heads}
        return Model(encoder, Pooler(encoder.config) if pooled else None, modules)

    return built


def opened(folder, heads):
    """Our model of their folder, nothing left to chance."""
    model, fresh = open_with(open_bundle(folder), build(heads))
    assert fresh == []
    return model.eval()


def random_batch(name):
    """Sequences of unequal lengths, pad's id nowhere in them."""
    generator = torch.Generator().manual_seed(1)
    groups = []
    for index, length in enumerate(LENGTHS):
        ids = torch.randint(4, VOCABULARY, (length,), generator=generator).numpy()
        segments = torch.zeros(length, dtype=torch.int64).numpy()
        if name in ("bert", "albert", "electra"):
            segments[length // 2 :] = 1
        groups.append(Group(index, [Sequence(ids, segments)]))
    return pack(groups)


@dataclass(frozen=True)
class Padded:
    """A packed batch as theirs, padded to the right or to the left."""

    inputs: dict[str, torch.Tensor]
    mask: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, model: nn.Module, left: bool) -> "Padded":
        lengths = batch.offsets.diff()
        size = int(lengths.max())
        place = torch.arange(size)[None]
        mask = place >= size - lengths[:, None] if left else place < lengths[:, None]
        config = model.config
        inputs = {"attention_mask": mask.long()}
        inputs["input_ids"] = torch.full(mask.shape, config.pad_token_id)
        inputs["input_ids"][mask] = batch.input_ids
        if getattr(config, "type_vocab_size", 1) > 1:
            inputs["token_type_ids"] = torch.zeros(mask.shape, dtype=torch.int64)
            inputs["token_type_ids"][mask] = batch.segments
        if left and config.model_type in ("bert", "albert", "electra", "distilbert"):
            inputs["position_ids"] = torch.zeros(mask.shape, dtype=torch.int64)
            inputs["position_ids"][mask] = batch.positions
        return cls(inputs, mask)


def their_answers(theirs, padded, heads):
    """What their class says, by our head's name, for real tokens only."""
    inputs = padded.inputs
    if "choice" in heads:
        inputs = {key: value[None] for key, value in inputs.items()}
    answer = theirs(**inputs)
    if not heads:
        pooled = getattr(answer, "pooler_output", None)
        bare = {"x": answer.last_hidden_state[padded.mask]}
        return bare if pooled is None else {**bare, "pooled": pooled}
    if len(heads) == 2:
        (other,) = heads - {"mlm"}
        second = answer.sop_logits if other == "sop" else answer.seq_relationship_logits
        return {"mlm": answer.prediction_logits[padded.mask], other: second}
    (head,) = heads
    if head == "qa":
        both = torch.stack([answer.start_logits, answer.end_logits], -1)
        return {"qa": both[padded.mask]}
    if head == "choice":
        return {"choice": answer.logits.flatten()[:, None]}
    return {head: answer.logits[padded.mask] if head in ("mlm", "tag", "rtd") else answer.logits}


def our_answers(ours: Model, batch: Batch):
    """The same of our model."""
    x = ours.encoder.encode(ours.encoder.embed(batch), batch).x
    answers = ours.answers(x, batch) if ours.heads else {"x": x}
    if not ours.heads and ours.pooler is not None:
        answers["pooled"] = ours.pooled(x[ours.pooled_rows(batch)], batch)
    return answers


def distance(ours, theirs, name, heads, left=False):
    """The worst gap of any output or gradient on one random batch."""
    batch = random_batch(name)
    wanted = their_answers(theirs, Padded.of(batch, theirs, left), heads)
    if left:  # theirs would pool what stands first: padding
        wanted.pop("pooled", None)
    found = {head: answer for head, answer in our_answers(ours, batch).items() if head in wanted}
    gaps = [gap(found[head], wanted[head]) for head in wanted]
    ours.zero_grad()
    theirs.zero_grad()
    generator = torch.Generator().manual_seed(2)
    for answers in (found, wanted):
        generator.manual_seed(2)
        weights = {h: torch.randn(answers[h].shape, generator=generator) for h in sorted(answers)}
        sum((answers[head] * weights[head]).sum() for head in answers).backward()
    return max([*gaps, *gradient_gaps(ours, theirs, heads)])


def gradient_gaps(ours, theirs, heads):
    """The gap of every parameter's gradient, by their name; an absent one of ours is 0."""
    family = FAMILIES.get(ours.config.family)()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in ours.named_parameters()
    }
    renamed = to_theirs(gradients, family.names(heads), family.layers(ours.config))
    known = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    if not heads:
        known = {family.prefix + name: tensor for name, tensor in known.items()}
    scales = {name: _scale(name, known) for name in known}
    return [gap(renamed[name], known[name], scales[name]) for name in known if name in renamed]


def _scale(name, known):
    """A key's bias moves every score of a row alike: its gradient is measured by the query's."""
    for key, query in ((".key.bias", ".query.bias"), (".k_lin.bias", ".q_lin.bias")):
        if name.endswith(key):
            return known[name.replace(key, query)]
    return known[name]
