"""The C library's heap: what one step frees is kept for the next, where that library is glibc."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt(3)."""
ALL = 2**31 - 1
"""As many freed bytes as can be asked for stay in the process."""
USUAL, LARGE = 64 << 20, 32 << 20
"""What glibc comes to by itself where large blocks come and go: bytes that stay, and those from
which on a block is the system's own. Told one thing it no longer adapts the other."""
TOLD = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which somebody else has decided it."""

_depth = 0


@contextmanager
def kept_heap() -> Iterator[None]:
    """Inside, freed memory is not given back to the system; at the outermost end it is.

    A step of training frees some hundred megabytes at its end. Given back, every page of them is
    faulted in again at the next: 6 % of a step of BERT-mini or -small.
    """
    global _depth
    libc = _glibc()
    if libc is None:
        yield
        return
    if not _depth:
        libc.mallopt(MMAP_THRESHOLD, LARGE)
        libc.mallopt(TRIM_THRESHOLD, ALL)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            libc.mallopt(TRIM_THRESHOLD, USUAL)
            libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library, if it is glibc and was told nothing else from outside."""
    told = any(name in os.environ for name in TOLD)
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" and not told else None
