"""Hugging Face says little while tests run."""

import pytest
import transformers
from transformers.utils import logging


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers():
    assert int(transformers.__version__.split(".")[0]) >= 5
    logging.set_verbosity_error()
    logging.disable_progress_bar()
