"""What the tests of preparation share."""

import pytest
from test_prepare import make_tokenizer

from clozeworks.core.log import silence


@pytest.fixture(scope="module")
def tokenizer():
    """Every letter apart; a file may have one of its own."""
    return make_tokenizer()


@pytest.fixture
def quiet():
    """Nothing is said."""
    with silence():
        yield
