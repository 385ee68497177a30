"""Laws of writing a text for a text: what is learned, what it begins as, what others read."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import EncoderDecoderModel

from clozeworks import tasks
from clozeworks.api.describe import describe
from clozeworks.core.bundle import CARD, Card, open_bundle
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.foreign import take_bundle
from clozeworks.interop.huggingface import open_model, write_bundle
from clozeworks.model.decoder import Tokens
from clozeworks.model.families import sized
from clozeworks.model.heads import encoder_of
from clozeworks.text.written import written
from clozeworks.train.loop import held_out_losses
from tiny import (
    CONFIG,
    DRAW,
    TOKENIZER,
    VOCABULARY,
    gap,
    groups_from,
    make_examples,
    make_model,
    make_task,
)

CPU = torch.device("cpu")


def written_to(folder, task, model=None):
    model = model or make_model(task)
    write_bundle(folder, model, TOKENIZER, Card(task="seq2seq", settings=task.settings))
    return model


def padded(sequences):
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    mask = torch.zeros(len(sequences), longest, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = torch.from_numpy(sequence), 1
    return ids, mask


# === Learning ===


def test_the_decoder_reads_what_is_before_and_learns_what_comes_next():
    task = make_task("seq2seq")
    rows = make_examples(task, 7)
    batch = task.collate(groups_from(task, rows), DRAW)
    t = batch.targets
    assert len(batch.firsts) == 7 and t["seq2seq_offsets"][-1] == len(t["seq2seq_labels"])
    for i, (source, target) in enumerate(task.features(rows, TOKENIZER)):
        assert np.array_equal(batch.input_ids[batch.offsets[i] : batch.offsets[i + 1]], source.ids)
        own = slice(*t["seq2seq_offsets"][i : i + 2].tolist())
        assert t["seq2seq_ids"][own].tolist() == target.ids[:-1].tolist()
        assert t["seq2seq_labels"][own].tolist() == target.ids[1:].tolist()
        assert target.ids[0] == VOCABULARY.cls and target.ids[-1] == VOCABULARY.sep


def test_of_a_target_that_is_cut_no_end_is_learned():
    task = tasks.create("seq2seq", {"target_length": 8, "source_length": 8}, VOCABULARY)
    row = task.Example(source="the order is late please " * 3, target="where is my parcel " * 3)
    ((source, target),) = task.features([row], TOKENIZER)
    assert source.truncated == 15 - 6 and target.truncated == 12 - 6
    t = task.collate(groups_from(task, [row]), DRAW).targets
    assert VOCABULARY.sep not in t["seq2seq_labels"] and len(t["seq2seq_labels"]) == 6
    assert len(t["seq2seq_ids"]) == 6 and t["seq2seq_ids"][0] == VOCABULARY.cls


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_smoothed_cross_entropy_of_target_tokens_with_its_gradients(smoothing):
    task = tasks.create("seq2seq", {"smoothing": smoothing}, VOCABULARY)
    model = make_model(task)
    batch = task.collate(groups_from(task, make_examples(task, 9)), DRAW)
    t, decoder = batch.targets, model.heads["seq2seq"]

    def plainly():
        memory = model.encoder.encode(model.encoder.embed(batch), batch).x
        tokens = Tokens.of(t["seq2seq_ids"], t["seq2seq_offsets"])
        x = decoder(tokens, memory, batch.offsets)[: len(t["seq2seq_labels"])]
        labels = t["seq2seq_labels"]
        return F.cross_entropy(
            decoder.logits(x), labels, reduction="sum", label_smoothing=smoothing
        )

    ours, theirs = task.loss(model, batch, DRAW)["seq2seq"], plainly()
    assert gap(ours, theirs) < 1e-5
    parameters = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
    ):
        assert gap(one, other) < 1e-3
    with torch.no_grad():
        assert gap(task.loss(model, batch, DRAW)["seq2seq"], theirs) < 1e-5


def test_it_is_judged_by_its_loss_without_smoothing_and_the_tokens_that_are_right():
    class Rows:
        def __init__(self, groups):
            self.own = groups

        def lengths(self, epoch):
            return np.array([sum(map(len, g.sequences)) for g in self.own])

        def groups(self, epoch, indices):
            return [self.own[i] for i in indices]

    task, plain = make_task("seq2seq"), tasks.create("seq2seq", {"smoothing": 0.0}, VOCABULARY)
    model = make_model(task)
    groups = groups_from(task, make_examples(task, 20))
    judged = held_out_losses(model, task.judged, Rows(groups), 200)
    batch = task.collate(groups, DRAW)
    count = task.counts(batch)["seq2seq"]
    with torch.no_grad():
        assert judged["seq2seq"] == pytest.approx(
            float(plain.loss(model, batch, DRAW)["seq2seq"]) / count, rel=1e-4
        )
    assert judged["seq2seq"] != pytest.approx(
        float(task.loss(model, batch, DRAW)["seq2seq"].detach()) / count, rel=1e-4
    )
    t, decoder = batch.targets, model.heads["seq2seq"]
    memory = model.encoder.encode(model.encoder.embed(batch), batch).x
    x = decoder(Tokens.of(t["seq2seq_ids"], t["seq2seq_offsets"]), memory, batch.offsets)
    right = decoder.logits(x)[: int(count)].argmax(1) == t["seq2seq_labels"]
    assert judged["seq2seq_accuracy"] == pytest.approx(float(right.float().mean()))


# === What it begins as ===


@pytest.mark.parametrize("cross", ["copied", "fresh"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_decoder_begins_as_the_layers_of_its_encoder(tmp_path, cross, shared):
    mlm = tasks.create("mlm", {}, VOCABULARY)
    parent = make_model(mlm)
    write_bundle(tmp_path, parent, TOKENIZER, Card(task="mlm"))
    settings = {"cross": cross, "share_vocabulary": shared, "decoder_layers": 2}
    task = tasks.create("seq2seq", settings, VOCABULARY)
    opened = open_model(open_bundle(tmp_path), task, to_train=True)
    decoder, encoder = opened.model.heads["seq2seq"], parent.encoder
    assert opened.fresh == (["heads.seq2seq"] if cross == "fresh" else [])
    for own, theirs in zip(decoder.layers, (encoder.layers[0], encoder.layers[2]), strict=True):
        for name, parameter in theirs.named_parameters():
            assert torch.equal(dict(own.named_parameters())[name], parameter)
        same = torch.equal(torch.cat([own.cross_q.weight, own.cross_kv.weight]), theirs.qkv.weight)
        assert same == (cross == "copied")
    tokens = opened.model.encoder.embeddings.tokens
    assert (decoder.embeddings.tokens is tokens) == shared
    assert torch.equal(decoder.weight, encoder.embeddings.tokens.weight)
    assert torch.equal(decoder.head.dense.weight, parent.heads["mlm"].dense.weight)
    assert torch.equal(decoder.head.bias, parent.heads["mlm"].bias)
    assert torch.equal(decoder.embeddings.positions.weight, encoder.embeddings.positions.weight)


def test_training_goes_on_from_a_decoder_that_is_there(tmp_path):
    task = make_task("seq2seq:untied")
    model = written_to(tmp_path, task)
    opened = open_model(open_bundle(tmp_path), task, to_train=True)
    assert not opened.fresh
    for one, other in zip(opened.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(
        UserError, match="a decoder of 2 layers, not 3; go on with it: --decoder-la"
    ):
        open_model(open_bundle(tmp_path), make_task("seq2seq"), to_train=True)


# === Writing ===


@pytest.mark.parametrize("unknown", [True, False])
def test_special_tokens_are_never_written(unknown):
    settings = {"write_unknown": unknown, "target_length": 12, "beams": 2, "min_length": 6}
    task = tasks.create("seq2seq", settings, VOCABULARY)
    model = make_model(task)
    with torch.no_grad():  # as likely as can be
        model.heads["seq2seq"].head.bias[list(VOCABULARY.special)] = 50.0
    for found in Engine(model, task, TOKENIZER).predict(make_examples(task, 8)):
        assert ("[UNK]" in found.text) == unknown
        for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"):
            assert name not in found.text


def test_a_model_may_write_by_other_settings_than_it_was_trained_with(tmp_path):
    task = make_task("seq2seq")
    model = written_to(tmp_path, task)
    rows = make_examples(task, 6)
    changed = {"beams": "1", "min_length": 9, "early_stop": "False"}
    engine = Engine.open(tmp_path, CPU, torch.float32, changed)
    own = tasks.create("seq2seq", {**task.settings, "beams": 1, "min_length": 9}, VOCABULARY)
    assert list(engine.predict(rows)) == list(Engine(model, own, TOKENIZER).predict(rows))
    with pytest.raises(UserError, match="may change: unknown key 'beems'; did you mean 'beams'"):
        Engine.open(tmp_path, CPU, torch.float32, {"beems": 1})


def test_rows_of_the_model_without_a_piece_are_never_written():
    task = tasks.create("seq2seq", {"target_length": 12, "beams": 1}, VOCABULARY)
    model = make_model(task, CONFIG.model_copy(update={"vocab_size": VOCABULARY.size + 9}))
    with torch.no_grad():
        model.heads["seq2seq"].head.bias[VOCABULARY.size :] = 50.0
    assert list(Engine(model, task, TOKENIZER).predict(make_examples(task, 4)))


def test_what_is_cut_of_a_source_is_counted():
    task = tasks.create("seq2seq", {"source_length": 8, "target_length": 8}, VOCABULARY)
    engine = Engine(make_model(task), task, TOKENIZER)
    rows = [task.Example(source="the order is late please where"), task.Example(source="the " * 9)]
    assert [found.cut for found in engine.predict(rows)] == [0, 3]
    assert engine.cut_examples == 1 and engine.truncated == 3


# === With transformers ===


@pytest.mark.parametrize("name", ["seq2seq", "seq2seq:untied"])
def test_the_folder_opens_in_transformers_with_the_same_logits_and_texts(tmp_path, name):
    task = make_task(name)
    task.config = task.config.model_copy(update={"beams": 1})
    model = written_to(tmp_path, task)
    theirs, said = EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = theirs.eval()
    rows = make_examples(task, 6)
    features = task.features(rows, TOKENIZER)
    batch = task.collate(groups_from(task, rows), DRAW)
    t, decoder = batch.targets, model.heads["seq2seq"]
    memory = model.encoder.encode(model.encoder.embed(batch), batch).x
    x = decoder(Tokens.of(t["seq2seq_ids"], t["seq2seq_offsets"]), memory, batch.offsets)
    ours = decoder.logits(x)
    ids, mask = padded([s.ids for s, _ in features])
    read, seen = padded([s.ids[:-1] for _, s in features])
    with torch.no_grad():
        out = theirs(ids, mask, decoder_input_ids=read, decoder_attention_mask=seen).logits
        for i, row in enumerate(out):
            own = slice(*t["seq2seq_offsets"][i : i + 2].tolist())
            assert gap(ours[own], row[seen[i] > 0]) < 1e-4
        greedy = theirs.generate(ids, attention_mask=mask)
    texts = [found.text for found in Engine(model, task, TOKENIZER).predict(rows)]
    silent = {VOCABULARY.cls, VOCABULARY.sep, VOCABULARY.pad}
    told = [[VOCABULARY.pieces[i] for i in row if i not in silent] for row in greedy.tolist()]
    assert texts == list(map(written, told))


@pytest.mark.parametrize("tie", [True, False])
def test_a_folder_from_elsewhere_is_read(tmp_path, tie):
    task = make_task("seq2seq:untied")
    model = written_to(tmp_path / "ours", task)
    theirs = EncoderDecoderModel.from_pretrained(tmp_path / "ours")
    if not tie:
        with torch.no_grad():
            theirs.encoder.embeddings.word_embeddings.weight += 0.1
    theirs.save_pretrained(tmp_path / "theirs")
    TOKENIZER.save(tmp_path / "theirs")
    (tmp_path / "theirs" / CARD).unlink(missing_ok=True)
    engine = Engine.open(tmp_path / "theirs", CPU, torch.float32)
    assert engine.task.config.decoder_layers == 2 and not engine.task.config.share_vocabulary
    ours, batch = engine.model, pack([Group(0, [TOKENIZER.encode("the order is late")])])
    with torch.no_grad():
        memory = ours.encoder.encode(ours.encoder.embed(batch), batch).x
        wanted = theirs.eval().encoder(batch.input_ids[None]).last_hidden_state[0]
        assert gap(memory, wanted) < 1e-5
        ids = torch.tensor([VOCABULARY.cls, 20, 30])
        x = ours.heads["seq2seq"](Tokens.of(ids, torch.tensor([0, 3])), memory, batch.offsets)
        out = theirs(batch.input_ids[None], decoder_input_ids=ids[None]).logits[0]
        assert gap(ours.heads["seq2seq"].logits(x)[:3], out) < 1e-4
    if tie:
        assert gap(ours.heads["seq2seq"].weight, model.heads["seq2seq"].weight) == 0


def test_token_vectors_that_grew_apart_are_not_taken_for_shared_ones(tmp_path):
    task = make_task("seq2seq")
    written_to(tmp_path / "ours", task)
    theirs = EncoderDecoderModel.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        theirs.encoder.embeddings.word_embeddings.weight += 0.1
    theirs.save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match=r"not the same as .*remove clozeworks\.json from its fold"):
        Engine.open(tmp_path / "ours", CPU, torch.float32)


def test_training_from_such_a_folder_keeps_vectors_that_are_apart_or_refuses(tmp_path):
    model = make_model(make_task("seq2seq:untied"))
    written_to(tmp_path, make_task("seq2seq:untied"), model)
    shared = tasks.create("seq2seq", {"decoder_layers": 2}, VOCABULARY)
    with pytest.raises(UserError, match=r"token vectors of its own; .*--no-share-vocabulary"):
        open_model(open_bundle(tmp_path), shared, to_train=True)


def test_its_encoder_may_be_trained_for_something_else(tmp_path):
    task = make_task("seq2seq")
    model = written_to(tmp_path, task)
    opened = open_model(open_bundle(tmp_path), make_task("classify"), to_train=True)
    assert opened.fresh == ["heads.classify", "pooler"]
    for one, other in zip(
        opened.model.encoder.parameters(), model.encoder.parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["seq2seq", "seq2seq:untied"])
def test_info_counts_every_parameter_once(tmp_path, name):
    model = written_to(tmp_path, make_task(name))
    told = describe(tmp_path)
    count = sum(p.numel() for p in model.parameters())
    assert told["parameters"].startswith(f"{count:,} (") and told["heads"] == "seq2seq"
    layers = len(model.heads["seq2seq"].layers)
    assert told["decoder"] == f"{layers} layers, with cross-attention" and "unknown" not in told


def test_such_folders_are_not_converted(tmp_path):
    written_to(tmp_path, make_task("seq2seq"))
    with pytest.raises(UserError, match=r"an encoder with a decoder .* neither converted nor ext"):
        take_bundle(open_bundle(tmp_path))


# === What cannot be ===


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder": {"hidden_size": 64}}, "the decoder has hidden_size = 64, its encoder 32"),
        ({"decoder": {"num_hidden_layers": 9}}, "the decoder has 9 layers, its encoder 3"),
        ({"decoder": {"add_cross_attention": False}}, "the decoder has no cross-attention"),
        ({"decoder": {"model_type": "gpt2"}}, "a gpt2 decoder on a bert is not supported"),
        ({"encoder": None}, "'encoder' should hold the encoder's config; copy it again"),
    ],
)
def test_decoders_that_are_not_like_their_encoders_are_refused(tmp_path, values, message):
    written_to(tmp_path, make_task("seq2seq"))
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    for side, changed in values.items():
        config[side] = None if changed is None else {**config[side], **changed}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UserError, match=message):
        Engine.open(tmp_path, CPU, torch.float32)


def test_what_cannot_be_is_said_before_training():
    with pytest.raises(UserError, match="min_length 40 is more than the text that target_length"):
        tasks.create("seq2seq", {"min_length": 40, "target_length": 32}, VOCABULARY)
    deep = tasks.create("seq2seq", {"decoder_layers": 4}, VOCABULARY)
    with pytest.raises(UserError, match=r"decoder_layers 4 is more than the 3 layers .*-layers 3"):
        deep.build(encoder_of(CONFIG))
    other = sized(
        "distilbert", "base", 50, hidden_size=32, inner_size=16, num_layers=1, num_heads=2
    )
    with pytest.raises(UserError, match=r"seq2seq: family of the model 'distilbert'.*bert"):
        make_task("seq2seq").build(encoder_of(other))
    task = make_task("seq2seq")
    for target, message in ((None, "no target; write one"), (["a", " "], "a target is empty")):
        with pytest.raises(UserError, match=message):
            task.check(task.Example(source="a", target=target))
