"""Laws of the probe: it finds what is in the vectors, and leaves the model as it was."""

import json
import random

import numpy as np
import pytest
import torch

from clozeworks.core.errors import UserError
from clozeworks.evaluation.probe import FEWEST, JUDGED_SHARE, Probe, ProbeSettings
from clozeworks.inference.vectors import vectors
from tiny import CONFIG, TOKENIZER, WORDS, gap, make_model, make_task


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return ProbeSettings(data=path)


def labelled(count, seed=0, telling=True):
    """Rows whose class is told by one of their words, or by nothing."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.choice("abc")
        words = [*chance.choices(WORDS[3:], k=6), {"a": "refund", "b": "order", "c": "late"}[label]]
        chance.shuffle(words)
        rows.append({"text": " ".join(words), "label": label if telling else chance.choice("abc")})
    return rows


def probe_of(path, rows):
    return Probe.of(write(path / "rows.jsonl", rows), TOKENIZER, 64)


def test_it_finds_what_the_vectors_tell_and_nothing_else(tmp_path):
    model = make_model(make_task("mlm"))
    probe = probe_of(tmp_path, labelled(600))
    found = probe.accuracies(model)
    assert found["probe_accuracy"] > 0.8
    cut = len(probe.train)
    others = np.concatenate([probe.classes[:cut], (probe.classes[cut:] + 1) % 3])
    assert Probe(probe.train, probe.judged, others).accuracies(model)["probe_accuracy"] < 0.2
    chance = probe_of(tmp_path, labelled(600, telling=False)).accuracies(model)
    assert chance["probe_accuracy"] < 0.5 and chance["probe_accuracy_first"] < 0.5


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_every_generator_are_left_alone(tmp_path, training):
    model = make_model(make_task("mlm"), CONFIG.model_copy(update={"dropout": 0.5}))
    model.train(training)
    probe = probe_of(tmp_path, labelled(300))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    kept = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    noise = model.encoder.noise._bytes.bit_generator.state
    first = probe.accuracies(model)
    assert first == probe.accuracies(model)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    assert model.training is training
    assert (random.getstate(), np.random.get_state()[1].tolist()) == kept[:2]
    assert torch.equal(torch.get_rng_state(), kept[2])
    assert repr(model.encoder.noise._bytes.bit_generator.state) == repr(noise)


def test_the_split_depends_on_the_texts_alone(tmp_path):
    rows = labelled(300)
    one = probe_of(tmp_path, rows)
    other = probe_of(tmp_path, random.Random(5).sample(rows, len(rows)))
    assert [s.ids.tolist() for s in one.judged] == [s.ids.tolist() for s in other.judged]
    assert one.classes.tolist() == other.classes.tolist()
    twice = probe_of(tmp_path, rows + rows)
    texts = {tuple(s.ids.tolist()) for s in twice.train}
    assert texts.isdisjoint(tuple(s.ids.tolist()) for s in twice.judged)
    assert len(one.judged) == pytest.approx(JUDGED_SHARE * 300, rel=0.1)


def test_fewer_rows_are_the_first_of_all(tmp_path):
    probe = probe_of(tmp_path, labelled(500))
    few = probe.first(250)
    assert len(few.classes) == len(few.train) + len(few.judged) == 250
    assert few.train == probe.train[: len(few.train)]
    assert few.classes.tolist() == [
        *probe.classes[: len(few.train)],
        *probe.classes[len(probe.train) :][: len(few.judged)],
    ]
    assert few.first(250) is few and probe.first(10_000) is probe


def test_a_budget_of_seconds_takes_rows_away(tmp_path):
    model = make_model(make_task("mlm"))
    probe = probe_of(tmp_path, labelled(700))
    assert len(probe.within(model, 1e-6).classes) == FEWEST
    assert probe.within(model, 1e6) is probe


def test_the_majority_is_that_of_the_rows_learned_from(tmp_path):
    rows = [{"text": f"{w} {v}", "label": "rare"} for w in WORDS[:5] for v in WORDS[:6]]
    rows += [{"text": f"{w} my {v}", "label": "often"} for w in WORDS for v in WORDS]
    probe = probe_of(tmp_path, rows)
    judged = probe.classes[len(probe.train) :]
    assert probe.majority == np.mean(judged == 0) > 0.7  # "often" before "rare"


def test_pairs_are_pairs(tmp_path):
    rows = [{"text": "order", "text_pair": w, "label": w[0]} for w in WORDS * 3]
    settings = write(tmp_path / "rows.jsonl", rows).model_copy(update={"text_pair": "text_pair"})
    probe = Probe.of(settings, TOKENIZER, 64)
    assert {s.segments.max() for s in (*probe.train, *probe.judged)} == {1}


def test_vectors_are_those_of_each_text_alone():
    model = make_model(make_task("mlm"))
    sequences = TOKENIZER.encode_batch([" ".join(WORDS[:n]) for n in (9, 1, 4, 11, 2)])
    found = vectors(model, sequences)
    for i, sequence in enumerate(sequences):
        alone = vectors(model, [sequence])
        for one, other in zip(found, alone, strict=True):
            assert gap(torch.from_numpy(one[i]), torch.from_numpy(other[0])) < 1e-5


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "a single label 'x'"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "row 2: no label"),
        ([{"body": "a", "label": "x"}], "no column 'text'"),
    ],
)
def test_a_file_without_classes_is_refused(tmp_path, rows, words):
    with pytest.raises(UserError, match=words):
        probe_of(tmp_path, rows)
