"""What each optimizer step sees: a fresh order every epoch, cut by tokens or examples."""

from collections.abc import Sequence as Items
from typing import Literal, Protocol

import numpy as np

from clozeworks.core.errors import UserError
from clozeworks.core.records import Bools, Ints, Sequence, Vocabulary
from clozeworks.data.batches import Group
from clozeworks.data.draw import permutation
from clozeworks.data.pairs import Pairs, Plan, orders, pairs, uses_all, windows

Unit = Literal["tokens", "examples"]


class Corpus(Protocol):
    """What is read of prepared shards."""

    sentences: Ints  # [S + 1] token bounds
    documents: Ints  # [D + 1] sentence bounds

    def take(self, start: int, stop: int) -> Ints:
        """Tokens of a range."""
        ...

    def word_starts(self, start: int, stop: int) -> Bools:
        """Which of them begin a word."""
        ...


class Stream(Protocol):
    """Training data: for each epoch the steps, for each step its groups."""

    def steps(self, epoch: int) -> list[Ints]:
        """The epoch's steps, each the indices of its groups; every index once."""
        ...

    def groups(self, epoch: int, indices: Ints) -> list[Group]:
        """The groups of some indices."""
        ...

    def lengths(self, epoch: int) -> Ints:
        """Tokens of every group of an epoch."""
        ...


def cut(order: Ints, lengths: Ints, size: int, unit: Unit) -> list[Ints]:
    """Cut an order into steps of at most `size` examples or tokens (one group at the least)."""
    if unit == "examples":
        return [order[i : i + size] for i in range(0, len(order), size)]
    ends = np.cumsum(lengths[order])
    steps, begin, spent = [], 0, 0
    while begin < len(order):
        end = max(begin + 1, int(np.searchsorted(ends, spent + size, side="right")))
        steps.append(order[begin:end])
        begin, spent = end, int(ends[end - 1])
    return steps


class ExampleStream:
    """Groups held in memory, in a fresh order every epoch."""

    def __init__(self, groups: Items[Group], size: int, unit: Unit, seed: int) -> None:
        self._groups, self._size, self._unit, self._seed = groups, size, unit, seed
        self._lengths = np.array([sum(map(len, g.sequences)) for g in groups], dtype=np.int64)

    def steps(self, epoch: int) -> list[Ints]:
        order = permutation(len(self._groups), "order", self._seed, epoch)
        return cut(order, self._lengths, self._size, self._unit)

    def groups(self, epoch: int, indices: Ints) -> list[Group]:
        return [self._groups[i] for i in indices]

    def lengths(self, epoch: int) -> Ints:
        return self._lengths


class ShardStream:
    """Pairs or windows cut from prepared shards, planned afresh every epoch."""

    def __init__(
        self,
        corpus: Corpus,
        documents: Ints,
        vocabulary: Vocabulary,
        max_length: int,
        *,
        pairs: Pairs,
        tokens: int,
        seed: int,
        words: bool = False,
    ) -> None:
        """`words`: whether Sequences tell where words begin."""
        if len(documents) == 0:
            raise UserError("there is no document to train on; give more text")
        self._corpus, self._documents, self._vocabulary = corpus, documents, vocabulary
        self._max_length, self._pairs = max_length, pairs
        self._tokens, self._seed, self._words = tokens, seed, words
        self._planned: tuple[int, Plan] | None = None

    def plan(self, epoch: int) -> Plan:
        """What the epoch cuts; the last one asked for is kept."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._make_plan(epoch))
        return self._planned[1]

    def _make_plan(self, epoch: int) -> Plan:
        corpus = self._corpus.sentences, self._corpus.documents, self._documents
        if self._pairs == "none":
            plan = windows(*corpus, self._max_length)
        else:
            cut_pairs = pairs if self._pairs == "next" else orders
            plan = cut_pairs(*corpus, self._max_length, (self._seed, epoch))
        assert uses_all(plan, self._pairs, *corpus), "some text is lost, or read twice"
        return plan

    def steps(self, epoch: int) -> list[Ints]:
        plan = self.plan(epoch)
        lengths = plan.lengths
        if len(lengths) == 0 or (self._pairs != "none" and plan.share is None):
            raise UserError("the text gives no pair of sentences to learn from; give more text")
        order = permutation(len(lengths), "order", self._seed, epoch)
        return cut(order, lengths, self._tokens, "tokens")

    def groups(self, epoch: int, indices: Ints) -> list[Group]:
        plan = self.plan(epoch)
        return [self._group(plan, int(i)) for i in indices]

    def lengths(self, epoch: int) -> Ints:
        return self.plan(epoch).lengths

    def _group(self, plan: Plan, index: int) -> Group:
        cls, sep = [self._vocabulary.cls], [self._vocabulary.sep]
        first = self._corpus.take(*plan.first[index].tolist())
        second = self._corpus.take(*plan.second[index].tolist())
        tail = [second, sep] if len(second) else []
        ids = np.concatenate([cls, first, sep, *tail]).astype(np.int64)
        segments = np.zeros(len(ids), dtype=np.int64)
        segments[len(first) + 2 :] = 1
        words = self._word_starts(plan, index) if self._words else None
        return Group(index, [Sequence(ids, segments, words=words)], int(plan.labels[index]))

    def _word_starts(self, plan: Plan, index: int) -> Bools:
        """Which tokens of an item begin a word, special tokens among them."""
        special = np.ones(1, dtype=np.bool_)
        first = self._corpus.word_starts(*plan.first[index].tolist())
        second = self._corpus.word_starts(*plan.second[index].tolist())
        tail = [second, special] if len(second) else []
        return np.concatenate([special, first, special, *tail])
