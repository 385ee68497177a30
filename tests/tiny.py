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
    "classify:windows": {"max_length": 16, "overlap": 4, "join": "max"},
    "classify:multi": {"kind": "multi", "class_weights": "balanced", "smoothing": 0.1, "focus": 1},
    "classify:regression": {"kind": "regression"},
    "tag:crf": {"crf": True, "scheme": "bioes", "max_length": 16, "overlap": 4},
    "rerank:pointwise": {"loss": "pointwise", "join": "mean", "drawn": 3},
    "tag:nested": {"nested": True, "max_length": 16, "overlap": 6, "longest": 4},
    "seq2seq:untied": {
        "share_vocabulary": False,
        "decoder_layers": 2,
        "beams": 1,
        "smoothing": 0,
        "no_repeat": 2,
    },
    "classify:paths": {"levels": "##", "class_weights": "balanced", "focus": 2.0},
    "embed:cosent": {"objective": "cosent"},
    "embed:cosine": {"objective": "cosine", "pooling": "max", "max_length": 16},
    "embed:simcse": {"objective": "simcse", "pooling": "cls", "normalize": True},
}
"""Settings that make another thing of a task."""
TYPES = ["name", "place"]
RELATIONS = ["none", "owns(e1,e2)", "owns(e2,e1)"]
PATHS = ["a##b", "a##c", "d"]


def make_task(name, labels=None):
    """A task over the tiny vocabulary, its dropout off; `classify:multi` is a kind of one."""
    task, _, kind = name.partition(":")
    if task == "qa":
        settings = {"dropout": 0.0, "max_length": 32, "overlap": 4, "question_length": 8}
        return tasks.create(task, settings, VOCABULARY)
    if task in ("choice", "rerank"):
        kept = {"choice": "option_length", "rerank": "query_length"}[task]
        settings = {"dropout": 0.0, "max_length": 32, "overlap": 4, kept: 16}
        return tasks.create(task, {**settings, **KINDS.get(name, {})}, VOCABULARY)
    if task == "relation":
        settings = {"dropout": 0.0, "max_length": 24, "no_relation": RELATIONS[0]}
        return tasks.create(task, settings, VOCABULARY, labels or RELATIONS)
    if task == "embed":
        return tasks.create(task, {"symmetric": not kind, **KINDS.get(name, {})}, VOCABULARY)
    if task == "extract":
        settings = {"dropout": 0.0, "max_length": 48, "overlap": 16, "keep": 2, "blocking": False}
        return tasks.create(task, settings, VOCABULARY, ["kept"])
    if task == "seq2seq":
        settings = {"source_length": 40, "target_length": 24, **KINDS.get(name, {})}
        return tasks.create(task, settings, VOCABULARY)
    if task == "tag":
        labels = labels or labels_of(TYPES, "bioes" if kind else "bio")
        if kind == "nested":
            labels = [f"{prefix}-{type}" for type in TYPES for prefix in "BE"]
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


def groups_from(task, examples):
    """What a task learns from these Examples."""
    features = task.features(examples, TOKENIZER)
    targets = [task.target(example) for example in examples]
    return [Group(i, s, t) for i, (s, t) in enumerate(zip(features, targets, strict=True))]


def make_examples(task, count, seed=0):
    """Labelled Examples of any task, English and Chinese, of many lengths."""
    random = np.random.default_rng(seed)

    def text():
        return " ".join(random.choice([*WORDS, *CHINESE], int(random.integers(1, 20))))

    if task.name == "qa":
        return [asked(task, text() + " " + text(), text(), random) for _ in range(count)]
    if task.name == "choice":
        return [chosen(task, text() + " " + text(), text, random) for _ in range(count)]
    if task.name == "rerank":
        return [ordered(task, text(), text, random) for _ in range(count)]
    if task.name == "relation":
        return [related(task, text().split(), i, random) for i in range(count)]
    if task.name == "embed":
        return [compared(task, text, i) for i in range(count)]
    if task.name == "extract":
        return [to_extract(task, random) for _ in range(count)]
    if task.name == "tag" and task.config.nested:
        return [nested(task, text().split()) for _ in range(count)]
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
    blanks = [f"{text()} [MASK] {text()}" if i % 3 else text() for i in range(count)]
    return [task.Example(text=blank) for blank in blanks]


def compared(task, text, number):
    """An Example as its objective wants it: a positive and negatives, a scored pair, or a text."""
    match task.config.objective:
        case "cosent" | "cosine":
            return task.Example(text=text(), text_pair=text(), score=number % 6)
        case "simcse":
            return task.Example(text=text())
    negatives = [text()] * (number % 3 == 0)
    return task.Example(text=text(), positive=text(), negatives=negatives)


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


def chosen(task, context, text, random):
    """An Example of two to four options, the right one named by its text."""
    options = list(dict.fromkeys([text(), text(), *(text() for _ in range(random.integers(3)))]))
    options += ["yes"] * (len(options) == 1)
    answer = options[int(random.integers(len(options)))]
    return task.Example(context=context, question=text(), options=options, answer=answer)


def ordered(task, query, text, random):
    """An Example of two to six different candidates, one or two of them relevant."""
    candidates = list(dict.fromkeys([text() for _ in range(int(random.integers(2, 7)))]))
    candidates += ["yes"] * (len(candidates) == 1)
    relevant = random.permutation(candidates)[: max(1, len(candidates) // 3)].tolist()
    return task.Example(query=query, candidates=candidates, relevant=relevant)


def related(task, words, number, random):
    """An Example of tokens, or of the same by characters, with two spans of a word or two."""
    words = [*words, "refund", "parcel"]
    places = sorted(random.permutation(len(words))[:2].tolist())
    ends = [(place, place + 1) for place in places]
    if number % 2:
        ends.reverse()
    label = task.labels[number % len(task.labels)]
    if random.integers(2):
        whole = {"tokens": words}
    else:
        text, given = joined(words)
        whole = {"text": text}
        ends = [(int(given[a, 0]), int(given[b - 1, 1])) for a, b in ends]
    subject, other = ({"start": start, "end": end} for start, end in ends)
    return task.Example(**whole, subject=subject, object=other, label=label)


def asked(task, context, question, random):
    """An Example whose answer is a word or two of its context, or, one time in four, not there."""
    words = context.split()
    first = int(random.integers(len(words)))
    answer = " ".join(words[first : first + 1 + int(random.integers(2))])
    start = len(" ".join([*words[:first], ""]))
    there = {"text": [answer], "answer_start": [start]}
    answers = there if random.integers(4) else {"text": [], "answer_start": []}
    return task.Example(context=context, question=question, answers=answers)


def nested(task, words):
    """An Example in which every third word is a name, inside a place of three words."""
    text, given = joined(words)
    entities = []
    for i in range(1, len(words), 3):
        around = given[i - 1, 0], given[min(i + 1, len(words) - 1), 1]
        for (start, end), label in ((given[i], "name"), (around, "place")):
            entities.append({"start": int(start), "end": int(end), "label": label})
    return task.Example(text=text, entities=entities)


def to_extract(task, random):
    """An Example of two to six sentences, whole or one by one; two are kept and say so."""
    plain = [word for word in [*WORDS, *CHINESE] if word != "refund"]
    count = int(random.integers(2, 7))
    sentences = [" ".join(random.choice(plain, int(random.integers(2, 9)))) for _ in range(count)]
    labels = sorted(random.choice(count, 2, replace=False).tolist())
    for label in labels:
        sentences[label] += " refund"
    sentences = [f"{sentence}!" for sentence in sentences]
    if random.integers(2):
        return task.Example(sentences=sentences, labels=labels)
    return task.Example(document=" ".join(sentences), labels=labels)


def paired(task, words):
    """An Example whose target is the last words of its source, the last one first."""
    return task.Example(source=" ".join(words), target=" ".join(words[:-4:-1]))


def gap(ours, theirs, against=None):
    """The largest difference, as a share of the largest magnitude of `theirs`, or of `against`."""
    assert ours.shape == theirs.shape, f"{list(ours.shape)} is not {list(theirs.shape)}"
    scale = (theirs if against is None else against).abs().max().clamp_min(1e-30)
    return float(((ours - theirs).abs().max() / scale).detach())
