"""Laws of sentence vectors: losses are the published ones, windows lose nothing, twins differ."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clozeworks import tasks
from clozeworks.core.errors import UserError
from clozeworks.data.batches import Group, pack
from clozeworks.data.order import ExampleStream
from clozeworks.inference.engine import Engine
from clozeworks.model.contrast import cosent, cosine_distance, in_batch, no_negatives
from clozeworks.model.pooling import joined, pooled
from clozeworks.text.units import split
from tiny import DRAW, TOKENIZER, VOCABULARY, gap, groups_from, make_model, make_task

ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab 我们，。Ａ１é\u0301👩‍👩‍👧#[]"),
    max_size=80,
)


def unit(rows, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1)


def groups_of(task, examples):
    groups = groups_from(task, examples)
    task.look_over(groups)
    return task.readings(groups)


def prepared(examples, **given):
    """The task that learns from the examples, and all of them as one batch."""
    task = tasks.create("embed", given, VOCABULARY)
    task.labels_in(examples)
    return task, task.collate(groups_of(task, examples), DRAW)


def example(**fields):
    return tasks.TASKS.get("embed").Example(**fields)


# === Losses ===


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("sentence_transformers.sentence_transformer.losses")


@pytest.mark.parametrize("negatives", [0, 1, 2])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_contrastive_loss_is_sentence_transformers(library, negatives, symmetric):
    parts = [unit(7, seed=i) for i in range(2 + negatives)]
    ways = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    theirs = library.MultipleNegativesRankingLoss(
        None, directions=ways, partition_mode="per_direction"
    )
    wanted = theirs.compute_loss_from_embeddings(parts, None)
    candidates = torch.cat(parts[1:])
    nothing = torch.zeros(7, len(candidates), dtype=torch.bool)
    ours = in_batch(parts[0], candidates, nothing, 0.05)
    if symmetric:
        ours = (ours + in_batch(parts[1], parts[0], nothing[:, :7], 0.05)) / 2
    assert gap(ours / 7, wanted) < 1e-9


@pytest.mark.parametrize("scores", [[0, 5, 3, 3, 1, 5], [2, 1], [1, 1, 1], [4]])
def test_the_ranking_loss_is_sentence_transformers(library, scores):
    one, other = unit(len(scores)), unit(len(scores), seed=1)
    gold = torch.tensor(scores, dtype=torch.float64)
    wanted = library.CoSENTLoss(None).compute_loss_from_embeddings([one, other], gold)
    assert float(cosent((one * other).sum(-1), gold, 0.05)) == pytest.approx(float(wanted))


def test_the_distance_is_sentence_transformers(library):
    one, other, gold = unit(6), unit(6, seed=1), torch.rand(6)
    wanted = library.CosineSimilarityLoss(None).compute_loss_from_embeddings([one, other], gold)
    ours = cosine_distance((one * other).sum(-1), gold) / 6
    assert float(ours) == pytest.approx(float(wanted), rel=1e-5)


def test_gradients_are_those_of_finite_differences():
    anchors, candidates = (unit(n, 3, n).requires_grad_() for n in (4, 6))
    hidden = torch.zeros(4, 6, dtype=torch.bool)
    hidden[0, 2] = hidden[3, 5] = True
    assert torch.autograd.gradcheck(lambda a, c: in_batch(a, c, hidden, 0.3), (anchors, candidates))
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0])
    alike = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: cosent(s, scores, 0.3), (alike,))
    assert torch.autograd.gradcheck(lambda s: cosine_distance(s, scores.double()), (alike,))


def test_what_is_hidden_is_as_if_it_were_not_there():
    anchors, candidates = unit(3), unit(5, seed=1)
    hidden = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 0, 1, 1]], dtype=torch.bool)
    total = 0.0
    for i in range(3):
        kept = [j for j in range(5) if not hidden[i, j]]
        scores = candidates[kept] @ anchors[i] / 0.3
        total += F.cross_entropy(scores[None], torch.tensor([kept.index(i)]))
    assert gap(in_batch(anchors, candidates, hidden, 0.3), total) < 1e-9


def test_the_tasks_loss_is_made_of_what_it_predicts():
    """In-batch, by order and by distance: the loss of a batch from its predicted vectors."""
    rows = [
        example(text=f"{a} {b}", text_pair=c, score=s)
        for a, b, c, s in zip(
            ["refund", "late", "我", "parcel"],
            ["order", "is", "要", "my"],
            ["late", "my", "快", "lost"],
            [0, 5, 2.5, 5],
            strict=True,
        )
    ]
    for objective in ("cosent", "cosine"):
        task, batch = prepared(rows, objective=objective)
        model = make_model(task)
        alike = torch.tensor([p.similarity for p in Engine(model, task, TOKENIZER).predict(rows)])
        gold = torch.tensor([row.score for row in rows])
        wanted = (
            cosine_distance(alike, gold / 5)
            if objective == "cosine"
            else (4 * cosent(alike, gold, 0.05))
        )
        assert gap(task.loss(model, batch, DRAW)["embed"].detach(), wanted) < 1e-4
    pairs = [example(text=r.text, positive=r.text_pair) for r in rows]
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    for symmetric in (False, True):
        task, batch = prepared(pairs, temperature=0.2, symmetric=symmetric)
        found = list(Engine(model, task, TOKENIZER).predict(pairs))
        one, other = (
            F.normalize(torch.tensor(np.stack([np.asarray(v) for v in vectors])), dim=-1)
            for vectors in ([p.vector for p in found], [p.vector_pair for p in found])
        )
        wanted = in_batch(one, other, nothing, 0.2)
        if symmetric:
            wanted = (wanted + in_batch(other, one, nothing, 0.2)) / 2
        assert gap(task.loss(model, batch, DRAW)["embed"].detach(), wanted) < 1e-4


# === What is no negative ===


def hidden_in(batch):
    """Which candidates of a batch are no negatives, and which anchors."""
    roles, same = batch.targets["embed_role"], batch.targets["embed_same"]
    return no_negatives(same[roles == 0], same[roles == 1], same[roles > 1])


def test_the_same_text_is_never_a_negative():
    rows = [
        example(text="refund", positive="late", negatives=["lost", "refund"]),
        example(text="refund", positive="order", negatives=["late"]),
        example(text="my", positive="late"),
        example(text="order", positive="parcel"),
    ]
    _, batch = prepared(rows)
    hidden, back = hidden_in(batch)
    #            late   order  late   parcel lost   refund late
    assert hidden.tolist() == [
        [False, True, True, False, False, True, True],
        [True, False, True, False, False, True, True],
        [True, False, False, False, False, False, True],
        [False, True, False, False, False, False, False],
    ]
    assert back.tolist() == [
        [False, True, True, False],
        [True, False, False, True],
        [True, True, False, False],
        [False, False, False, False],
    ]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8))
def test_what_is_hidden_changes_nothing_and_all_else_does(pairs):
    """Gradients reach exactly the candidates that are not hidden."""
    words = ["refund", "late", "order", "lost", "my"]
    rows = [example(text=words[a], positive=words[b]) for a, b in pairs]
    _, batch = prepared(rows)
    hidden, _ = hidden_in(batch)
    scores = torch.randn(hidden.shape, requires_grad=True)
    loss = F.cross_entropy(scores.masked_fill(hidden, -torch.inf), torch.arange(len(rows)))
    loss.backward()
    assert torch.equal(scores.grad == 0, hidden | (len(rows) - hidden.sum(1) == 1)[:, None])
    for i, (a, b) in enumerate(pairs):
        assert not hidden[i, i]
        for j, (_, other) in enumerate(pairs):
            right = other in (a, b) or (a, other) in pairs
            assert hidden[i, j] == (i != j and right)


# === Twice, with other dropout ===


def test_a_text_read_twice_differs_by_its_dropout_alone():
    task, batch = prepared([example(text="my parcel is late"), example(text="我要退款")])
    assert task.config.objective == "simcse"
    assert len(batch.firsts) == 4
    model = make_model(task)
    model.set_dropout(0.2)

    def twins():
        model.encoder.noise.reseed(1, 2)
        x = model.encoder.encode(model.encoder.embed(batch), batch).x
        return pooled(x, batch, "mean").detach()

    model.train()
    first, again = twins(), twins()
    assert torch.equal(first, again), "dropout is a function of the seed"
    for text in (0, 2):
        assert not torch.allclose(first[text], first[text + 1])
    model.eval()
    still = twins()
    for text in (0, 2):
        assert gap(still[text], still[text + 1]) < 1e-5
    assert batch.targets["embed_role"].tolist() == [0, 1, 0, 1]


def test_texts_are_read_twice_only_to_learn():
    task = make_task("embed:simcse")
    (sequences,) = task.features([example(text="my parcel", positive="late")], TOKENIZER)
    assert [s.text for s in sequences] == [0, 1]
    (alone,) = task.features([example(text="my parcel")], TOKENIZER)
    (twice,) = groups_of(task, [example(text="my parcel")])
    assert (len(alone), len(twice.sequences)) == (1, 2)
    stream = ExampleStream([twice], 8, "tokens", 0)
    assert stream.lengths(0)[0] == task.collate([twice], DRAW).num_tokens, "counted as it is read"


# === Windows and pooling ===


@settings(max_examples=60)
@given(ANY_TEXT, st.integers(8, 20))
def test_windows_hold_every_token_once_in_order(text, length):
    (found,) = split([text], TOKENIZER, length)
    whole = TOKENIZER.encode(text)
    assert np.concatenate([s.ids[1:-1] for s in found]).tolist() == whole.ids[1:-1].tolist()
    sizes = [len(s) for s in found]
    assert max(sizes) <= length and max(sizes) - min(sizes) <= 1
    assert all(s.ids[0] == VOCABULARY.cls and s.ids[-1] == VOCABULARY.sep for s in found)
    assert len(found) == 1 or len(whole) > length
    assert sum(s.truncated for s in found) == 0


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_vector_is_what_its_tokens_say(pooling):
    task = tasks.create("embed", {"pooling": pooling}, VOCABULARY)
    model = make_model(task)
    texts = ["my parcel is late", "我", "where is the refund please a order"]
    found = Engine(model, task, TOKENIZER).predict([example(text=t) for t in texts])
    for text, prediction in zip(texts, found, strict=True):
        batch = pack([Group(0, [TOKENIZER.encode(text)])])
        x = model.encoder.encode(model.encoder.embed(batch), batch).x
        wanted = {"mean": x.mean(0), "cls": x[0], "max": x.amax(0)}[pooling]
        assert gap(torch.tensor(np.asarray(prediction.vector)), wanted) < 1e-5


@pytest.mark.parametrize("normalize", [False, True])
def test_a_long_text_is_the_mean_of_its_windows_by_their_tokens(normalize):
    task = tasks.create("embed", {"max_length": 8, "normalize": normalize}, VOCABULARY)
    model = make_model(task)
    long = example(text="where is my order please the parcel is late a refund 我要退款")
    windows = split([long.text], TOKENIZER, 8)[0]
    assert len(windows) == 3
    rows = []
    for window in windows:
        batch = pack([Group(0, [window])])
        rows.append(model.encoder.encode(model.encoder.embed(batch), batch).x)
    wanted = torch.cat(rows).mean(0)
    wanted = F.normalize(wanted, dim=0) if normalize else wanted
    (found,) = Engine(model, task, TOKENIZER).predict([long])
    assert gap(torch.tensor(np.asarray(found.vector)), wanted) < 1e-5
    batch = task.collate(groups_of(task, [long, example(text="my")]), DRAW)
    x = model.encoder.encode(model.encoder.embed(batch), batch).x
    owner, texts = batch.targets["embed_owner"], 4  # of simcse, twice each
    both = joined(pooled(x, batch, "mean"), batch.offsets.diff(), owner, texts)
    assert gap(both[0], torch.cat(rows).mean(0)) < 1e-5


@settings(max_examples=30)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9))
def test_what_is_written_of_a_vector_reads_back_the_same(numbers):
    from clozeworks.tasks._vectors import vector

    kind = tasks.TASKS.get("embed").Answer
    prediction = kind(vector=vector(np.array(numbers, np.float32)))
    again = kind.model_validate_json(prediction.model_dump_json())
    assert again == prediction and len(prediction.model_dump()["vector"]) == len(numbers)
    for value, there in zip(numbers, prediction.vector, strict=True):
        assert there == pytest.approx(value, rel=1e-6, abs=6e-9)


# === What is learned, from what ===


@pytest.mark.parametrize(
    ("rows", "objective", "span"),
    [
        ([{"positive": "late"}], "contrastive", None),
        ([{"text_pair": "a", "score": 1}, {"text_pair": "b", "score": 3}], "cosent", None),
        ([{}], "simcse", None),
    ],
)
def test_the_rows_decide_what_is_learned(rows, objective, span):
    examples = [example(text=f"my {i}", **row) for i, row in enumerate(rows)]
    task, _ = prepared(examples)
    assert (task.config.objective, task.config.score_range) == (objective, span)
    assert task.settings["objective"] == objective, "so that a Bundle says it"


@pytest.mark.parametrize(
    ("scores", "span", "targets"),
    [
        ([0, 5, 2], (0, 5), [0, 1, 0.4]),
        ([-0.5, 1], (0, 1), [-0.5, 1]),
        ([10, 20], (10, 20), [0, 1]),
    ],
)
def test_scores_of_any_range_become_cosines(scores, span, targets):
    examples = [example(text="my", text_pair=f"{s}", score=s) for s in scores]
    task, batch = prepared(examples, objective="cosine")
    assert task.config.score_range == span
    low, high = span
    scaled = (batch.targets["embed_score"][batch.targets["embed_role"] == 0] - low) / (high - low)
    assert scaled.tolist() == pytest.approx(targets)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positive": "a", "score": 1.0}, "both a positive and a pair"),
        ({"negatives": "a"}, "negatives without a positive.*--positive"),
        ({"score": 1.0}, "a score, but no text_pair.*--text-pair"),
        ({"text_pair": "a"}, "a text_pair without a score"),
        ({"text_pair": "a", "score": math.nan}, "score nan is no number"),
        ({"positive": " "}, "is empty"),
        ({"positive": "a", "negatives": ["b", ""]}, "is empty"),
    ],
)
def test_rows_that_say_half_or_two_things_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        make_task("embed").check(example(text="my", **fields))


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        ([{"positive": "a"}, {"text_pair": "b", "score": 1}], {}, "has a positive.*has a score"),
        ([{"positive": "a"}, {}], {}, "has a positive.*has neither"),
        ([{}], {"objective": "contrastive"}, "needs a positive .--positive. in every row"),
        ([{"positive": "a"}], {"objective": "cosent"}, "needs a score .*in every row; 'my'"),
        ([{"text_pair": "b", "score": 1}] * 2, {}, "every score is 1, so that nothing"),
        ([{"text_pair": "b", "score": 1}], {"symmetric": True}, "the objective is cosent"),
        ([{"positive": "a"}], {"score_range": [0, 1]}, "score_range is of cosine, and"),
    ],
)
def test_rows_that_do_not_fit_the_objective_are_refused(rows, given, message):
    task = tasks.create("embed", given, VOCABULARY)
    with pytest.raises(UserError, match=message):
        task.labels_in([example(text="my", **row) for row in rows])


def test_a_range_that_is_none_is_refused():
    with pytest.raises(UserError, match="from 5 to 0 is no range"):
        tasks.create("embed", {"score_range": [5, 0]}, VOCABULARY)


def test_negatives_are_read_to_learn_and_not_to_predict():
    task = make_task("embed")
    row = example(text="my", positive="late", negatives=["lost", "order"])
    assert len(task.features([row], TOKENIZER)[0]) == 4
    assert len(task.features([task.asked(row)], TOKENIZER)[0]) == 2
    alone = example(text="my", positive="late", negatives="lost")
    assert len(task.features([alone], TOKENIZER)[0]) == 3


def test_numbers_are_of_whatever_the_rows_have():
    task = make_task("embed")
    engine = Engine(make_model(task), task, TOKENIZER)
    rows = [example(text="my"), example(text="late", positive="lost")]
    rows += [example(text=f"a {i}", text_pair="b", score=i) for i in range(3)]
    found = task.metrics(list(engine.predict(rows)), rows)
    assert list(found) == list(task.measured(rows))
    assert {"spearman", "mrr@10", "spread"} <= found.keys()
    assert found["recall@1"] == 1, "the only positive there is"
