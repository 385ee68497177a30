"""Filling in [MASK]s, and telling how likely a text is by hiding each of its tokens in turn."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import replace
from math import exp
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clozeworks.core.errors import UserError
from clozeworks.core.records import Bools, Ints, Prediction, Record, Sequence, Vocabulary
from clozeworks.data.batches import Batch, Group, pack
from clozeworks.model.heads import Model, TokenHead
from clozeworks.tasks.base import Output, Part
from clozeworks.text.tokenizer import Tokenizer
from clozeworks.text.units import token_windows

Scoring = Literal["token", "within_word"]
COPY_TOKENS = 4096
"""Tokens of the copies of texts, each with another token hidden, that are read at once."""
ROWS_AT_ONCE = 128
"""Rows of logits over the vocabulary held in fp32 at a time."""
MOST = 700.0
"""Above this, exp is no number any more."""


class Filling(Prediction):
    """One token that could stand at a [MASK]."""

    token: str
    """The piece; `##` before it continues a word."""
    probability: float
    """Its probability among all pieces, whatever the candidates are."""


class Scored(Record):
    """A token of a text, and how likely it is given all others."""

    token: str
    """The piece."""
    start: int
    """Its first character."""
    end: int
    """One past its last."""
    log_probability: float | None
    """The natural logarithm; None for what the vocabulary has no piece for."""


class MlmPrediction(Prediction):
    """What fills the [MASK]s of a text; or, of a text without one, how likely it is."""

    fillings: list[list[Filling]]
    """For each [MASK], in order, the likeliest fillings."""
    text: str | None = None
    """The text with the likeliest filling at each [MASK]; None where it has none."""
    log_likelihood: float | None = None
    """Of a text without [MASK]: the sum of its tokens' log-probabilities, each hidden in turn."""
    perplexity: float | None = None
    """exp(-log_likelihood / tokens), tokens without a piece left out; None where there is none."""
    tokens: list[Scored] = []
    """Of a text without [MASK]: its tokens, in order."""


def windows_of(
    texts: Items[str],
    candidates: Items[list[str] | None],
    tokenizer: Tokenizer,
    positions: int | None,
) -> list[list[Sequence]]:
    """The windows of each text that are to be read, and in each the rows that are asked about.

    Those are all [MASK]s of a text, or all its ordinary and unknown tokens where it has none.
    """
    vocabulary = tokenizer.vocabulary
    silent = np.array(sorted(vocabulary.special - {vocabulary.unknown}), dtype=np.int64)
    known = {piece: i for i, piece in enumerate(tokenizer.pieces)} if any(candidates) else {}
    found = []
    for text, whole, words in zip(texts, tokenizer.encode_batch(texts), candidates, strict=True):
        windows = token_windows(text, whole, tokenizer, positions)
        holes = bool((whole.ids == vocabulary.mask).any())
        allowed = _ids_of(words, tokenizer, known) if holes and words else None
        asked = [
            _asking(
                window,
                window.ids == vocabulary.mask if holes else ~np.isin(window.ids, silent),
                allowed,
            )
            for window in windows
        ]
        found.append([w for w in asked if w.rows is not None and len(w.rows)] or asked[:1])
    return found


def _asking(window: Sequence, wanted: Bools, allowed: Ints | None) -> Sequence:
    """The window with those of its rows that are wanted, [n] bool by token."""
    assert window.rows is not None and window.units is not None
    kept = wanted[window.rows]
    rows, units = window.rows[kept], window.units[kept]
    return replace(window, rows=rows, units=units, allowed=allowed)


def _ids_of(words: list[str], tokenizer: Tokenizer, known: Mapping[str, int]) -> Ints:
    """The pieces that words are, of those known; raises UserError for one that is not just one."""
    found: dict[int, None] = {}
    for word in words:
        ids = [known[word]] if word in known else tokenizer.tokenize([word])[0].tolist()
        if ids == [tokenizer.vocabulary.unknown] or not ids:
            raise UserError(f"candidate {word!r} has no piece in the vocabulary; leave it out")
        if len(ids) > 1:
            shown = " ".join(tokenizer.pieces[i] for i in ids)
            raise UserError(
                f"candidate {word!r} is {len(ids)} pieces ({shown}), and a [MASK] stands for one; "
                f"write {len(ids)} of them, or choose another word"
            )
        found[ids[0]] = None
    return np.array(list(found), dtype=np.int64)


def asked_in(batch: Batch, mask: int) -> list[tuple[Ints, Ints]]:
    """Of each sequence the packed rows that are [MASK]s to fill, and those of tokens to score.

    A Sequence that names no rows asks about all its [MASK]s.
    """
    found = []
    ids = batch.input_ids.cpu().numpy()
    for first, sequence in zip(batch.offsets[:-1].tolist(), batch.sequences, strict=True):
        own = ids[first : first + len(sequence)]
        rows = np.flatnonzero(own == mask) if sequence.rows is None else sequence.rows
        holes = own[rows] == mask
        found.append((rows[holes] + first, rows[~holes] + first))
    return found


def answers(model: Model, batch: Batch, vocabulary: Vocabulary, how: tuple[int, Scoring]) -> Output:
    """What stands at each [MASK], and how likely each other token that is asked about is.

    `how`: fillings to name where no candidates are given, and how texts are scored. `tokens` [L]
    int64 and `chances` [L], as many for each [MASK] as it has fillings; `logs` [S], NaN for tokens
    that the vocabulary has no piece for.
    """
    top, scoring = how
    asked = asked_in(batch, vocabulary.mask)
    holes = [
        (int(row), s.allowed) for s, (r, _) in zip(batch.sequences, asked, strict=True) for row in r
    ]
    tokens, chances = _filled(model, batch, holes, (top, vocabulary.size))
    return {
        "tokens": tokens,
        "chances": chances,
        "logs": _scored(model, batch, asked, vocabulary, scoring),
    }


def _filled(
    model: Model, batch: Batch, holes: list[tuple[int, Ints | None]], most: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best fillings of each hole; `most` are named, and of so many pieces: a model may have
    rows that no piece is known for."""
    top, pieces = most
    device = batch.input_ids.device
    if not holes:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    rows = torch.tensor([row for row, _ in holes], device=device)
    encoder = model.encoder
    x = encoder.encode(encoder.embed(batch), batch, read=rows).x
    tokens, chances = [], []
    logs = (row for some in x.split(ROWS_AT_ONCE) for row in _log_chances(model, some))
    for (_, allowed), log in zip(holes, logs, strict=True):
        if allowed is None:
            best = log[:pieces].topk(min(top, pieces))
            tokens.append(best.indices)
            chances.append(best.values.exp())
        else:
            ids = torch.from_numpy(allowed).to(device)
            ranked = log[ids].sort(descending=True, stable=True)
            tokens.append(ids[ranked.indices])
            chances.append(ranked.values.exp())
    return torch.cat(tokens), torch.cat(chances)


def _log_chances(model: Model, x: Tensor) -> Tensor:
    """The logarithm of each piece's probability at each row: [M, H] → [M, V] fp32."""
    head = model.heads["mlm"]
    assert isinstance(head, TokenHead)
    weight = model.encoder.embeddings.tokens.weight
    return torch.log_softmax(F.linear(head(x), weight, head.bias).float(), -1)


def _scored(
    model: Model,
    batch: Batch,
    asked: list[tuple[Ints, Ints]],
    vocabulary: Vocabulary,
    scoring: Scoring,
) -> Tensor:
    """How likely each token to score is, [S] fp32, in copies of bounded size."""
    found = []
    encoder, device = model.encoder, batch.input_ids.device
    for copies, places, gold in _copies(batch, asked, vocabulary, scoring):
        hidden = pack([Group(i, [copy]) for i, copy in enumerate(copies)]).to(device)
        rows = hidden.firsts + torch.tensor(places, device=device)
        x = encoder.encode(encoder.embed(hidden), hidden, read=rows).x
        labels = torch.tensor(gold, device=device)
        for some, ids in zip(x.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE), strict=True):
            logs = _log_chances(model, some).gather(1, ids[:, None])[:, 0]
            found.append(logs.masked_fill(ids == vocabulary.unknown, torch.nan))
    return torch.cat(found) if found else torch.zeros(0)


def _copies(
    batch: Batch, asked: list[tuple[Ints, Ints]], vocabulary: Vocabulary, scoring: Scoring
) -> Iterator[tuple[list[Sequence], list[int], list[int]]]:
    """Copies of the sequences with a token hidden in each, its place and its id; some at a time."""
    copies: list[Sequence] = []
    places: list[int] = []
    gold: list[int] = []
    size = 0
    firsts = batch.offsets[:-1].tolist()
    for first, sequence, (_, rows) in zip(firsts, batch.sequences, asked, strict=True):
        for place in (rows - first).tolist():
            if copies and size + len(sequence) > COPY_TOKENS:
                yield copies, places, gold
                copies, places, gold, size = [], [], [], 0
            ids = sequence.ids.copy()
            ids[place : _hidden_end(sequence, place, scoring)] = vocabulary.mask
            copies.append(Sequence(ids, sequence.segments))
            places.append(place)
            gold.append(int(sequence.ids[place]))
            size += len(sequence)
    if copies:
        yield copies, places, gold


def _hidden_end(sequence: Sequence, place: int, scoring: Scoring) -> int:
    """One past the last token hidden with the one at `place`: itself, or the rest of its word."""
    if scoring == "token" or sequence.words is None:
        return place + 1
    later = np.flatnonzero(sequence.words[place + 1 :])
    return place + 1 + (int(later[0]) if len(later) else len(sequence) - place - 1)


def parts_of(output: Output, batch: Batch, vocabulary: Vocabulary, top: int) -> list[Part]:
    """Of each sequence its `holes` (start, end, fillings) and `scored` (token, start, end, log)."""
    tokens, chances = iter(output["tokens"].tolist()), iter(output["chances"].tolist())
    logs = iter(output["logs"].tolist())
    pieces, parts = vocabulary.pieces, list[Part]()
    asked = asked_in(batch, vocabulary.mask)
    ids = batch.input_ids.tolist()
    for sequence, (holes, others) in zip(batch.sequences, asked, strict=True):
        allowed = sequence.allowed
        count = min(top, len(pieces)) if allowed is None else len(allowed)
        fillings = [
            [Filling(token=pieces[next(tokens)], probability=next(chances)) for _ in range(count)]
            for _ in holes
        ]
        units = np.zeros((len(holes), 2)) if sequence.units is None else sequence.units
        places = [(int(start), int(end)) for start, end in units.tolist()]
        scored = []
        if len(others):
            for (start, end), row in zip(places, others.tolist(), strict=True):
                scored.append((pieces[ids[row]], start, end, next(logs)))
        parts.append({"holes": list(zip(places, fillings, strict=not scored)), "scored": scored})
    return parts


def likelihood_of(tokens: list[Scored]) -> tuple[float | None, float | None]:
    """The log-likelihood of a text and its perplexity; None where no token has a piece."""
    logs = [t.log_probability for t in tokens if t.log_probability is not None]
    if not logs:
        return None, None
    total = sum(logs)
    return total, exp(min(MOST, -total / len(logs)))
