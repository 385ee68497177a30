"""Memory does not grow with the number of shapes that were met."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")

WORK = """
import clozeworks
import ctypes
import torch

NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
FIELDS = [(name, ctypes.c_size_t) for name in NAMES.split()]
Said = type("Said", (ctypes.Structure,), {"_fields_": FIELDS})
malloc = ctypes.CDLL(None)
malloc.mallinfo2.restype = Said

def used():
    said = malloc.mallinfo2()
    return (said.uordblks + said.hblkhd) / 1e6

def work(first, last):
    with torch.inference_mode():
        for rows in range(first, last):
            torch.nn.functional.linear(x[: 32 * rows], weight, bias)

x, weight = torch.randn(32 * 600, 64).bfloat16(), torch.randn(64, 64).bfloat16()
bias = torch.randn(64).bfloat16()
work(1, 200)
before = used()
work(200, 600)
print(used() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine() != "x86_64"
    or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="the heap is counted by glibc, and its kernels are oneDNN's",
)
@pytest.mark.parametrize("capacity", [None, "1024"])
def test_kernels_of_old_shapes_are_let_go(capacity):
    """Four hundred new shapes take the places of old ones, unless somebody wants more to be kept.

    What is in use is counted: how many free bytes lie between, chance decides.
    """
    kept = {} if capacity is None else dict.fromkeys(CACHES, capacity)
    environ = {name: value for name, value in os.environ.items() if name not in CACHES} | kept
    command = [sys.executable, "-c", WORK]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert (float(ran.stdout) < 5) == (capacity is None)
