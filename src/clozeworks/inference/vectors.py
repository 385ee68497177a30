"""Vectors of whole sequences from a live model: the mean of their tokens', and the first one's."""

from collections.abc import Sequence as Items
from typing import NamedTuple

import numpy as np
import torch

from clozeworks.core.records import Sequence
from clozeworks.data.batches import Group, pack
from clozeworks.data.order import cut
from clozeworks.inference.engine import BATCH_TOKENS
from clozeworks.metrics.classify import Floats
from clozeworks.model.heads import Model, means


class Vectors(NamedTuple):
    """One row a sequence, [N, H] float64 each."""

    mean: Floats
    first: Floats


def vectors(model: Model, sequences: Items[Sequence]) -> Vectors:
    """What the encoder makes of each sequence, in order; the model is left as it was found."""
    lengths = np.array([len(s) for s in sequences], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    width = model.config.hidden_size
    found = Vectors(np.zeros((len(lengths), width)), np.zeros((len(lengths), width)))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for indices in cut(order, lengths, BATCH_TOKENS, "tokens"):
            batch = pack([Group(int(i), [sequences[i]]) for i in indices]).to(model.device)
            x = model.encoder.encode(model.encoder.embed(batch), batch).x
            found.mean[indices] = means(x, batch.offsets).double().cpu().numpy()
            found.first[indices] = x[batch.firsts].double().cpu().numpy()
    model.train(was_training)
    return found
