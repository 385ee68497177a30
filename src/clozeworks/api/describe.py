"""What a model folder holds, in words: sizes, heads, tokenizer, and where it comes from."""

from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path

from clozeworks.core.bundle import OWN, Bundle, Card, Provenance, open_bundle, read_json
from clozeworks.core.errors import UserError
from clozeworks.interop import pair, tensorflow
from clozeworks.interop.huggingface import (
    PRETRAINING,
    check_match,
    config_of,
    family_of,
    heads_of,
    labels_of,
)
from clozeworks.interop.sentences import TASK as SENTENCES
from clozeworks.interop.sentences import is_sentence_folder, said_of
from clozeworks.interop.tensors import read_shapes
from clozeworks.model.config import EncoderConfig
from clozeworks.model.families import FAMILIES, Family
from clozeworks.model.names import their_names
from clozeworks.text.load import load_tokenizer
from clozeworks.text.tokenizer import Tokenizer

Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 3
"""Names of a long list that are shown."""


def describe(path: Path) -> dict[str, str]:
    """What a model folder holds, as lines of a name and a value; no weights are read, only headers.

    Raises UserError if the folder is none, or a file of weights is cut short.
    """
    bundle = open_bundle(path)
    family, config = family_of(bundle), config_of(bundle)
    there = {name: shape for file in bundle.weights for name, shape in read_shapes(file).items()}
    shapes = pair.shown(there, bundle, family)
    lines = {
        "folder": str(path),
        "family": family.model_type,
        "class": ", ".join(bundle.config.get("architectures") or ["–"]),
        **_sizes(config),
        **_decoder(bundle, family, config),
        **_with_own(_parts(shapes, family, config, heads_of(bundle)), bundle),
        "weights": _files([*bundle.weights, *(p for p in [bundle.path / OWN] if p.exists())]),
        "tokenizer": _tokenizer(path, config, bundle.card),
        "task": bundle.card.task or "–",
        **_answers(bundle),
        **_vectors(bundle),
        **_origin(bundle.card.provenance),
    }
    if bundle.generator is not None:
        lines["generator"] = str(bundle.generator.path)
    return lines


def describe_checkpoint(prefix: Path) -> dict[str, str]:
    """The same of a TensorFlow checkpoint, from its index and the config beside it."""
    shapes = tensorflow.read_shapes(prefix)
    values = read_json(tensorflow.config_beside(prefix))
    family = FAMILIES.get(tensorflow.family_in(shapes, values))()
    config = family.config(values)
    files = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    renamed = {tensorflow.renamed(name, family): shape for name, shape in shapes.items()}
    return {
        "checkpoint": str(prefix),
        "form": f"TensorFlow; to use it: clozeworks convert {prefix} DIR",
        "family": family.model_type,
        **_sizes(config),
        **_parts(renamed, family, config, frozenset()),
        "weights": _files(files),
        "tokenizer": _tokenizer(prefix.parent, config, Card()),
    }


def tokenizer_in_words(tokenizer: Tokenizer) -> str:
    """Kind, pieces and case of a tokenizer."""
    case = {True: ", lower case", False: ", upper and lower case", None: ""}
    return f"{tokenizer.kind}, {len(tokenizer.pieces):,} pieces{case[tokenizer.lowercase]}"


def _sizes(config: EncoderConfig) -> dict[str, str]:
    distinct = config.num_distinct
    shared = f" ({distinct} distinct)" if distinct != config.num_layers else ""
    kind = f" of a bidirectional {config.recurrent.upper()}" if config.recurrent else ""
    inner = "" if config.recurrent else f", feed-forward {config.inner_size:,}"
    narrow = f", embeddings {config.embedding_size:,}" if config.embedding_size else ""
    plural = "" if config.num_layers == 1 else "s"
    return {
        "encoder": f"{config.num_layers} layer{plural}{kind}{shared}, "
        f"width {config.hidden_size:,}{narrow}, {config.num_heads} heads{inner}, "
        f"{config.max_positions:,} positions",
        "vocabulary": f"{config.vocab_size:,}",
    }


def _decoder(bundle: Bundle, family: Family, config: EncoderConfig) -> dict[str, str]:
    """The decoder of a pair."""
    if not pair.is_pair(bundle.config):
        return {}
    layers = pair.decoder_layers(bundle.config, family, config)
    return {"decoder": f"{layers} layer{'' if layers == 1 else 's'}, with cross-attention"}


def _parts(
    shapes: Shapes, family: Family, config: EncoderConfig, named: Collection[str]
) -> dict[str, str]:
    """How many parameters the tensors hold, and for which heads; `named` are those of the class."""
    sizes = {_bare(name, family): prod(shape) for name, shape in shapes.items()}
    tables = _tables(family, config, {*named, *_own_heads(sizes, family)})
    known = {theirs: ours for table in tables.values() for theirs, ours in table.items()}
    counted = {name: size for name, size in sizes.items() if name in known}
    embeddings = sum(n for name, n in counted.items() if ".embeddings." in known[name])
    lines = {
        "parameters": f"{sum(counted.values()):,} ({embeddings:,} of them in the embeddings)",
        "heads": _heads(sizes, tables, named),
    }
    passed_over = (*family.ignored, *family.tied)
    if other := sorted(n for n in sizes.keys() - known.keys() if not n.endswith(passed_over)):
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        lines["unknown"] = ", ".join(other[:SHOWN]) + more
    return lines


def _with_own(lines: dict[str, str], bundle: Bundle) -> dict[str, str]:
    """The lines with heads that no class has, whose weights lie beside the others."""
    path = bundle.path / OWN
    own = sorted({name.split(".")[1] for name in read_shapes(path)} if path.exists() else ())
    known = lines["heads"].removesuffix("and a pooler").split(", ")
    more = [name for name in own if name not in known]
    if not more:
        return lines
    found = [] if lines["heads"].startswith("none") else [lines["heads"]]
    return {**lines, "heads": ", ".join([*found, *more])}


def _bare(name: str, family: Family) -> str:
    """A tensor's name in the one form in which all files agree."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    return name.removeprefix(family.prefix)


def _own_heads(names: Collection[str], family: Family) -> set[str]:
    """Heads of a family that no class holds: its tensors carry our names."""
    if family.architectures:
        return set()
    return {name.split(".")[1] for name in names if name.startswith("heads.")}


def _tables(
    family: Family, config: EncoderConfig, named: Collection[str]
) -> dict[str, dict[str, str]]:
    """Their tensor names with ours, for the bare encoder (under "") and for each head."""
    layers = family.layers(config)
    held = PRETRAINING & frozenset[str]().union(*family.architectures)
    heads = ["", *sorted({*held, *named})]
    return {
        head: {
            _bare(theirs, family): ours
            for theirs, ours in their_names(family.names(frozenset(head.split())), layers).items()
        }
        for head in heads
    }


def _heads(
    there: Collection[str], tables: Mapping[str, Mapping[str, str]], named: Collection[str]
) -> str:
    """The heads whose tensors are there, those that lack some, and the pooler."""
    found = []
    for head, table in tables.items():
        wanted = [theirs for theirs, ours in table.items() if ours.startswith(f"heads.{head}.")]
        held = [name for name in wanted if name in there]
        if wanted and len(held) == len(wanted):
            found.append(head)
        elif head in named:
            found.append(head if held else f"{head} (no weights)")
    poolers = [t for table in tables.values() for t, ours in table.items() if "pooler." in ours]
    pooler = any(name in there for name in poolers)
    if not found:
        return "none, but a pooler" if pooler else "none"
    return ", ".join([*found, "and a pooler"] if pooler else found)


def _files(paths: list[Path]) -> str:
    return ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in paths)


def _tokenizer(folder: Path, config: EncoderConfig, card: Card) -> str:
    """The folder's tokenizer, or why it cannot be used with the model."""
    try:
        tokenizer = load_tokenizer(folder)
        check_match(tokenizer, config.vocab_size, str(folder), card.tokenizer)
    except UserError as error:
        return f"none that can be used: {error}"
    return tokenizer_in_words(tokenizer)


def _answers(bundle: Bundle) -> dict[str, str]:
    """The labels, and when one of them, or a stretch of a text, is given as the answer."""
    labels, card = labels_of(bundle), bundle.card
    if card.calibration.margin is not None:
        return {"margin": f"{card.calibration.margin:.3f}"}
    named = card.labels is not None or (
        card.task is None and heads_of(bundle) & {"classify", "tag"}
    )
    if not labels or not named:
        return {}
    lines = {"labels": ", ".join(labels)}
    if card.task:
        lines["temperature"] = f"{card.calibration.temperature:.3f}"
        each = card.calibration.thresholds
        lines["threshold"] = f"{card.calibration.threshold:.3f}"
        if each:
            lines["threshold"] = ", ".join(f"{x:.3f}" for x in each)
    return lines


def _vectors(bundle: Bundle) -> dict[str, str]:
    """How a text becomes a vector, where the folder gives vectors of sentences."""
    if not is_sentence_folder(bundle):
        return {}
    try:
        found = said_of(SENTENCES, bundle)
    except UserError as error:
        return {"vectors": f"none that can be made here: {error}"}
    kind = {"mean": "mean of its tokens", "cls": "first token", "max": "maxima of its tokens"}
    length = ", of length 1" if found["normalize"] else ""
    window = f"; windows of {found['max_length']}" if "max_length" in found else ""
    return {"vectors": f"of a text the {kind[found['pooling']]}{length}{window}"}


def _origin(known: Provenance) -> dict[str, str]:
    """Where the model comes from, as far as its card says."""
    lines = {
        "parent": known.parent,
        "data": ", ".join(f"{name} ({hashed[:12]})" for name, hashed in known.data.items()),
        "made with": ", ".join(f"{name} {version}" for name, version in known.versions.items()),
        "seed": None if known.seed is None else str(known.seed),
    }
    return {name: value for name, value in lines.items() if value}
