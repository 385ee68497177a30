"""Laws of counting characters."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.core.bundle import Fold
from clozeworks.core.errors import UserError
from clozeworks.text.alphabet import add_characters, no_characters, normalised_counts
from clozeworks.text.tokenizer import SPECIAL, Tokenizer

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@pytest.mark.parametrize("lowercase", [True, False])
@given(texts=texts)
@settings(deadline=None)
def test_counts_by_character_equal_counts_of_the_normalised_text(lowercase, texts):
    tokenizer = Tokenizer.of(SPECIAL, lowercase=lowercase, fold=Fold(width=True))
    counts = no_characters()
    for some in (texts[::2], texts[1::2]):
        add_characters(counts, some)
    whole = Counter("".join(tokenizer.normalise(text) for text in texts))
    expected = {c: n for c, n in whole.items() if not c.isspace()}
    assert normalised_counts(counts, tokenizer.normalise) == expected


def test_surrogates_are_refused():
    with pytest.raises(UserError, match=r"lone surrogate \(U\+D83D\)"):
        add_characters(no_characters(), ["fine", "\ud83d"])
