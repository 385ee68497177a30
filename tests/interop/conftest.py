"""Hugging Face says little while tests run."""

import pytest
from transformers.utils import logging


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
