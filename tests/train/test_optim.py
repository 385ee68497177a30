"""Laws of the optimizer: AdamW or Muon, on fp32 masters, whatever the model computes in."""

import math

import pytest
import torch
from torch import nn

from clozeworks.core.errors import UserError
from clozeworks.train import optim
from clozeworks.train.muon import MOMENTUM
from clozeworks.train.optim import Optimizer
from tiny import CONFIG, DRAW, gap, make_groups, make_model, make_task


def wide_model(seed=0):
    """Matrices, biases, norms and an embedding, some larger than a chunk."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Embedding(3000, 96), nn.Linear(96, 40), nn.LayerNorm(40), nn.Linear(40, 7)
    )


def reference(model):
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1]
    others = [p for n, p in model.named_parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8)


def loss_of(model, step):
    ids = torch.randint(3000, (64,), generator=torch.Generator().manual_seed(step))
    scale = 100.0 if step % 3 == 0 else 0.01  # some steps are clipped, some are not
    return (scale * model(ids).square()).mean()


@pytest.fixture
def told_first(monkeypatch):
    """An optimizer that moves everything before it waits for the norm, as on a GPU."""
    monkeypatch.setattr(Optimizer, "_waits", lambda self: False)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_many_steps_are_those_of_torch(private, waits, monkeypatch):
    """By the kernel they share, and without it; the norm known first, or last."""
    monkeypatch.setattr(Optimizer, "_waits", lambda self: waits)
    if not private:
        monkeypatch.setattr(optim, "_PRIVATE", None)
    assert optim.CHUNK < 3000 * 96
    ours, theirs = wide_model(), wide_model()
    optimizer = Optimizer(ours, torch.float32, decay=0.1, betas=(0.9, 0.98), clip=1.0)
    other = reference(theirs)
    clipped = 0
    for step in range(60):
        rate = 1e-2 * (1 - step / 60)
        loss_of(ours, step).backward()
        norm = optimizer.step(rate)
        for group in other.param_groups:
            group["lr"] = rate
        theirs.zero_grad()
        loss_of(theirs, step).backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        other.step()
        clipped += bool(expected > 1)
        assert norm == pytest.approx(float(expected), rel=1e-4)
    assert 0 < clipped < 60
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert gap(a, b) < 1e-4


def test_biases_and_norms_are_not_decayed():
    model = make_model(make_task("mlm+nsp"))
    optimizer = Optimizer(model, torch.float32, decay=0.5)
    for name, decay in zip(optimizer.names, optimizer.decays, strict=True):
        assert decay == (0.0 if name.endswith("bias") or "norm" in name else 0.5), name
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1)
    for name, old, new in zip(optimizer.names, before, model.parameters(), strict=True):
        still = name.endswith("bias") or "norm" in name
        assert torch.allclose(new, old if still else old * 0.95), name


def test_a_norm_under_the_limit_is_not_clipped_and_zero_never_clips():
    moved = {}
    for clip in (0.0, 1e9, 1e-3):
        model = wide_model()
        optimizer = Optimizer(model, torch.float32, clip=clip, eps=1.0)
        loss_of(model, 0).backward()
        optimizer.step(1e-2)
        moved[clip] = model[3].bias.detach().clone()
    assert torch.equal(moved[0.0], moved[1e9])
    assert not torch.allclose(moved[0.0], moved[1e-3])


def test_sums_over_parts_are_the_gradient_of_the_whole():
    whole, parts = wide_model(), wide_model()
    one, other = Optimizer(whole, torch.float32), Optimizer(parts, torch.float32)
    for step in range(3):
        (loss_of(whole, step) + loss_of(whole, step + 50)).backward()
        for number in (step, step + 50):
            loss_of(parts, number).backward()
            other.accumulate()
        assert one.step(1e-3) == pytest.approx(other.step(1e-3), rel=1e-5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert gap(a, b) < 1e-5


def test_a_bf16_model_follows_fp32_masters():
    model = make_model(make_task("classify"))
    exact = [p.detach().clone() for p in model.parameters()]
    optimizer = Optimizer(model, torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert all(torch.equal(m, e) for m, e in zip(optimizer.masters, exact, strict=True))
    task = make_task("classify")
    batch = task.collate(make_groups(classes=3), DRAW)
    for _ in range(20):  # each too small for bf16 to notice
        task.loss(model, batch, DRAW)["classify"].backward()
        optimizer.step(1e-5)
    for parameter, master, old in zip(model.parameters(), optimizer.masters, exact, strict=True):
        assert torch.equal(parameter, master.to(torch.bfloat16))
        assert not torch.equal(master, old)
    optimizer.release()
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_before_any_harm(bad):
    model = wide_model()
    optimizer = Optimizer(model, torch.float32)
    before = [p.detach().clone() for p in model.parameters()]
    (loss_of(model, 0) * bad).backward()
    with pytest.raises(UserError, match="at step 1; lower the learning rate"):
        optimizer.step(1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.steps == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_where_all_is_told_first_a_gradient_that_is_no_number_stops_all_the_same(told_first, bad):
    model = wide_model()
    optimizer = Optimizer(model, torch.float32)
    for step in range(2):
        loss_of(model, step).backward()
        optimizer.step(1e-3)
    kept = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    (loss_of(model, 2) * bad).backward()
    with pytest.raises(UserError, match="at step 3; lower the learning rate"):
        optimizer.step(1e-3)
    optimizer.load(kept, 2)
    assert all(torch.equal(kept[name], tensor) for name, tensor in optimizer.state().items())
    loss_of(model, 3).backward()
    assert torch.tensor(optimizer.step(1e-3)).isfinite()


def test_a_state_taken_up_goes_on_bit_for_bit():
    def run(model, optimizer, steps):
        for step in steps:
            loss_of(model, step).backward()
            optimizer.step(1e-2)

    straight, first = wide_model(), wide_model()
    run(straight, Optimizer(straight, torch.float32), range(8))
    optimizer = Optimizer(first, torch.float32)
    run(first, optimizer, range(5))
    saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    second = wide_model(seed=9)
    resumed = Optimizer(second, torch.float32)
    resumed.load(saved, steps=5)
    run(second, resumed, range(5, 8))
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_tiny_model_is_what_these_laws_are_about():
    assert sum(p.dim() < 2 for p in make_model(make_task("mlm")).parameters()) > CONFIG.num_layers


def muon_of(model, dtype=torch.float32):
    hidden = model.encoder.hidden_matrices()
    return Optimizer(model, dtype, decay=0.1, betas=(0.9, 0.98), clip=1.0, hidden=hidden)


def train_on(model, optimizer, steps):
    task = make_task("mlm+nsp")
    for step in steps:
        batch = task.collate(make_groups(seed=step), DRAW)
        sum(task.loss(model, batch, DRAW).values()).backward()
        optimizer.step(1e-2 / (1 + step))


def test_muon_moves_each_hidden_matrix_as_torchs_and_the_rest_as_adamw():
    task = make_task("mlm+nsp")
    ours, theirs = make_model(task), make_model(task)
    cut = {n: p for n, p in theirs.named_parameters() if ".layers." in n and p.dim() == 2}
    assert len(cut) == 4 * CONFIG.num_layers
    masters = {  # queries, keys and values are three matrices, not one
        n: [v.detach().clone() for v in p.chunk(3 if "qkv" in n else 1)] for n, p in cut.items()
    }
    views = [view for made in masters.values() for view in made]
    muon = torch.optim.Muon(views, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    rest = [p for n, p in theirs.named_parameters() if n not in cut]
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    train_on(ours, muon_of(ours), range(6))
    for step in range(6):
        batch = task.collate(make_groups(seed=step), DRAW)
        theirs.zero_grad()
        sum(task.loss(theirs, batch, DRAW).values()).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = 1e-2 / (1 + step)
        for name, made in masters.items():
            for view, grad in zip(made, cut[name].grad.chunk(len(made)), strict=True):
                view.grad = grad
        muon.step()
        adamw.step()
        for name, made in masters.items():
            cut[name].data.copy_(torch.cat(made))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert gap(a, b) < 1e-2  # torch turns the matrices in bf16


def test_muon_and_adamw_told_all_before_the_norm_is_known_move_alike(monkeypatch):
    first, last = (make_model(make_task("mlm+nsp")) for _ in range(2))
    train_on(first, muon_of(first), range(6))
    monkeypatch.setattr(Optimizer, "_waits", lambda self: False)
    train_on(last, muon_of(last), range(6))
    for a, b in zip(first.parameters(), last.parameters(), strict=True):
        assert gap(a, b) < 1e-5


@pytest.mark.parametrize("waits", [True, False])
def test_what_muon_remembers_is_of_clipped_gradients(waits, monkeypatch):
    """Its steps are of one length whatever the gradient's; only its memory tells."""
    monkeypatch.setattr(Optimizer, "_waits", lambda self: waits)
    model = make_model(make_task("mlm+nsp"))
    optimizer = Optimizer(model, torch.float32, clip=1e-3, hidden=model.encoder.hidden_matrices())
    train_on(model, optimizer, [0])
    kept = optimizer.state()
    turned = [n for n, parts in zip(optimizer.names, optimizer.parts, strict=True) if parts]
    size = math.sqrt(sum(float(kept[f"first.{name}"].square().sum()) for name in turned))
    assert 0 < size <= (1 - MOMENTUM) * 1e-3 * 1.001


def test_without_a_gradient_for_muon_the_rest_moves():
    model = make_model(make_task("mlm+nsp"))
    for matrix in model.encoder.hidden_matrices():
        matrix.requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    train_on(model, muon_of(model), range(2))
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new) != new.requires_grad


def test_muon_taken_up_goes_on_bit_for_bit():
    straight, first, second = (make_model(make_task("mlm+nsp"), seed=i) for i in (0, 0, 9))
    train_on(straight, muon_of(straight, torch.bfloat16), range(6))
    optimizer = muon_of(first, torch.bfloat16)
    train_on(first, optimizer, range(4))
    saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    resumed = muon_of(second, torch.bfloat16)
    resumed.load(saved, steps=4)
    train_on(second, resumed, range(4, 6))
    assert all(map(torch.equal, straight.parameters(), second.parameters()))
    turned = [n for n, parts in zip(optimizer.names, optimizer.parts, strict=True) if parts]
    assert turned and not any(f"second.{name}" in saved for name in turned)


def sparse_of(model, dtype=torch.float32, sparse=True):
    embeddings = model.encoder.embeddings
    embeddings.sparse = sparse
    named = embeddings.tokens.weight if sparse else None
    return Optimizer(model, dtype, decay=0.5, eps=1e-2, clip=1.0, sparse=named)


def classify_on(model, optimizer, steps, parts=1):
    """Steps that read ever other words; each batch is read in so many parts."""
    task = make_task("classify")
    for step in steps:
        groups = make_groups([5, 9, 4, 7], seed=step, classes=3)
        for number in range(parts):
            batch = task.collate(groups[number::parts], DRAW)
            optimizer.reach(batch.input_ids)
            task.loss(model, batch, DRAW)["classify"].backward()
            if parts > 1:
                optimizer.accumulate()
        optimizer.step(1e-2)


@pytest.mark.parametrize("parts", [1, 2])
def test_updating_only_rows_ever_read_is_updating_all(parts, monkeypatch):
    monkeypatch.setattr(optim, "CHUNK", 3 * CONFIG.hidden_size)  # rows come in several chunks
    dense, few = make_model(make_task("classify")), make_model(make_task("classify"))
    one, other = sparse_of(dense, sparse=False), sparse_of(few)
    classify_on(dense, one, range(3), parts)
    classify_on(few, other, range(3), parts)
    unread = (~other._reached.reached).nonzero().flatten()
    assert 5 < len(unread) < CONFIG.vocab_size - 5
    weight = few.encoder.embeddings.tokens.weight
    assert not torch.allclose(weight[unread], dense.encoder.embeddings.tokens.weight[unread])
    classify_on(dense, one, range(3, 12), parts)
    classify_on(few, other, range(3, 12), parts)
    other.settle()
    for a, b in zip(few.parameters(), dense.parameters(), strict=True):
        assert gap(a, b) < 1e-5


def test_rows_taken_up_go_on_bit_for_bit():
    straight, first, second = (make_model(make_task("classify"), seed=i) for i in (0, 0, 9))
    whole = sparse_of(straight, torch.bfloat16)
    classify_on(straight, whole, range(3))
    whole.settle()
    classify_on(straight, whole, range(3, 8))
    optimizer = sparse_of(first, torch.bfloat16)
    classify_on(first, optimizer, range(3))
    optimizer.settle()
    classify_on(first, optimizer, range(3, 5))
    saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    resumed = sparse_of(second, torch.bfloat16)
    resumed.load(saved, steps=5)
    classify_on(second, resumed, range(5, 8))
    whole.release(), resumed.release()
    assert all(map(torch.equal, straight.parameters(), second.parameters()))
