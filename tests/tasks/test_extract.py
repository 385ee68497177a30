"""Laws of keeping sentences: they stand in the document, windows lose none, scores are BERT's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForTokenClassification

from clozeworks import api, tasks
from clozeworks.core.bundle import OWN, Card
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.inference.engine import Engine
from clozeworks.interop.huggingface import write_bundle
from clozeworks.model.families import FAMILIES, sized
from tiny import DRAW, PIECES, TOKENIZER, VOCABULARY, gap, make_examples, make_model, make_task

CPU = torch.device("cpu")
ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("ab 我们，。！Ａ１é\u0301👩‍👩‍👧#[].? \n"),
    max_size=120,
)
DOCUMENT = "The lamp is red. 我买了灯。The order is late! It is lost."


def extractor(**more):
    given_settings = {"dropout": 0.0, "max_length": 48, "overlap": 16, **more}
    return tasks.create("extract", given_settings, VOCABULARY, ["kept"])


def told(task, row, shares):
    """What joining makes of these probabilities, one for each sentence."""
    (sequences,) = task.features([row], TOKENIZER)
    batch = pack([Group(0, sequences)])
    starts = task.target(row.model_copy(update={"labels": []}))[:, 0].tolist()
    found = [shares[starts.index(start)] for s in sequences for start in s.units[:, 0].tolist()]
    return task.join(row, task.decode({"probabilities": torch.tensor(found)}, batch))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_learned_read_as_an_answer_is_what_is_kept(seed):
    task = make_task("extract")
    for row in make_examples(task, 3, seed):
        (sequences,) = task.features([row], TOKENIZER)
        batch = task.collate([Group(0, sequences, task.target(row))], DRAW)
        output = {"probabilities": batch.targets["extract"]}
        answer = task.join(row, task.decode(output, batch))
        assert [kept.index for kept in answer.sentences] == row.labels
        assert task.metrics([answer], [row])["rouge_l"] == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(ANY_TEXT, min_size=1, max_size=3), st.sampled_from([{}, {"share": 0.4}]))
def test_sentences_kept_stand_in_the_document_in_its_order(texts, more):
    task = extractor(max_length=32, **more)
    engine = Engine(make_model(task), task, TOKENIZER)
    rows = [task.Example(document=text) for text in texts]
    rows += [task.Example(sentences=text.split(" ")) for text in texts]
    for row, found in zip(rows, engine.predict(rows), strict=True):
        numbers = [kept.index for kept in found.sentences]
        assert numbers == sorted(set(numbers))
        for kept in found.sentences:
            if row.document is not None:
                assert row.document[kept.start : kept.end] == kept.text != ""
            else:
                assert row.sentences[kept.index] == kept.text
            assert 0 <= kept.probability <= 1 and kept.text in found.summary
        if not more:
            assert len(numbers) <= task.config.keep
        elif len(numbers) > 1:
            size = len(row.document if row.document is not None else found.summary)
            if row.document is not None:
                assert sum(k.end - k.start for k in found.sentences) <= 0.4 * size


def test_the_likeliest_are_kept_and_repetition_is_passed_over():
    row = extractor().Example(sentences=["the red lamp is", "a red lamp is here", "lost order"])
    shares = [0.9, 0.8, 0.1]
    free, blocked = extractor(keep=2, blocking=False), extractor(keep=2)
    assert [k.index for k in told(free, row, shares).sentences] == [0, 1]
    assert [k.index for k in told(blocked, row, shares).sentences] == [0, 2]
    (first,) = told(extractor(share=0.5, blocking=False), row, shares).sentences
    assert (first.index, first.probability) == (0, pytest.approx(0.9))
    one = told(extractor(share=0.01), row, shares)
    assert [k.index for k in one.sentences] == [0]  # one at least
    fits = told(extractor(share=0.7, blocking=False), row, shares)
    assert [k.index for k in fits.sentences] == [0, 2]  # the second is too long for what is left


def test_a_sentence_in_two_windows_is_judged_where_it_is_farthest_inside():
    task = extractor(max_length=32, overlap=12, keep=1)
    row = task.Example(sentences=[f"my order is {word}" for word in "abcdefgh"])
    (sequences,) = task.features([row], TOKENIZER)
    assert len(sequences) > 1
    batch = pack([Group(0, sequences)])
    places = [(k, i) for k, s in enumerate(sequences) for i in range(len(s.rows))]
    for marked, (k, i) in enumerate(places):
        start = sequences[k].units[i, 0]
        rooms = {}
        for other, sequence in enumerate(sequences):
            for j, unit in enumerate(sequence.units):
                if unit[0] == start:
                    end = [*sequence.rows, len(sequence)][j + 1]
                    rooms[other] = min(sequence.rows[j], len(sequence) - end)
        output = {"probabilities": torch.full((len(places),), 0.1)}
        output["probabilities"][marked] = 0.9
        (kept,) = task.join(row, task.decode(output, batch)).sentences
        decides = max(rooms, key=lambda other: rooms[other]) == k
        assert (kept.start == start and kept.probability > 0.5) == decides


def said_together(logits, ids):
    """The mean of what the tokens of each sentence say; each begins with [CLS]."""
    owner = (ids == VOCABULARY.cls).cumsum(0) - 1
    parts = [logits[owner == i] for i in range(int(owner.max()) + 1)]
    return torch.stack([part.mean() for part in parts])


def test_the_loss_is_each_sentence_by_itself():
    task, rows = make_task("extract"), make_examples(make_task("extract"), 9)
    model = make_model(task)
    features = task.features(rows, TOKENIZER)
    pairs = enumerate(zip(features, rows, strict=True))
    batch = task.collate([Group(i, f, task.target(row)) for i, (f, row) in pairs], DRAW)
    x = model.encoder.encode(model.encoder.embed(batch), batch).x
    logits = said_together(model.heads["tag"](x).flatten(), batch.input_ids)
    wanted = F.binary_cross_entropy_with_logits(logits, batch.targets["extract"], reduction="sum")
    assert gap(task.loss(model, batch, DRAW)["extract"], wanted) < 1e-5
    assert task.counts(batch)["extract"] == len(logits)


def test_a_summary_is_learned_as_the_sentences_nearest_to_it():
    task = extractor(keep=2)
    texts = ["the red lamp", "我买了一盏灯", "a late order", "it is lost"]
    row = task.Example(sentences=texts, summary="late order, 我买了一盏灯")
    assert task.gold(row) == (1, 2)
    assert task.target(row)[:, 1].tolist() == [0, 1, 1, 0]
    several = task.Example(sentences=texts, summary=["nothing", "it is lost"])
    assert task.gold(several) == (3,)
    both = task.Example(sentences=texts, summary="it is lost", labels=[0])
    assert task.gold(both) == (0,)
    assert not task.is_labelled(task.Example(document="a", summary=[]))


# === Beside transformers ===


def test_the_folder_opens_there_with_the_same_logits(tmp_path):
    task = make_task("extract")
    model = make_model(task)
    card = Card(task="extract", settings=task.settings, labels=task.labels)
    write_bundle(tmp_path, model, TOKENIZER, card)
    theirs, said = BertForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.id2label == {0: "kept"} and not (tmp_path / OWN).exists()
    row = task.Example(sentences=["where is my order", "我要退款", "lost"])
    (sequence,) = task.features([row], TOKENIZER)[0]
    ids, segments = torch.from_numpy(sequence.ids), torch.from_numpy(sequence.segments)
    out = theirs.eval()(ids[None], token_type_ids=segments[None]).logits[0, :, 0]
    with torch.inference_mode():
        ours = task.predict(model, pack([Group(0, [sequence])]))["probabilities"]
    assert gap(ours, torch.sigmoid(said_together(out, ids))) < 1e-5


def test_a_tagger_from_elsewhere_stays_one_and_converting_keeps_an_extractor(tmp_path):
    task = make_task("extract")
    card = Card(task="extract", settings=task.settings, labels=["kept"], tokenizer=TOKENIZER.hash)
    write_bundle(tmp_path / "bundle", make_model(task), TOKENIZER, card)
    rows = make_examples(task, 5)
    wanted = list(Engine.open(tmp_path / "bundle", CPU, torch.float32).predict(rows))
    api.convert(api.ConvertRecipe(source=tmp_path / "bundle", out=tmp_path / "converted"))
    converted = Engine.open(tmp_path / "converted", CPU, torch.float32)
    assert list(converted.predict(rows)) == wanted
    tagger = make_task("tag")
    write_bundle(tmp_path / "tag", make_model(tagger), TOKENIZER, Card(labels=tagger.labels))
    assert Engine.open(tmp_path / "tag", CPU, torch.float32).task.name == "tag"
    info = api.info(api.InfoRecipe(path=tmp_path / "bundle"))
    assert (info["task"], info["heads"], info["labels"]) == ("extract", "tag", "kept")


@pytest.mark.parametrize("name", ["extract", "tag", "tag:nested", "qa"])
@pytest.mark.parametrize("family", ["modernbert", "lstm"])
def test_families_of_other_forms_bring_it_back(name, family, tmp_path):
    task = make_task(name)
    model = make_model(task, sized(family, next(iter(FAMILIES.get(family).sizes)), len(PIECES)))
    settings, labels = task.settings, task.labels or None
    write_bundle(tmp_path, model, TOKENIZER, Card(task=task.name, settings=settings, labels=labels))
    rows = make_examples(task, 3)
    wanted = list(Engine(model, task, TOKENIZER).predict(rows))
    assert list(Engine.open(tmp_path, CPU, torch.float32).predict(rows)) == wanted


# === Verbs ===


def test_a_run_learns_of_summaries_and_its_report_has_lead_and_oracle(tmp_path):
    task = extractor()
    rows = []
    for row in make_examples(make_task("extract"), 40):
        sentences = row.sentences or [s + "!" for s in row.document.rstrip("!").split("! ")]
        summary = " ".join(sentences[i] for i in row.labels)
        rows.append(task.Example(document=" ".join(sentences), summary=summary))
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f"{r.model_dump_json(exclude_none=True)}\n" for r in rows), "utf-8")
    card = Card(tokenizer=TOKENIZER.hash)
    parent = write_bundle(tmp_path / "bert", make_model(make_task("mlm")), TOKENIZER, card)
    done = api.finetune(
        api.FinetuneRecipe(
            task="extract",
            data=data,
            dev=data,
            model=parent,
            out=tmp_path / "run",
            settings={"max_length": 48, "overlap": 16, "keep": 2},
            train={"duration": "4 steps", "precision": "fp32"},
        )
    )
    assert set(done.dev) == {"rouge1", "rouge2", "rouge_l"}
    for language in ("en", "zh"):
        recipe = {"model": done.bundle, "data": data, "out": tmp_path / language}
        judged = api.evaluate(api.EvaluateRecipe(**recipe, language=language))
        page = judged.report.read_text("utf-8")
        assert "<svg" in page and ("Oracle" if language == "en" else "上限") in page
    found = judged.evaluation
    assert found.oracle.rouge1.f1 >= max(found.rouge.rouge1.f1, found.lead.rouge1.f1)
    assert found.oracle.rouge1.f1 > 0.99 and found.lead_kept == found.kept
    one = api.evaluate(api.EvaluateRecipe(**recipe, settings={"keep": 1}))
    assert one.evaluation.kept == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"document": DOCUMENT, "labels": [4]}, "label 4 is no sentence's: the document has 4, nu"),
        ({"document": "a", "sentences": ["a"], "labels": [0]}, "both document and sentences"),
        ({"document": DOCUMENT}, "no labels and no summary: fill it in, or remove the row"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        extractor().check(extractor().Example(**fields))


def test_nothing_kept_teaches_nothing():
    task = extractor()
    with pytest.raises(UserError, match="no row keeps a sentence"):
        task.labels_in([task.Example(document=DOCUMENT, summary="zebra")])


@pytest.mark.parametrize("labels", [[0, 1, 0], [True, False]])
def test_flags_for_each_sentence_are_not_taken_for_numbers(labels):
    task = make_task("extract")
    with pytest.raises((UserError, ValueError), match=r"more than once|valid integer"):
        task.check(task.Example(sentences=["a!", "b!", "c!"], labels=labels))
