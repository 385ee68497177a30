"""Writes a TensorFlow checkpoint in as many data files as one likes, for tests of the reader."""

import math

import torch

from clozeworks.interop.sstable import MAGIC, masked_crc

FLOAT = 1


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """An integer, or bytes, of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries):
    """A block without shared beginnings, and its trailer: not compressed, checked."""
    body = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries
    )
    body += (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    return body + b"\0" + masked_crc(body + b"\0").to_bytes(4, "little")


def table(entries):
    """A sorted string table of one block."""
    whole = block(sorted(entries.items()))
    meta, at = block([]), len(whole)
    handle = varint(0) + varint(at - 5)
    index = block([(b"\xff", handle)])
    ends = varint(at) + varint(len(meta) - 5) + varint(at + len(meta)) + varint(len(index) - 5)
    return whole + meta + index + ends.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def write_checkpoint(prefix, tensors, shards=1):
    """The tensors in fp32, one data file after the other in turn."""
    data = [bytearray() for _ in range(shards)]
    entries = {b"": field(1, shards)}
    for number, (name, tensor) in enumerate(tensors.items()):
        shard = number % shards
        content = tensor.to(torch.float32).contiguous().numpy().tobytes()
        assert len(content) == 4 * math.prod(tensor.shape)
        shape = b"".join(field(2, field(1, size)) for size in tensor.shape)
        entries[name.encode()] = (
            field(1, FLOAT)
            + field(2, shape)
            + field(3, shard)
            + field(4, len(data[shard]))
            + field(5, len(content))
            + varint(6 << 3 | 5)
            + masked_crc(content).to_bytes(4, "little")
        )
        data[shard] += content
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))
