"""Sorted string tables, as TensorFlow writes the index of a checkpoint: keys and values, checked.

The form is LevelDB's (block format and masked crc32c as in its `table_format` document), with
snappy-compressed blocks. A damaged file ends in a UserError: nothing is allocated by a size that
was not checked first.
"""

from collections.abc import Iterator
from pathlib import Path

from clozeworks.core.errors import UserError
from clozeworks.core.files import existing, explained

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5
"""Bytes after each block: how it is compressed, and a masked crc32c."""
LARGEST_FILE = 1 << 28
LARGEST_BLOCK = 1 << 26
"""Unpacked bytes of one block; those met in checkpoints are a few thousand."""


def read_table(path: Path) -> dict[bytes, bytes]:
    """Every key of the table with its value.

    Raises UserError if the file is cut short, altered, or larger than any index there is.
    """
    with explained(existing(path), "read"):
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} is too large for an index of a checkpoint")
        data = path.read_bytes()
    try:
        return _table(data)
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it again") from error


def _table(data: bytes) -> dict[bytes, bytes]:
    footer = data[-FOOTER:]
    if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError("its last bytes are not those of an index")
    at, meta = _handle(footer, 0)
    at, index = _handle(footer, at)
    if any(footer[at:-8]):
        raise ValueError("its footer holds what no writer puts there")
    parts = [meta, index]
    list(_entries(_block(data, *meta)))
    found: dict[bytes, bytes] = {}
    last = None
    for _, handle in _entries(_block(data, *index)):
        end, where = _handle(handle, 0)
        if end != len(handle):
            raise ValueError("a block has no clear place")
        parts.append(where)
        for key, value in _entries(_block(data, *where)):
            if last is not None and key <= last:
                raise ValueError("keys are out of order")
            found[key] = value
            last = key
    _check_tiled(sorted(parts), len(data) - FOOTER)
    return found


def _check_tiled(parts: list[tuple[int, int]], size: int) -> None:
    """Blocks must fill the file, so that no byte of it goes unchecked."""
    at = 0
    for offset, length in parts:
        if offset != at:
            raise ValueError("its blocks overlap, or leave gaps")
        at = offset + length + TRAILER
    if at != size:
        raise ValueError("its blocks do not fill the file")


def _block(data: bytes, offset: int, size: int) -> bytes:
    """The contents of one block, checked and unpacked."""
    end = offset + size
    if end + TRAILER > len(data) - FOOTER:
        raise ValueError("a block lies outside the file")
    body, kind = data[offset:end], data[end]
    if int.from_bytes(data[end + 1 : end + TRAILER], "little") != masked_crc(
        data[offset : end + 1]
    ):
        raise ValueError(f"the checksum of the block at byte {offset} is wrong")
    if kind == 0:
        return body
    if kind == 1:
        return _unsnapped(body)
    raise ValueError(f"compression {kind} is not known")


def _unsnapped(body: bytes) -> bytes:
    try:
        import cramjam
    except ImportError as error:
        raise _extra("snappy-compressed blocks need cramjam") from error
    _, size = varint(body, 0)
    if size > LARGEST_BLOCK:
        raise ValueError(f"a block would unpack to {size:,} bytes")
    try:
        unpacked = bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise ValueError(f"a block cannot be unpacked: {error}") from error
    if len(unpacked) != size:
        raise ValueError("a block unpacks to another size than it says")
    return unpacked


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; each key repeats a beginning of the one before it."""
    if len(block) < 4:
        raise ValueError("a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block is too short for its restarts")
    at, key = 0, b""
    while at < end:
        at, shared = varint(block, at)
        at, fresh = varint(block, at)
        at, size = varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise ValueError("an entry lies outside its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + size]
        at += size


def _handle(data: bytes, at: int) -> tuple[int, tuple[int, int]]:
    """A block's offset and size, and where they end."""
    at, offset = varint(data, at)
    at, size = varint(data, at)
    return at, (offset, size)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, lowest first, and where it ends; raises ValueError."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return at, value
    raise ValueError("a number has no end")


def masked_crc(data: bytes) -> int:
    """crc32c as LevelDB stores it: turned by 15 bits and shifted, so that a crc of crcs is safe."""
    try:
        import google_crc32c
    except ImportError as error:
        raise _extra("checkpoints are checked with google-crc32c") from error
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _extra(reason: str) -> UserError:
    return UserError(f"{reason}: pip install 'clozeworks[tf]'")
