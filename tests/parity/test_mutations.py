"""A wrong encoder is told from a right one: each mutation must break parity."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hf_distance import CLASSES, LIMIT, distance, opened, their_model

from clozeworks.model import attention, cloze, encoder, heads, lookup
from clozeworks.tasks import mlm, nsp
from tiny import make_task

NAME = "mlm+nsp"
CLEARLY = 10 * LIMIT


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    theirs = their_model(CLASSES[NAME])
    theirs.save_pretrained(folder)
    return opened(folder, make_task(NAME)), theirs


MUTATIONS = {}


def mutation(change):
    """Register a change, made through pytest's monkeypatch."""
    MUTATIONS[change.__name__] = change
    return change


def embedding_of(change):
    """Embeddings that read a changed batch."""
    before = encoder.Embeddings.forward
    return lambda self, batch: before(self, change(batch))


def split_by(change):
    """Queries, keys and values [3, R · h, C, d] changed before they are used."""
    before = attention._by_head
    return lambda x, layout, heads: change(before(x, layout, heads)).contiguous()


def cloze_with(change):
    """The masked-token loss with changed arguments."""
    before = cloze.cloze_loss
    return lambda x, weight, bias, labels, space: before(*change(x, weight, bias), labels, space)


@mutation
def gelu_by_tanh(patch):
    rough = lambda x, activation: F.gelu(x, approximate="tanh")
    patch.setattr(encoder, "activate", rough)
    patch.setattr(heads, "activate", rough)


@mutation
def norm_before_the_sublayer(patch):
    def after(self, x, context):
        x = x + self.out(self.attention_norm(context))
        return x + self.down(encoder.activate(self.up(self.output_norm(x)), self.activation))

    patch.setattr(encoder.Layer, "_after", after)


@mutation
def scores_not_scaled(patch):
    patch.setattr(attention, "math", SimpleNamespace(sqrt=lambda width: 1.0))


@mutation
def scores_scaled_by_the_model_width(patch):
    patch.setattr(attention, "math", SimpleNamespace(sqrt=lambda width: 32**0.5))


@mutation
def positions_from_one(patch):
    shifted = embedding_of(lambda batch: replace(batch, positions=batch.positions + 1))
    patch.setattr(encoder.Embeddings, "forward", shifted)


@mutation
def positions_run_on(patch):
    running = embedding_of(lambda b: replace(b, positions=torch.arange(b.num_tokens) % 160))
    patch.setattr(encoder.Embeddings, "forward", running)


@mutation
def segments_dropped(patch):
    flat = embedding_of(lambda batch: replace(batch, segments=torch.zeros_like(batch.segments)))
    patch.setattr(encoder.Embeddings, "forward", flat)


@mutation
def packed_sequences_see_each_other(patch):
    patch.setattr(attention.Layout, "mask", lambda self, dtype, window=None: None)


@mutation
def empty_slots_are_seen(patch):
    def mask(self, dtype, window=None):
        same = self.owner[:, :, None] == self.owner[:, None, :]
        seen = same | (self.owner[:, None, :] < 0)
        return torch.zeros(same.shape, dtype=dtype).masked_fill_(~seen, attention.MASKED)

    patch.setattr(attention.Layout, "mask", mask)


@mutation
def attention_only_looks_back(patch):
    before = attention.Layout.mask

    def mask(self, dtype, window=None):
        capacity = self.capacity
        ahead = torch.ones(capacity, capacity, dtype=torch.bool).triu(1)
        return before(self, dtype).masked_fill(ahead, attention.MASKED)

    patch.setattr(attention.Layout, "mask", mask)


@mutation
def another_epsilon(patch):
    def normalised(norm, x):
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, 1e-12)

    def after(self, x, context):
        x = normalised(self.attention_norm, x + self.out(context))
        inner = encoder.activate(self.up(x), self.activation)
        return normalised(self.output_norm, x + self.down(inner))

    patch.setattr(encoder.Layer, "_after", after)


@mutation
def queries_and_keys_swapped(patch):
    patch.setattr(attention, "_by_head", split_by(lambda qkv: qkv[[1, 0, 2]]))


@mutation
def keys_and_values_swapped(patch):
    patch.setattr(attention, "_by_head", split_by(lambda qkv: qkv[[0, 2, 1]]))


@mutation
def heads_interleaved(patch):
    def by_head(x, layout, heads):
        split = x.view(layout.rows, layout.capacity, 3, -1, heads).permute(2, 0, 4, 1, 3)
        return split.reshape(3, layout.rows * heads, layout.capacity, -1).contiguous()

    patch.setattr(attention, "_by_head", by_head)


@mutation
def no_residual_around_attention(patch):
    def after(self, x, context):
        x = self.attention_norm(self.out(context))
        inner = encoder.activate(self.up(x), self.activation)
        return self.output_norm(x + self.down(inner))

    patch.setattr(encoder.Layer, "_after", after)


@mutation
def no_residual_around_the_feed_forward(patch):
    def after(self, x, context):
        x = self.attention_norm(x + self.out(context))
        return self.output_norm(self.down(encoder.activate(self.up(x), self.activation)))

    patch.setattr(encoder.Layer, "_after", after)


@mutation
def embeddings_not_normalised(patch):
    def forward(self, batch):
        x = self.tokens(batch.input_ids) + self.positions(batch.positions)
        return x + self.segments(batch.segments)

    patch.setattr(encoder.Embeddings, "forward", forward)


@mutation
def pooler_without_tanh(patch):
    patch.setattr(heads.Pooler, "forward", lambda self, x: self.dense(x))


@mutation
def head_without_norm(patch):
    bare = lambda self, x: heads.activate(self.dense(x), self.activation)
    patch.setattr(heads.TokenHead, "forward", bare)


@mutation
def tied_embedding_a_row_off(patch):
    patch.setattr(mlm, "cloze_loss", cloze_with(lambda x, w, b: (x, w.roll(1, 0), b)))


@mutation
def output_embedding_not_tied(patch):
    patch.setattr(mlm, "cloze_loss", cloze_with(lambda x, w, b: (x, w.detach(), b)))


@mutation
def output_bias_dropped(patch):
    patch.setattr(mlm, "cloze_loss", cloze_with(lambda x, w, b: (x, w, b * 0)))


@mutation
def next_sentence_labels_reversed(patch):
    before = nsp.ClassHead.forward
    patch.setattr(nsp.ClassHead, "forward", lambda self, x: before(self, x).flip(1))


@mutation
def the_row_before_is_read(patch):
    before = encoder.Encoder.encode

    def encode(self, x, batch, *, read=None, want=()):
        return before(self, x, batch, read=None if read is None else (read - 1).abs(), want=want)

    patch.setattr(encoder.Encoder, "encode", encode)


@mutation
def backward_of_attention_not_scaled(patch):
    before = attention._Attend.forward

    def forward(ctx, *given):
        out = before(ctx, *given)
        ctx.scale = 1.0
        return out

    patch.setattr(attention._Attend, "forward", staticmethod(forward))


@mutation
def backward_of_the_loss_without_the_label(patch):
    before = cloze._ClozeLoss.forward

    def forward(ctx, x, weight, bias, labels, *how):
        out = before(ctx, x, weight, bias, labels, *how)
        dx, dweight, dbias = ctx.to_save
        dx[: len(labels)] += weight[labels]
        ctx.save_for_backward(dx, dweight, dbias)
        return out

    patch.setattr(cloze._ClozeLoss, "forward", staticmethod(forward))


@mutation
def backward_of_lookup_keeps_one_gradient(patch):
    def backward(ctx, grad):
        (ids,) = ctx.saved_tensors
        whole = torch.zeros(ctx.shape)
        whole[ids] = grad
        return whole, None, None

    patch.setattr(lookup._Lookup, "backward", staticmethod(backward))


def test_the_unchanged_encoder_passes(pair):
    assert distance(*pair, NAME) < LIMIT


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught(name, pair, monkeypatch):
    with monkeypatch.context() as patch:
        MUTATIONS[name](patch)
        found = distance(*pair, NAME)
    assert found > CLEARLY, f"{name} differs by only {found:.1e}"
    assert distance(*pair, NAME) < LIMIT


def test_there_are_mutations_enough():
    assert len(MUTATIONS) >= 10
