"""A vocabulary, models and batches small enough for laws to be tried many times."""

import numpy as np
import torch

from clozeworks import tasks
from clozeworks.core.records import Sequence
from clozeworks.data.batches import Group
from clozeworks.model.config import EncoderConfig
from clozeworks.model.heads import encoder_of
from clozeworks.tasks.base import Draw
from clozeworks.text.tags import labels_of
from clozeworks.text.tokenizer import SPECIAL, Tokenizer
from clozeworks.text.units import joined

WORDS = ["refund", "order", "late", "lost", "parcel", "please", "where", "is", "my", "the", "a"]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
CHINESE = list("我要退款快递在哪里谢你好吗")
PIECES = [
    *SPECIAL,
    "[unused0]",
    *dict.fromkeys([*WORDS, *LETTERS, *CHINESE, *",.!?"]),
    *(f"##{letter}" for letter in LETTERS),
]
TOKENIZER = Tokenizer.of(PIECES)
VOCABULARY = TOKENIZER.vocabulary
LABELS = ["退款", "delivery", "other"]
CONFIG = EncoderConfig(
    vocab_size=len(PIECES),
    hidden_size=32,
    num_layers=3,
    num_heads=4,
    inner_size=48,
    max_positions=160,
    norm_eps=1e-3,
    dropout=0.0,
    attention_dropout=0.0,
)
UNEQUAL = [70, 5, 131, 64, 33, 3, 100]
"""Lengths below, at and above the rows that sequences are packed in."""
CLOCKED = {"seconds", "waiting", "memory_mb", "peak_share"}
"""Numbers of a step that differ from run to run."""
DRAW = Draw(seed=7, epoch=0)


KINDS = {
    "classify:multi": {"kind": "multi", "class_weights": "balanced", "smoothing": 0.1, "focus": 1},
    "classify:regression": {"kind": "regression"},
    "tag:crf": {"crf": True, "scheme": "bioes", "max_length": 16, "overlap": 4},
    "seq2seq:untied": {
        "share_vocabulary": False,
        "decoder_layers": 2,
        "beams": 1,
        "smoothing": 0,
        "no_repeat": 2,
    },
    "classify:paths": {"levels": "##", "class_weights": "balanced", "focus": 2.0},
}
"""Settings that make another thing of a task."""
TYPES = ["name", "place"]
PATHS = ["a##b", "a##c", "d"]


def make_task(name, labels=None):
    """A task over the tiny vocabulary, its dropout off; `classify:multi` is a kind of one."""
    task, _, kind = name.partition(":")
    if task == "qa":
        settings = {"dropout": 0.0, "max_length": 32, "overlap": 4, "question_length": 8}
        return tasks.create(task, settings, VOCABULARY)
    if task == "seq2seq":
        settings = {"source_length": 40, "target_length": 24, **KINDS.get(name, {})}
        return tasks.create(task, settings, VOCABULARY)
    if task == "tag":
        labels = labels or labels_of(TYPES, "bioes" if kind else "bio")
        return tasks.create(task, {"dropout": 0.0, **KINDS.get(name, {})}, VOCABULARY, labels)
    if task != "classify":
        return tasks.create(task, {}, VOCABULARY)
    usual = {"regression": ["value"], "paths": PATHS}.get(kind, LABELS)
    settings = {"dropout": 0.0, **KINDS.get(name, {})}
    return tasks.create(task, settings, VOCABULARY, labels or usual)


OWN = {
    "mlm+sop": {"family": "albert", "embedding_size": 16, "groups": 1},
    "rtd": {
        "family": "electra",
        "embedding_size": 16,
        "head_activation": "gelu",
        "pooler_activation": "gelu",
    },
    "sop": {"family": "transformer", "embedding_norm": False},
}
"""What makes of the tiny encoder a family whose folders hold what BERT's do not."""


def make_config(task):
    """The tiny encoder as a family that can be written with the task's heads."""
    return CONFIG.model_copy(update=OWN.get(task.name, {}))


def make_model(task, config=CONFIG, seed=0):
    """A model to be trained whose every parameter matters: no bias is zero, no norm one."""
    model = task.build(encoder_of(config))
    task.equip(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
            if "norm.weight" in name:
                parameter.add_(1.0)
    return model.eval()


def make_groups(lengths=UNEQUAL, seed=0, classes=2):
    """Groups of one random pair each, of the given lengths, special tokens included."""
    random = np.random.default_rng(seed)
    groups = []
    for index, length in enumerate(lengths):
        ids = random.choice(VOCABULARY.drawable, length)
        middle = 1 + int(random.integers(max(1, length - 2)))
        ids[0], ids[-1] = VOCABULARY.cls, VOCABULARY.sep
        if 1 < middle < length - 2:
            ids[middle] = VOCABULARY.sep
        segments = (np.arange(length) > middle).astype(np.int64)
        groups.append(Group(index, [Sequence(ids, segments)], int(random.integers(classes))))
    return groups


def make_examples(task, count, seed=0):
    """Labelled Examples of any task, English and Chinese, of many lengths."""
    random = np.random.default_rng(seed)

    def text():
        return " ".join(random.choice([*WORDS, *CHINESE], int(random.integers(1, 20))))

    if task.name == "qa":
        return [asked(task, text() + " " + text(), text(), random) for _ in range(count)]
    if task.name == "seq2seq":
        return [paired(task, text().split()) for _ in range(count)]
    if task.name == "tag":
        return [tagged(task, text().split(), random) for _ in range(count)]
    if task.name == "classify":
        answers = task.labels
        if task.config.kind == "regression":
            answers = ["1", "-2.5", "0"]
        if task.config.kind == "multi":
            answers = ["|".join(answers[:2]), "", answers[2], answers[0]]
        return [task.Example(text=text(), label=answers[i % len(answers)]) for i in range(count)]
    if task.name in ("nsp", "sop"):
        return [
            task.Example(text=text(), text_pair=text(), label=task.words[i % 2])
            for i in range(count)
        ]
    if task.name == "rtd":
        return [task.Example(text=text()) for _ in range(count)]
    return [task.Example(text=f"{text()} [MASK] {text()}") for _ in range(count)]


def tagged(task, words, random):
    """An Example of tokens, every third word a name or a place, or the same by characters."""
    tags = ["O"] * len(words)
    for i in range(1, len(words), 3):
        tags[i] = f"B-{TYPES[i % 2]}"
    if random.integers(2):
        return task.Example(tokens=words, tags=tags)
    text, given = joined(words)
    places = [(*given[i].tolist(), tag[2:]) for i, tag in enumerate(tags) if tag != "O"]
    entities = [{"start": start, "end": end, "label": label} for start, end, label in places]
    return task.Example(text=text, entities=entities)


def paired(task, words):
    """An Example whose target is the last words of its source, the last one first."""
    return task.Example(source=" ".join(words), target=" ".join(words[:-4:-1]))


def asked(task, context, question, random):
    """An Example whose answer is a word or two of its context, or, one time in four, not there."""
    words = context.split()
    first = int(random.integers(len(words)))
    answer = " ".join(words[first : first + 1 + int(random.integers(2))])
    start = len(" ".join([*words[:first], ""]))
    there = {"text": [answer], "answer_start": [start]}
    answers = there if random.integers(4) else {"text": [], "answer_start": []}
    return task.Example(context=context, question=question, answers=answers)


def gap(ours, theirs, against=None):
    """The largest difference, as a share of the largest magnitude of `theirs`, or of `against`."""
    assert ours.shape == theirs.shape, f"{list(ours.shape)} is not {list(theirs.shape)}"
    scale = (theirs if against is None else against).abs().max().clamp_min(1e-30)
    return float(((ours - theirs).abs().max() / scale).detach())
