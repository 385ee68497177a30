"""Laws of the optimizer: it is AdamW, on fp32 masters, whatever the model computes in."""

import pytest
import torch
from torch import nn

from clozeworks.core.errors import UserError
from clozeworks.train import optim
from clozeworks.train.optim import AdamW
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


def test_many_steps_are_those_of_torch():
    assert optim.CHUNK < 3000 * 96
    ours, theirs = wide_model(), wide_model()
    optimizer = AdamW(ours, torch.float32, decay=0.1, betas=(0.9, 0.98), clip=1.0)
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
    optimizer = AdamW(model, torch.float32, decay=0.5)
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
        optimizer = AdamW(model, torch.float32, clip=clip, eps=1.0)
        loss_of(model, 0).backward()
        optimizer.step(1e-2)
        moved[clip] = model[3].bias.detach().clone()
    assert torch.equal(moved[0.0], moved[1e9])
    assert not torch.allclose(moved[0.0], moved[1e-3])


def test_sums_over_parts_are_the_gradient_of_the_whole():
    whole, parts = wide_model(), wide_model()
    one, other = AdamW(whole, torch.float32), AdamW(parts, torch.float32)
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
    optimizer = AdamW(model, torch.bfloat16)
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
    optimizer = AdamW(model, torch.float32)
    before = [p.detach().clone() for p in model.parameters()]
    (loss_of(model, 0) * bad).backward()
    with pytest.raises(UserError, match="at step 1; lower the learning rate"):
        optimizer.step(1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.steps == 0


def test_a_state_taken_up_goes_on_bit_for_bit():
    def run(model, optimizer, steps):
        for step in steps:
            loss_of(model, step).backward()
            optimizer.step(1e-2)

    straight, first = wide_model(), wide_model()
    run(straight, AdamW(straight, torch.float32), range(8))
    optimizer = AdamW(first, torch.float32)
    run(first, optimizer, range(5))
    saved = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    second = wide_model(seed=9)
    resumed = AdamW(second, torch.float32)
    resumed.load(saved, steps=5)
    run(second, resumed, range(5, 8))
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_tiny_model_is_what_these_laws_are_about():
    assert sum(p.dim() < 2 for p in make_model(make_task("mlm")).parameters()) > CONFIG.num_layers
