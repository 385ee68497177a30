"""Laws of writing: beams find what trying everything finds, one beam is greedy, company changes
nothing."""

from itertools import product
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks.model.config import EncoderConfig
from clozeworks.model.decoder import Decoder, Tokens
from clozeworks.model.heads import encoder_of
from clozeworks.model.write import Search, write

FIRST, LAST = 0, 1
TINY = EncoderConfig(
    vocab_size=6, hidden_size=16, num_layers=2, num_heads=2, inner_size=24, max_positions=16
)
NONE = torch.zeros(0, dtype=torch.int64)
SOURCES = [4, 9, 1, 6]


def make_decoder(seed, scale=0.4):
    """A decoder whose next token depends on where it is, on what was written, and on the source."""
    torch.manual_seed(seed)
    decoder = Decoder(encoder_of(TINY), 2)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.normal_(0.0, 1.0 if "positions" in name or "cross" in name else scale)
            if "norm.weight" in name:
                parameter.add_(1.0)
            if name.endswith("bias"):
                parameter.mul_(0.1)
    return decoder.eval()


def make_sources(lengths=SOURCES):
    memory = torch.randn(sum(lengths), TINY.hidden_size)
    return memory, torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def search(**given):
    usual = {"first": FIRST, "last": LAST, "barred": torch.tensor([FIRST]), "longest": 4}
    return Search(**{**usual, **given})


def chances(decoder, memory, text):
    """The log-probabilities of the next token after the first id and each token of a text."""
    ids = torch.tensor([FIRST, *text])
    tokens = Tokens.of(ids, torch.tensor([0, len(ids)]))
    x = decoder(tokens, memory, torch.tensor([0, len(memory)]))[: len(ids)]
    return torch.log_softmax(decoder.logits(x), -1)


def every(decoder, memory, wanted, pieces=range(2, 6)):
    """The score of every text that may be written."""
    texts = torch.tensor(list(product(pieces, repeat=wanted.longest)))
    ids = torch.cat([torch.full((len(texts), 1), FIRST), texts], 1)
    ends = torch.arange(len(texts) + 1)
    tokens = Tokens.of(ids.flatten(), ends * ids.shape[1])
    x = decoder(tokens, memory.repeat(len(texts), 1), ends * len(memory))[: ids.numel()]
    found = torch.log_softmax(decoder.logits(x), -1).view(*ids.shape, -1).double()
    scores = {}
    for text, row in zip(texts.tolist(), found, strict=True):
        own = [float(row[i, t]) for i, t in enumerate(text)]
        scores[tuple(text)] = sum(own) / wanted.divisor(len(text))
        for length in range(wanted.least, len(text)):
            total = sum(own[:length]) + float(row[length, LAST])
            scores[tuple(text[:length])] = total / wanted.divisor(length + 1)
    return scores


def texts_of(found):
    return [t[:n] for t, n in zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("least", [0, 2])
def test_with_enough_beams_the_best_of_all_texts_is_found(penalty, least):
    for seed in range(6):
        decoder = make_decoder(seed)
        memory, offsets = make_sources()
        wanted = search(beams=300, early=False, penalty=penalty, least=least)
        with torch.inference_mode():
            found = write(decoder, memory, offsets, wanted)
            for i, text in enumerate(texts_of(found)):
                own = memory[offsets[i] : offsets[i + 1]]
                scores = every(decoder, own, wanted)
                best = max(scores, key=scores.get)
                assert tuple(text) == best
                assert float(found.scores[i]) == pytest.approx(scores[best], abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0, 1, 2]), st.integers(0, 3))
def test_one_beam_takes_the_likeliest_token_each_time(seed, no_repeat, least):
    decoder = make_decoder(seed)
    memory, offsets = make_sources()
    wanted = search(beams=1, longest=8, no_repeat=no_repeat, least=least)
    with torch.inference_mode():
        found = texts_of(write(decoder, memory, offsets, wanted))
        for i, text in enumerate(found):
            own, greedy = memory[offsets[i] : offsets[i + 1]], []
            while len(greedy) < 8:
                last = chances(decoder, own, greedy)[-1]
                last[FIRST] = -torch.inf
                if len(greedy) < least:
                    last[LAST] = -torch.inf
                for token in range(2, 6):
                    runs = [*greedy, token]
                    ends = range(no_repeat, len(runs) + 1)
                    grams = [tuple(runs[e - no_repeat : e]) for e in ends]
                    if no_repeat and grams and grams.count(grams[-1]) > 1:
                        last[token] = -torch.inf
                token = int(last.argmax())
                if token == LAST:
                    break
                greedy.append(token)
            assert text == greedy


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 1000),
    st.sampled_from([1, 2, 5]),
    st.booleans(),
    st.sampled_from([0, 2]),
    st.sampled_from([0.0, 0.8, 1.0]),
)
def test_texts_in_company_are_texts_alone(seed, beams, early, no_repeat, worth):
    """However soon finished ones are taken out."""
    decoder = make_decoder(seed)
    memory, offsets = make_sources([3, 12, 7, 1, 9, 5])
    wanted = search(beams=beams, early=early, longest=12, no_repeat=no_repeat, penalty=4.0)
    with torch.inference_mode(), mock.patch("clozeworks.model.write.WORTH", worth):
        together = write(decoder, memory, offsets, wanted)
        for i, text in enumerate(texts_of(together)):
            own = memory[offsets[i] : offsets[i + 1]]
            alone = write(decoder, own, torch.tensor([0, len(own)]), wanted)
            assert texts_of(alone) == [text]
            assert float(alone.scores[0]) == pytest.approx(float(together.scores[i]), abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([1, 3]), st.integers(1, 3), st.integers(0, 4))
def test_bounds_and_bars_are_kept(seed, beams, no_repeat, least):
    decoder = make_decoder(seed)
    memory, offsets = make_sources()
    barred = torch.tensor([FIRST, 3])
    # with single tokens never twice, there are but three to write
    least = min(least, 3) if no_repeat == 1 else least
    wanted = search(beams=beams, longest=7, least=least, no_repeat=no_repeat, barred=barred)
    with torch.inference_mode():
        found = write(decoder, memory, offsets, wanted)
    for text in texts_of(found):
        assert least <= len(text) <= 7 and not {FIRST, LAST, 3} & set(text)
        grams = [tuple(text[i : i + no_repeat]) for i in range(len(text) - no_repeat + 1)]
        assert len(grams) == len(set(grams))


def test_the_same_twice():
    decoder = make_decoder(5)
    memory, offsets = make_sources()
    with torch.inference_mode():
        one, other = (write(decoder, memory, offsets, search(beams=3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
