"""Google's TensorFlow checkpoints of BERT, ALBERT and ELECTRA, read without TensorFlow.

A checkpoint is an index (`NAME.index`, a sorted string table of protocol buffers) beside data files
(`NAME.data-00000-of-00001`). Forms: `tensor_bundle.proto` and `tensor_shape.proto` of TensorFlow.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clozeworks.core.bundle import check_links
from clozeworks.core.errors import UserError
from clozeworks.core.files import existing, explained
from clozeworks.interop.sstable import masked_crc, read_table, varint
from clozeworks.model.families import Family
from clozeworks.model.names import State

DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}
"""TensorFlow's numbers of the number formats weights have."""
SIZES = {1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 9: 8, 10: 1, 14: 2, 17: 2, 19: 2, 22: 4, 23: 8}
"""Bytes a number of each format takes; formats without a fixed size are not here."""
TEXT = 7
"""TensorFlow's number of strings, whose checksum is not of their bytes; no weight is one."""
MOST_DIMENSIONS = 8
CONFIGS = ("bert_config.json", "albert_config.json", "electra_config.json", "config.json")
"""What the config of a TensorFlow checkpoint is called."""
_SKIPPED = re.compile(
    r"(/adam_[mv]|/Adam(_1)?|/AdamWeightDecay\w*|/lamb_[mv]|/.*Momentum)$"
    r"|^(global_step|beta[12]_power|Adam/.*|_CHECKPOINTABLE_OBJECT_GRAPH|save_counter/.*)$"
)
"""What an optimizer left: its moments and counters."""
_GENERAL = (
    (r"/", "."),
    (r"layer_(\d+)\.", r"layer.\1."),
    (r"\.(kernel|gamma|output_weights)$", ".weight"),
    (r"\.(beta|output_bias)$", ".bias"),
    (r"_embeddings$", "_embeddings.weight"),
)
"""From TensorFlow's names to those of Hugging Face, whatever the family."""


class Entry(NamedTuple):
    """Where one tensor lies, and what it is."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_checkpoint(prefix: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by TensorFlow's names, in fp32.

    What an optimizer left is skipped, but every tensor's checksum is verified. Raises UserError
    naming a file that is missing, cut short, altered, or a link that leads out of its folder.
    """
    check_links([Path(f"{prefix}.index")])
    table = read_table(Path(f"{prefix}.index"))
    shards, entries = _entries(prefix, table)
    paths = [Path(f"{prefix}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
    check_links(paths)
    sizes = [existing(path).stat().st_size for path in paths]
    for name, entry in entries.items():
        _check_place(name, entry, paths, sizes)
    return {
        name: tensor
        for name, entry in entries.items()
        if entry.dtype != TEXT and (tensor := _read(name, entry, paths)) is not None
        if not _SKIPPED.search(name)
    }


def read_shapes(prefix: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's weights by TensorFlow's names, from its index alone."""
    _, entries = _entries(prefix, read_table(Path(f"{prefix}.index")))
    return {
        name: entry.shape
        for name, entry in entries.items()
        if entry.dtype in DTYPES and not _SKIPPED.search(name)
    }


def _entries(prefix: Path, table: dict[bytes, bytes]) -> tuple[int, dict[str, Entry]]:
    """How many data files an index speaks of, and where in them each tensor lies."""
    try:
        shards = _num_shards(table.pop(b"", b""))
        return shards, {key.decode(): _entry(value) for key, value in table.items()}
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{prefix}.index is damaged ({error}); copy it again") from error


def _check_place(name: str, entry: Entry, paths: list[Path], sizes: list[int]) -> None:
    if entry.shard >= len(paths):
        raise UserError(f"{name} lies in data file {entry.shard} of {len(paths)}; copy all of them")
    path, end = paths[entry.shard], entry.offset + entry.size
    if end > sizes[entry.shard]:
        raise UserError(
            f"{path} is cut short: {name} ends at byte {end:,} of {sizes[entry.shard]:,}; "
            "copy it again"
        )
    item = SIZES.get(entry.dtype)
    if item is not None and entry.size != item * prod(entry.shape):
        raise UserError(
            f"{path}: {name} takes {entry.size:,} bytes, its shape {list(entry.shape)} does not"
        )


def _read(name: str, entry: Entry, paths: list[Path]) -> Tensor | None:
    """A tensor in fp32, or None where it holds no weights; its checksum is verified."""
    path = paths[entry.shard]
    with explained(path, "read"), path.open("rb") as stream:
        stream.seek(entry.offset)
        data = bytearray(stream.read(entry.size))
    if masked_crc(bytes(data)) != entry.crc:
        raise UserError(f"{path}: the checksum of {name} is wrong: it is damaged; copy it again")
    if entry.dtype not in DTYPES or not data:
        return None
    whole = torch.frombuffer(data, dtype=DTYPES[entry.dtype]).view(entry.shape)
    return whole.to(torch.float32)


# === Protocol buffers ===


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field's number and value: an integer, or bytes."""
    at = 0
    while at < len(data):
        at, tag = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            at, value = varint(data, at)
            yield number, value
            continue
        if wire == 2:
            at, size = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"field {number} has a form that is not known")
        if at + size > len(data):
            raise ValueError(f"field {number} is cut short")
        piece = data[at : at + size]
        yield number, piece if wire == 2 else int.from_bytes(piece, "little")
        at += size


def _num_shards(data: bytes) -> int:
    """From BundleHeaderProto."""
    fields = dict(_fields(data))
    shards, endian = fields.get(1, 0), fields.get(2, 0)
    if not isinstance(shards, int) or not 1 <= shards <= 100_000 or endian != 0:
        raise ValueError("its header is not one of a checkpoint of this kind")
    return shards


def _entry(data: bytes) -> Entry:
    """From BundleEntryProto."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    for number, value in _fields(data):
        if number == 7:
            raise ValueError("a tensor is stored in slices, which is not supported")
        if number == 2:
            if not isinstance(value, bytes):
                raise ValueError("a shape is not one")
            shape = _shape(value)
        elif number in numbers and isinstance(value, int):
            numbers[number] = value
        else:
            raise ValueError(f"an entry has a field {number} that is not known")
    if max(numbers[4], numbers[5]) >= 1 << 62:
        raise ValueError("a tensor has no possible place")
    return Entry(numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6])


def _shape(data: bytes) -> tuple[int, ...]:
    """From TensorShapeProto."""
    dims = []
    for number, value in _fields(data):
        if number != 2 or not isinstance(value, bytes):
            raise ValueError("a shape is not one")
        size = dict(_fields(value)).get(1, 0)
        if not isinstance(size, int) or size >= 1 << 40:
            raise ValueError("a dimension is impossible")
        dims.append(size)
    if len(dims) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(dims)} dimensions")
    return tuple(dims)


# === Names ===


def to_huggingface(tensors: Mapping[str, Tensor], family: Family) -> State:
    """Weights under Hugging Face's names: products transposed, everything else as it is.

    `family.tensorflow` gives the rules that are its own, tried first. A tensor of a discriminator's
    generator, or the other way round, is left to whoever asks for it.
    """
    return {
        renamed(name, family): tensor.t().contiguous() if name.endswith("/kernel") else tensor
        for name, tensor in tensors.items()
    }


def renamed(name: str, family: Family) -> str:
    """Hugging Face's name of one of TensorFlow's tensors."""
    for pattern, replacement in (*family.tensorflow, *_GENERAL):
        name = re.sub(pattern, replacement, name)
    return name


def find_checkpoint(folder: Path) -> Path | None:
    """The prefix of the checkpoint in a folder, or None; raises UserError if there are several."""
    if folder.name.endswith(".index"):
        return folder.with_suffix("")
    if Path(f"{folder}.index").exists():
        return folder
    if not folder.is_dir():
        return None
    found = sorted(folder.glob("*.index"))
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise UserError(f"{folder} holds several checkpoints; name one, without .index: {names}")
    return found[0].with_suffix("") if found else None


def config_beside(prefix: Path) -> Path:
    """The config in a checkpoint's folder; raises UserError if there is none of its own."""
    found = [prefix.parent / name for name in CONFIGS if (prefix.parent / name).exists()]
    found += sorted(prefix.parent.glob("*config*.json"))
    if not found:
        raise UserError(f"{prefix.parent} holds no config ({', '.join(CONFIGS)}); copy it there")
    check_links(found[:1])
    return found[0]


def family_in(tensors: Collection[str], values: dict[str, Any]) -> str:
    """The family a TensorFlow checkpoint's names are of."""
    if any(name.startswith(("electra/", "generator/")) for name in tensors):
        return "electra"
    shared = any("/group_0/" in name for name in tensors) or "num_hidden_groups" in values
    return "albert" if shared else "bert"


def one_of_two(tensors: State, generator: bool) -> State:
    """Of an ELECTRA checkpoint, one of its two models; of any other, all."""
    if not any(name.startswith("discriminator_predictions/") for name in tensors):
        return tensors
    if not generator:
        return {n: t for n, t in tensors.items() if not n.startswith("generator")}
    other = ("discriminator_predictions/", "electra/encoder/", "electra/embeddings_project/")
    kept = {n: t for n, t in tensors.items() if not n.startswith(other)}
    return {n.replace("generator/", "electra/", 1): t for n, t in kept.items()}
