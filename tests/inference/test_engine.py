"""Laws of the Engine: order kept, company without effect, files of any size in bounded memory."""

from itertools import islice

import numpy as np
import pytest
import torch

from clozeworks import tasks
from clozeworks.api.pretrain import begin_with_frequencies
from clozeworks.core.bundle import Calibration, Card
from clozeworks.core.errors import UserError
from clozeworks.inference import engine as engine_module
from clozeworks.inference.engine import WINDOW, Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.encoder import Encoder
from clozeworks.model.heads import Model, Pooler
from clozeworks.tasks.classify import ClassifyExample
from tiny import CONFIG, LABELS, TOKENIZER, make_examples, make_model, make_task

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine():
    task = make_task("classify")
    return Engine(make_model(task), task, TOKENIZER)


def scores(predictions):
    return [list(p.scores.values()) for p in predictions]


def test_order_is_kept_and_company_has_no_effect(engine, monkeypatch):
    examples = make_examples(engine.task, 60)
    expected = scores([next(engine.predict([example])) for example in examples])
    for window, tokens in ((8192, 4096), (7, 50), (1000, 1)):
        monkeypatch.setattr(engine_module, "WINDOW", window)
        monkeypatch.setattr(engine_module, "BATCH_TOKENS", tokens)
        found = scores(engine.predict(examples))
        for ours, alone in zip(found, expected, strict=True):
            assert ours == pytest.approx(alone, rel=1e-4, abs=1e-6)
        backwards = scores(engine.predict(examples[::-1]))[::-1]
        for ours, alone in zip(backwards, expected, strict=True):
            assert ours == pytest.approx(alone, rel=1e-4, abs=1e-6)


def test_examples_may_be_said_by_their_fields(engine):
    examples = [ClassifyExample(text="lost"), ClassifyExample(text="很好", text_pair="late")]
    said = ["lost", {"text": "很好", "text_pair": "late"}]
    assert list(engine.predict(said)) == list(engine.predict(examples))
    for wrong, why in (
        (7, "7 is no ClassifyExample, no mapping of its fields and no text"),
        ({"txet": "lost"}, "unknown key 'txet'"),
        ({"text_pair": "lost"}, "'text' is missing"),
        ("\x00", "'text' holds a NUL character"),
        ({"text": "", "text_pair": "\ud800"}, "'text_pair' holds a lone surrogate"),
    ):
        with pytest.raises(UserError, match="example 2: ") as caught:
            list(engine.predict(["lost", wrong]))
        assert why in str(caught.value)


def test_parts_come_with_their_examples(engine):
    examples = make_examples(engine.task, 20)
    pairs = list(engine.parts(examples))
    assert [example for example, _ in pairs] == examples
    assert all(len(parts) == 1 and len(parts[0]["probs"]) == 3 for _, parts in pairs)


def test_a_long_stream_is_read_no_further_than_a_window_ahead(engine):
    given = 0

    def stream():
        nonlocal given
        for i in range(50_000):
            given += 1
            yield ClassifyExample(text="a" if i % 2 else "lost parcel")

    taken = 0
    for _ in islice(engine.predict(stream()), 30_000):
        taken += 1
        assert given <= taken + WINDOW
    assert taken == 30_000


def test_nothing_in_nothing_out(engine):
    assert list(engine.predict([])) == []
    assert len(list(engine.predict([ClassifyExample(text="")]))) == 1


def test_what_is_cut_is_counted():
    task = make_task("classify")
    engine = Engine(make_model(task), task, TOKENIZER)
    window = task.config.max_length
    texts = ["lost", "lost " * 200, "lost " * (window - 2), "lost " * (window - 1)]
    assert len(list(engine.predict(ClassifyExample(text=text) for text in texts))) == 4
    assert engine.cut_examples == 2
    assert engine.truncated == 200 - (window - 2) + 1


def test_a_text_over_the_positions_is_an_error_before_any_harm():
    settings = {"max_length": 2 * CONFIG.max_positions}
    task = tasks.create("classify", settings, TOKENIZER.vocabulary, LABELS)
    engine = Engine(make_model(task), task, TOKENIZER)
    long = task.Example(text="lost " * (CONFIG.max_positions + 1))
    with pytest.raises(UserError, match="more than the 160 positions"):
        list(engine.predict([long]))


@pytest.mark.parametrize("name", ["nsp", "sop", "rtd"])
def test_pretrained_tasks_cut_what_the_model_has_no_positions_for(name):
    task = make_task(name)
    engine = Engine(make_model(task), task, TOKENIZER)
    pair = {} if name == "rtd" else {"text_pair": "late"}
    assert len(list(engine.predict([task.Example(text="lost " * 400, **pair)]))) == 1
    assert engine.cut_examples == 1


def test_an_example_that_cannot_be_read_is_named():
    task = make_task("mlm")
    engine = Engine(make_model(task), task, TOKENIZER)
    rows = [task.Example(text="late [MASK]", candidates=[word]) for word in ("lost", "lost", "zzz")]
    with pytest.raises(UserError, match="example 3: candidate 'zzz'"):
        list(engine.predict(rows))


def test_rows_of_the_model_that_no_piece_has_fill_nothing():
    """As a vocabulary that is rounded up has them."""
    task = make_task("mlm")
    model = make_model(task, CONFIG.model_copy(update={"vocab_size": CONFIG.vocab_size + 40}))
    with torch.no_grad():
        model.heads["mlm"].bias[-40:] = 30.0
    task.config = task.config.model_copy(update={"top": 10_000})
    (found,) = Engine(model, task, TOKENIZER).predict([task.Example(text="late [MASK]")])
    assert len(found.fillings[0]) == CONFIG.vocab_size
    chances = np.zeros(CONFIG.vocab_size) + 1 / CONFIG.vocab_size
    with torch.no_grad():
        model.heads["mlm"].bias.zero_()
    begin_with_frequencies(model, chances)
    assert model.heads["mlm"].bias.std() < 1e-6


def test_a_training_model_is_judged_at_rest_and_left_training():
    task = make_task("classify")
    model = make_model(task)
    model.set_dropout(0.5)
    engine = Engine(model.train(), task, TOKENIZER)
    examples = make_examples(task, 5)
    assert scores(engine.predict(examples)) == scores(engine.predict(examples))
    assert model.training
    assert not any(p.requires_grad is False for p in model.parameters())


def test_the_threshold_is_applied(engine):
    examples = make_examples(engine.task, 30)
    before = list(engine.predict(examples))
    assert all(p.label == p.best for p in before)
    middle = sorted(p.confidence for p in before)[15]
    engine.task.calibration = Calibration(threshold=middle)
    try:
        after = list(engine.predict(examples))
    finally:
        engine.task.calibration = Calibration()
    assert {p.label is None for p in after} == {True, False}
    for prediction in after:
        assert (prediction.label is None) == (prediction.confidence < middle)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bundle_answers_as_the_model_it_was_written_from(engine, dtype, tmp_path):
    engine.task.calibration = Calibration(temperature=2.5, threshold=0.45)
    task = engine.task
    card = Card(task=task.name, settings=task.settings, labels=LABELS, calibration=task.calibration)
    write_bundle(tmp_path, engine.model, TOKENIZER, card)
    opened = Engine.open(tmp_path, CPU, dtype)
    assert opened.task.calibration == task.calibration
    examples = make_examples(task, 40)
    expected, found = list(engine.predict(examples)), list(opened.predict(examples))
    engine.task.calibration = Calibration()
    if dtype == torch.float32:
        assert found == expected
        return
    for ours, exact in zip(scores(found), scores(expected), strict=True):
        assert ours == pytest.approx(exact, abs=0.1)


def test_a_bundle_for_no_task_says_what_to_do(tmp_path):
    named = Card(task="classify", labels=LABELS)
    write_bundle(tmp_path / "mlm", make_model(make_task("mlm")), TOKENIZER, named)
    with pytest.raises(UserError, match=r"was not trained for 'classify'.*clozeworks finetune"):
        Engine.open(tmp_path / "mlm", CPU, torch.float32)
    bare = Model(Encoder(CONFIG), Pooler(CONFIG), {})
    write_bundle(tmp_path / "bare", bare, TOKENIZER, Card())
    with pytest.raises(UserError, match="trained for no task; fine-tune it first"):
        Engine.open(tmp_path / "bare", CPU, torch.float32)
