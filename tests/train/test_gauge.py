"""Laws of what is told of a step: padding, waiting, share of the peak."""

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clozeworks.data.order import ExampleStream
from clozeworks.model.attention import Layout
from clozeworks.model.encoder import Encoder
from clozeworks.model.families import sized
from clozeworks.model.flops import flops_a_token
from clozeworks.model.heads import encoder_of
from clozeworks.train import gauge
from clozeworks.train.fit import summary
from clozeworks.train.gauge import Reading, gemm_rate, operations_a_token
from clozeworks.train.loop import Event, Learner, TrainSettings, train
from clozeworks.train.optim import Optimizer
from clozeworks.train.state import Cursor
from clozeworks.train.track import Track
from tiny import CONFIG, DRAW, make_config, make_groups, make_model, make_task

SETTINGS = TrainSettings(precision="fp32", lr=5e-5, batch=8)


def readings(total, lengths=(70, 5, 131, 64, 33, 3, 100, 20), micro_tokens=10_000):
    task = make_task("mlm")
    model = make_model(task)
    settings = SETTINGS.model_copy(update={"micro_tokens": micro_tokens})
    learner = Learner(model, task, settings, Optimizer(model, torch.float32))
    stream = ExampleStream(make_groups(lengths), 8, "examples", 0)
    return learner, list(train(learner, stream, Cursor(total=total)))


@pytest.mark.parametrize("values", [{}, {"groups": 1, "num_layers": 3}, {"gated": True}])
def test_operations_are_those_that_are_counted(values):
    """Forward operations of the products, as torch counts them; the backward has twice as many."""
    config = CONFIG.model_copy(update=values)
    encoder = Encoder(config).eval()
    batch = make_task("mlm").collate(make_groups([64] * 5), DRAW)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.encode(encoder.embed(batch), batch)
    assert counter.get_total_flops() == 5 * 64 * flops_a_token(config, 64, 0) / 3


def test_operations_of_a_recurrent_encoder_are_six_a_weight():
    config = sized("lstm", "mini", 500)
    encoder = encoder_of(config)
    matrices = [p for n, p in encoder.named_parameters() if p.dim() == 2 and "embed" not in n]
    assert flops_a_token(config, 0, 0) == 6 * sum(matrix.numel() for matrix in matrices)


def test_a_local_layer_attends_to_its_window():
    far = CONFIG.model_copy(update={"local_layers": (0, 2), "local_window": 16})
    longer = flops_a_token(far, 1000, 0) - flops_a_token(far, 100, 0)
    assert longer == 12 * CONFIG.hidden_size * (CONFIG.num_layers - 2) * 900
    assert flops_a_token(far, 20, 0) == flops_a_token(CONFIG, 20, 0)


def test_predicting_costs_the_vocabulary():
    config = sized("bert", "mini", 30_522)
    more = flops_a_token(config, 100, 0.15) - flops_a_token(config, 100, 0)
    assert more == pytest.approx(6 * 0.15 * 30_522 * 256)


@pytest.mark.parametrize("name", ["mlm", "mlm+nsp", "rtd"])
def test_operations_of_a_batch_are_the_encoders_and_the_generators(name):
    """The vocabulary is met where its tokens are predicted: with a generator, there alone."""
    task = make_task(name)
    model = make_model(task, make_config(task))
    batches = [task.collate(make_groups([64] * count), DRAW) for count in (5, 2)]
    hidden = sum(len(batch.targets["mlm_rows"]) for batch in batches) / (7 * 64)
    if model.generator is None:
        expected = flops_a_token(model.config, 64, hidden)
    else:
        expected = flops_a_token(model.config, 64, 0)
        expected += flops_a_token(model.generator.config, 64, hidden)
    assert operations_a_token(model, task, batches) == pytest.approx(expected)


def test_padding_is_what_rows_have_beside_tokens():
    lengths = [70, 5, 131, 64, 33, 3, 100, 20]
    for micro_tokens in (10_000, 150):
        _, events = readings(2, lengths, micro_tokens)
        assert 0 < events[0].reading.padding < 0.7
    layout = Layout.of(torch.tensor(np.cumsum([0, *lengths])))
    _, (event,) = readings(1, lengths)
    # the last row of slots is filled up by those that round the batch
    assert event.reading.padding == pytest.approx(
        1 - sum(lengths) / (layout.rows * layout.capacity), abs=0.05
    )
    _, (full,) = readings(1, [64] * 8)
    assert full.reading.padding == 0


def test_the_peak_is_measured_once_and_only_where_a_run_is_long(monkeypatch):
    measured = []

    def rate(device, dtype):
        measured.append((device.type, dtype))
        return 1e9

    monkeypatch.setattr(gauge, "gemm_rate", rate)
    _, events = readings(6)
    assert not measured
    assert all(event.reading.peak_share is None for event in events)
    monkeypatch.setattr(gauge, "LONG", 0.0)
    learner, events = readings(6)
    assert measured == [("cpu", torch.float32)]
    assert [event.reading.peak_share is None for event in events] == [True, True] + [False] * 4
    last = events[-1]
    lengths = np.array([70, 5, 131, 64, 33, 3, 100, 20])
    attended = (lengths**2).sum() / lengths.sum()
    config = learner.model.config
    least, most = (flops_a_token(config, attended, share) for share in (0.1, 0.2))
    rate_seen = last.reading.peak_share * 1e9 * last.seconds / last.tokens
    assert least < rate_seen < most


def test_what_a_step_cost_is_written_and_shown(tmp_path):
    _, events = readings(2)
    with Track(tmp_path) as track:
        for event in events:
            track.step(event)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line, event in zip(lines, events, strict=True):
        costs = {"seconds", "waiting", "padding", "memory_mb", "peak_share"}
        assert line.keys() == costs | {"step", "mlm", "epoch", "lr", "norm", "tokens", "ends_epoch"}
        assert line["norm"] == event.norm and line["padding"] == event.reading.padding
    reading = Reading(0.5, 0.1, 0.25, 1234.0, 0.6)
    event = Event(7, 0.5, {"mlm": 5.0}, 1e-3, 0.8, 1000, False, reading)
    assert summary(event, {"mlm": 4.5}) == (
        "mlm 5.000, 2,000 tokens/s (60% of peak), 25% padding, 10% waiting, norm 0.80, 1,234 MB "
        "(held out: mlm 4.500)"
    )


def test_waiting_is_a_share_and_memory_is_there():
    _, events = readings(3)
    for event in events:
        assert 0 < event.reading.waiting < 1
        assert event.reading.memory_mb > 10
        assert event.seconds == event.reading.seconds > 0


def test_the_peak_leaves_torchs_generator_alone(monkeypatch):
    monkeypatch.setitem(gauge.GEMM, "cpu", 64)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert gemm_rate(torch.device("cpu"), torch.float32) > 0
    assert torch.equal(torch.rand(3), expected)
