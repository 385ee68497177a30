"""Laws of classifying long texts in windows: nothing is lost, and what is learned is answered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.inference.engine import Engine
from tiny import DRAW, TOKENIZER, VOCABULARY, gap, groups_from, make_examples, make_model, make_task


@settings(deadline=None, max_examples=50)
@given(
    st.text("abc 我们退款", max_size=150), st.none() | st.text("xyz 快递", min_size=1, max_size=60)
)
def test_windows_show_all_of_a_text_beside_all_of_its_pair_where_there_is_room(text, pair):
    task = make_task("classify:windows")
    row = task.Example(text=text, text_pair=pair)
    (found,) = task.features([row], TOKENIZER)
    assert all(len(sequence) <= 16 for sequence in found)
    shown = [sequence.ids[sequence.segments == 0][1:-1] for sequence in found]
    whole, overlap = TOKENIZER.tokenize([text])[0], 4
    if pair is not None:
        ids = TOKENIZER.tokenize([pair])[0]
        kept = ids[: max(6, 13 - len(whole))]
        overlap = min(4, (13 - len(kept)) // 2)
        for sequence in found:
            assert np.array_equal(sequence.ids[sequence.segments == 1][:-1], kept)
        cut = len(ids) - len(kept)
        assert [s.truncated for s in found] == [cut] + [0] * (len(found) - 1)
    assert np.array_equal(np.concatenate([shown[0], *(s[overlap:] for s in shown[1:])]), whole)
    short = TOKENIZER.encode(text, pair)
    if len(short) <= 16:
        assert len(found) == 1 and np.array_equal(found[0].ids, short.ids)
    assert len(found) <= 1 + len(whole) // 3


@pytest.mark.parametrize("join", ["mean", "max"])
@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_what_windows_say_together_is_learned_as_it_is_answered(kind, join):
    task = make_task("classify" if kind == "single" else f"classify:{kind}")
    changes = {"max_length": 16, "overlap": 4, "join": join}
    values = {**task.settings, **changes, "class_weights": "equal", "smoothing": 0, "focus": 0}
    task = tasks.create("classify", values, VOCABULARY, task.labels)
    rows, model = make_examples(task, 9), make_model(task)
    groups = groups_from(task, rows)
    task.look_over(groups)
    assert max(len(group.sequences) for group in groups) > 1
    engine = Engine(model, task, TOKENIZER)
    parts = [parts for _, parts in engine.parts(rows)]
    rule = np.mean if join == "mean" else np.max
    logits = torch.tensor(np.stack([rule([p["logits"] for p in own], 0) for own in parts]))
    gold = torch.from_numpy(np.array([group.target for group in groups], task.answer.dtype))
    wanted = task.answer.loss(logits.float(), gold)
    assert gap(task.loss(model, task.collate(groups, DRAW), DRAW)["classify"], wanted) < 1e-5
    probs = task.answer.probs(logits.float(), task.calibration)
    for prediction, shares in zip(engine.predict(rows), probs.tolist(), strict=True):
        answer = task.answer.prediction(shares, task.calibration)
        ours, theirs = numbers_and_words(prediction), numbers_and_words(answer)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-4, abs=1e-5) and ours[1] == theirs[1]


def numbers_and_words(prediction):
    values = prediction.model_dump()
    values |= values.pop("scores", {})
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    return numbers, {name: value for name, value in values.items() if name not in numbers}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 16, "overlap": 9}, "overlap 9 leaves no room in max_length 16"),
        ({"kind": "multi", "target": 0.5}, "target is about answering"),
        ({"join": "max"}, "join is about windows; give --overlap, too"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tasks.create("classify", changes, VOCABULARY)
