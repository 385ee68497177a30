"""The law of the heap: freed memory stays while steps are taken, and is given back after them."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import re
from pathlib import Path
from clozeworks.core.heap import kept_heap

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def step():
    blocks = [bytearray(b"x" * (1 << 20)) for _ in range(300)]
    del blocks

start = resident()
with kept_heap():
    step()
    with kept_heap():
        step()
    inside = resident()
print(inside - start, resident() - start)
"""


pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone"
)


def measured(code, **told):
    """Megabytes more than in the beginning, inside and afterwards."""
    command, env = [sys.executable, "-c", code], {**os.environ, **told}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return map(int, found.stdout.split())


def test_what_a_step_frees_stays_until_the_last_one():
    inside, after = measured(CODE)
    assert inside > 250 and after < 50


def test_where_the_library_is_another_nothing_is_asked_of_it():
    code = "import platform\nplatform.libc_ver = lambda: ('', '')\n" + CODE
    inside, _ = measured(code)
    assert inside < 250


@pytest.mark.parametrize(
    ("variable", "value", "kept"),
    [("MALLOC_TRIM_THRESHOLD_", "1048576", False), ("MALLOC_ARENA_MAX", "2", True)],
)
def test_who_decides_it_by_the_environment_is_obeyed(variable, value, kept):
    inside, _ = measured(CODE, **{variable: value})
    assert (inside > 250) == kept
