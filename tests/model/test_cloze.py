"""Laws of the masked-token loss: it is cross-entropy, in value and in every gradient; of draws."""

import math

import pytest
import torch
import torch.nn.functional as F

from clozeworks.model import cloze
from clozeworks.model.cloze import (
    ALIGNED,
    ROWS_AT_ONCE,
    Lots,
    Workspace,
    cloze_loss,
    cloze_loss_and_draws,
    cloze_right,
)
from tiny import gap


def parts(rows=50, size=300, width=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, width, generator=generator)
    weight = torch.randn(size, width, generator=generator)
    bias = torch.randn(size, generator=generator)
    labels = torch.randint(size, (rows,), generator=generator)
    made = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
    return made, labels


def reference(given, labels, smoothing=0.0):
    exact = [t.detach().double().requires_grad_() for t in given]
    x, weight, bias = exact
    logits = F.linear(x, weight, bias)
    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    loss.backward()
    return loss.detach(), [t.grad for t in exact]


@pytest.fixture(params=[1, ALIGNED], ids=["as it is", "aligned"])
def rounded_up(request, monkeypatch):
    """The vocabulary of 300 as it is, and rounded up as on a GPU."""
    monkeypatch.setattr(cloze, "_multiple", lambda device: request.param)


@pytest.mark.usefixtures("rounded_up")
@pytest.mark.parametrize("rows", [1, 50, ROWS_AT_ONCE + 7])
@pytest.mark.parametrize(("share", "smoothing"), [(1.0, 0.0), (0.37, 0.0), (1.0, 0.1)])
def test_value_and_gradients_are_those_of_cross_entropy(rows, share, smoothing):
    given, labels = parts(rows)
    expected, gradients = reference(given, labels, smoothing)
    loss = cloze_loss(*given, labels, Workspace(), smoothing)
    (loss * share).backward()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(given, gradients, strict=True):
        assert gap(ours.grad.double(), theirs * share) < 1e-5


def test_the_gradient_is_the_derivative_by_finite_differences():
    given, labels = parts(rows=6, size=11, width=5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(cloze_loss(*given, labels, Workspace()), given[:1])
    step = 1e-3
    with torch.no_grad():
        for i, j in [(0, 0), (3, 2), (5, 4)]:
            nudge = torch.zeros_like(given[0])
            nudge[i, j] = step
            losses = [
                F.cross_entropy(
                    F.linear(given[0] + sign * nudge, *given[1:]), labels, reduction="sum"
                )
                for sign in (1, -1)
            ]
            slope = (losses[0] - losses[1]) / (2 * step)
            assert float(gradient[i, j]) == pytest.approx(float(slope), rel=1e-4, abs=1e-6)


def test_a_lower_precision_stays_close():
    given, labels = parts(rows=400, dtype=torch.bfloat16)
    expected, gradients = reference(given, labels)
    loss = cloze_loss(*given, labels, Workspace())
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(expected), rel=5e-3)
    for ours, theirs in zip(given, gradients, strict=True):
        assert gap(ours.grad.double(), theirs) < 0.03


def test_the_loss_without_gradients_is_the_same_loss():
    given, labels = parts(rows=ROWS_AT_ONCE + 3)
    trained = cloze_loss(*given, labels, Workspace())
    with torch.no_grad():
        judged = cloze_loss(*given, labels, Workspace())
    assert judged.item() == pytest.approx(trained.item(), rel=1e-5)


def test_a_shared_workspace_does_not_mix_two_losses():
    space = Workspace()
    (first, labels), (second, others) = parts(rows=60), parts(rows=20)
    a = cloze_loss(*first, labels, space)
    b = cloze_loss(*second, others, space)
    (a + b).backward()
    for given, gold in ((first, labels), (second, others)):
        for ours, theirs in zip(given, reference(given, gold)[1], strict=True):
            assert gap(ours.grad.double(), theirs) < 1e-5


def test_the_workspace_is_one_buffer_that_grows():
    space, like = Workspace(), torch.zeros(7, 3)
    large = space.logits(10, like)
    assert large.shape == (10, 7)
    assert space.logits(4, like).data_ptr() == large.data_ptr()
    assert space.logits(11, like).shape == (11, 7)
    assert space.logits(2, like.bfloat16()).dtype == torch.bfloat16


@pytest.mark.usefixtures("rounded_up")
def test_rows_past_the_labels_count_for_nothing():
    (x, weight, bias), labels = parts(rows=40)
    expected, gradients = reference((x[:33], weight, bias), labels[:33])
    loss = cloze_loss(x, weight, bias, labels[:33], Workspace())
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert x.grad[33:].abs().max() == 0
    for ours, theirs in zip((x.grad[:33], weight.grad, bias.grad), gradients, strict=True):
        assert gap(ours.double(), theirs) < 1e-5
    with torch.no_grad():
        judged = cloze_loss(x, weight, bias, labels[:33], Workspace())
    assert judged.item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_rows_cost_nothing_and_can_be_differentiated():
    (x, weight, bias), labels = parts(rows=3)
    loss = cloze_loss(x[:0], weight, bias, labels[:0], Workspace())
    assert loss.item() == 0
    loss.backward()
    assert x.grad.abs().sum() == 0


# === What is right, and what is drawn ===


def test_the_likeliest_tokens_that_are_right_are_counted():
    (x, weight, bias), labels = parts(rows=ROWS_AT_ONCE + 40)
    best = F.linear(x, weight, bias).argmax(1)
    labels[::3] = best[::3]
    right = cloze_right(x, weight, bias, labels[:-5])
    assert int(right) == int((best == labels)[:-5].sum()) >= len(labels[::3]) - 2


def drawn(logits, places, barred=(), *, graded=False, dtype=torch.float32):
    """Tokens drawn for each place from the softmax of one row of logits."""
    x = torch.ones(len(places), 1, dtype=dtype, requires_grad=graded)
    weight = torch.tensor(logits, dtype=dtype)[:, None]
    bias, labels = torch.zeros(len(logits), dtype=dtype), torch.zeros(len(places)).long()
    lots = Lots(torch.as_tensor(places, dtype=torch.float64), torch.tensor(barred).long())
    return cloze_loss_and_draws(x, weight, bias, labels, Workspace(), lots)[1]


@pytest.mark.usefixtures("rounded_up")
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_are_drawn_as_often_as_they_are_likely(graded, dtype):
    logits = [0.0, 2.0, -30.0, 1.0, -1.0, 3.0]
    count = 40_000
    places = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = drawn(logits, places, barred=[5], graded=graded, dtype=dtype).bincount(minlength=6)
    expected = torch.softmax(torch.tensor([*logits[:5], -math.inf]), 0)
    assert found[2] == found[5] == 0
    for share, wanted in zip((found / count).tolist(), expected.tolist(), strict=True):
        # a probability in bf16 is rounded by up to one part in 256
        rounding = wanted / 256 if dtype == torch.bfloat16 else 0.0
        room = 4 * math.sqrt(wanted * (1 - wanted) / count) + rounding
        assert abs(share - wanted) <= room


@pytest.mark.usefixtures("rounded_up")
def test_a_draw_is_a_function_of_its_place_that_never_leaves_the_vocabulary():
    logits = [-200.0, 0.0, 0.0, -200.0]
    places = [0.0, 0.25, 0.4999, 0.5001, math.nextafter(1, 0)]
    assert drawn(logits, places).tolist() == [1, 1, 1, 2, 2]
    assert drawn(logits, places, barred=[1]).tolist() == [2] * 5
    many = torch.rand(ROWS_AT_ONCE + 9, generator=torch.Generator().manual_seed(1))
    together = drawn([0.3, 0.1, 0.9, -0.5], many)
    alone = [int(drawn([0.3, 0.1, 0.9, -0.5], [place])) for place in many[-20:]]
    assert together[-20:].tolist() == alone
    assert drawn(logits, []).tolist() == []


@pytest.mark.usefixtures("rounded_up")
def test_drawing_changes_neither_the_loss_nor_its_gradients():
    given, labels = parts(rows=70)
    expected, gradients = reference(given, labels)
    lots = Lots(torch.rand(70, dtype=torch.float64), torch.tensor([1, 2]))
    loss, tokens = cloze_loss_and_draws(*given, labels, Workspace(), lots)
    assert tokens.dtype == torch.int64 and not tokens.requires_grad
    loss.backward()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(given, gradients, strict=True):
        assert gap(ours.grad.double(), theirs) < 1e-5
