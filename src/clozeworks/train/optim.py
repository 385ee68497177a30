"""AdamW and Muon over fp32 masters, whatever dtype the model computes in."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from clozeworks.core.errors import UserError
from clozeworks.train.muon import Turned, turn
from clozeworks.train.rows import Rows, no_rows_of, settled

CHUNK = 1 << 18
"""Values that a CPU updates at a time: master, gradient and both moments then stay in its cache."""
GPU_CHUNK = 1 << 24
"""A GPU is asked less often, and holds little more."""
_PRIVATE = getattr(torch, "_fused_adamw_", None)
"""torch's own kernel for a step of AdamW; a later torch may have none."""


Rule = Literal["adamw", "muon"]
Tensors = list[Tensor]


class Diverged(UserError):
    """The gradient is no longer finite: as it is, the run cannot go on."""


class _Piece(NamedTuple):
    """Some values of one parameter that AdamW moves, as flat views."""

    master: Tensor
    first: Tensor
    second: Tensor
    working: Tensor
    decay: float
    place: slice


class Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) and global norm clipping.

    Masters and moments are fp32; the model's own parameters are rounded copies in `dtype`. Biases
    and LayerNorm weights are not decayed. Bias correction is on.

    With the rule "muon" the matrices named in `hidden` (see `Encoder.hidden_matrices`) move by
    their orthogonalised momentum instead (Jordan et al. 2024), scaled to what a step of AdamW
    measures (Liu et al. 2025), so that one learning rate serves both.

    Of an embedding named in `sparse`, whose gradients hold only the rows that were read, only rows
    ever read are updated; what all others would become is known without (see `Rows`).
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        *,
        decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip: float = 1.0,
        hidden: Mapping[Tensor, int] | None = None,
        sparse: Tensor | None = None,
    ) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        turned = {id(p): parts for p, parts in (hidden or {}).items()}
        self.parts = [turned.get(id(p), 0) for p in self.parameters]
        """Of how many matrices each parameter consists that Muon moves; 0: AdamW moves it."""
        self.masters = self._make_masters()
        self.working = self._make_working(dtype)
        """What the model computes with: rounded copies, or the masters themselves."""
        self.first = [torch.zeros_like(m) for m in self.masters]
        self.second = [
            torch.zeros_like(m) if not parts else torch.zeros(0, device=m.device)
            for m, parts in zip(self.masters, self.parts, strict=True)
        ]
        undecayed = set(map(id, _undecayed(model)))
        self.decays = [0.0 if id(p) in undecayed else decay for p in self.parameters]
        self.betas, self.eps, self.clip = betas, eps, clip
        self.steps = 0
        self._sums: list[Tensor] = []
        """Where gradients of several passes are summed; kept, since making it anew costs more."""
        self._summed = False
        device = self.masters[0].device
        self._chunk = CHUNK if device.type == "cpu" else GPU_CHUNK
        self._scratch = torch.empty(self._chunk, device=device)
        """A chunk of gradient in fp32; used again and again, so that it stays in the cache."""
        self._count = torch.zeros((), device=device)
        """`steps` where torch's kernel wants it."""
        self._pieces = [self._cut(i) for i in range(len(self.parameters))]
        self._turned = {
            i: Turned(self.masters[i], self.first[i], parts, self.decays[i])
            for i, parts in enumerate(self.parts)
            if parts
        }
        self._sparse = next((i for i, p in enumerate(self.parameters) if p is sparse), -1)
        self._reached: Rows | None = None
        if sparse is not None:
            self._reached = Rows(self.masters[self._sparse], self.working[self._sparse])

    def _make_masters(self) -> list[Tensor]:
        return [p.detach().clone().float() for p in self.parameters]

    def _make_working(self, dtype: torch.dtype) -> list[Tensor]:
        working = [m if dtype == torch.float32 else m.to(dtype) for m in self.masters]
        for parameter, tensor in zip(self.parameters, working, strict=True):
            parameter.data = tensor
        return working

    def reach(self, ids: Tensor) -> None:
        """Say which tokens [T] are about to be read; must come before every forward pass."""
        if self._reached is not None:
            self._reached.reach(ids)

    def settle(self) -> None:
        """Bring every weight up to date, also those that no gradient has reached."""
        if self._reached is not None:
            self._reached.settle()

    def accumulate(self) -> None:
        """Move the parameters' gradients into fp32 sums, between the micro-batches of a step."""
        if not self._summed:
            self._begin_sums()
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is not None and parameter.grad.is_sparse:
                self._sums[i] = self._sums[i] + parameter.grad.float()
            elif parameter.grad is not None:
                self._sums[i] += parameter.grad
            parameter.grad = None

    def _begin_sums(self) -> None:
        """Zeros to add to; of an embedding whose gradients are rows, none yet."""
        if not self._sums:
            rows = self._reached is not None
            self._sums = [
                m[:0] if rows and i == self._sparse else torch.empty_like(m)
                for i, m in enumerate(self.masters)
            ]
        for total in self._sums:
            total.zero_()
        if self._reached is not None:
            self._sums[self._sparse] = no_rows_of(self.masters[self._sparse])
        self._summed = True

    @property
    def sums(self) -> list[Tensor]:
        """What was accumulated so far in this step; to be added to before the step is taken."""
        return self._sums if self._summed else []

    def _gradients(self) -> list[Tensor | None]:
        if not self._summed:
            return [p.grad for p in self.parameters]
        self.accumulate()
        return list(self._sums)

    def _norm(self, gradients: list[Tensor | None]) -> Tensor:
        return sum_of_squares([g for g in gradients if g is not None]).sqrt()

    def step(self, rate: float) -> float:
        """Update once with learning rate `rate`; return the gradient norm before clipping.

        Raises Diverged if the gradient is not finite. Nothing has moved then where the norm is
        waited for; elsewhere everything has, and a state has to be loaded.
        """
        gradients = self._gradients()
        found = self._norm(gradients)
        if self._waits():
            norm = self._finite(found, self.steps + 1)
            self._move(gradients, rate, float(self._scale(found)))
            return norm
        self._move(gradients, rate, self._scale(found).float())
        return self._finite(found, self.steps)

    def _waits(self) -> bool:
        """Whether the norm is known before anything moves; a GPU is told all it has to do first."""
        return self.masters[0].device.type == "cpu"

    def _scale(self, norm: Tensor) -> Tensor:
        """What gradients are multiplied with, so that their norm is at most `clip`."""
        if self.clip <= 0:
            return torch.ones_like(norm)
        return (self.clip / (norm + 1e-6)).clamp_max(1.0)

    def _finite(self, found: Tensor, step: int) -> float:
        """The norm that was found, waited for; raises Diverged if it is no number."""
        norm = float(found)
        if not math.isfinite(norm):
            raise Diverged(
                f"the gradient became {norm} at step {step}; lower the learning rate "
                "(and choose another --out)"
            )
        return norm

    def _move(self, gradients: list[Tensor | None], rate: float, scale: float | Tensor) -> None:
        """Update everything that has a gradient, by gradients times `scale`."""
        self.steps += 1
        with torch.no_grad():
            self._count.fill_(self.steps)
            dense: dict[int, Tensor] = {}
            for i, gradient in enumerate(gradients):
                if gradient is not None and gradient.is_sparse:
                    self._update_rows(i, gradient.coalesce(), rate, scale)
                elif gradient is not None and not self.parts[i]:
                    dense[i] = gradient
            for pieces, parts in self._together(dense):
                self._update(pieces, parts, rate, scale)
            self._turn(gradients, rate, scale)
        self._summed = False
        for parameter in self.parameters:
            parameter.grad = None

    def _cut(self, i: int) -> list[_Piece]:
        """A parameter that AdamW moves, in pieces of at most a chunk."""
        if self.parts[i]:
            return []
        master, first, second, working = (
            tensor.view(-1).split(self._chunk)
            for tensor in (self.masters[i], self.first[i], self.second[i], self.working[i])
        )
        return [
            _Piece(*held, self.decays[i], slice(n * self._chunk, (n + 1) * self._chunk))
            for n, held in enumerate(zip(master, first, second, working, strict=True))
        ]

    def _together(self, gradients: dict[int, Tensor]) -> Iterator[tuple[list[_Piece], Tensors]]:
        """Pieces of one decay and their gradients, at a time as many as a chunk holds."""
        found = [(p, g.reshape(-1)[p.place]) for i, g in gradients.items() for p in self._pieces[i]]
        for _, alike in groupby(sorted(found, key=_decay), _decay):
            pieces: list[_Piece] = []
            parts: Tensors = []
            room = self._chunk
            for piece, part in alike:
                if len(part) > room:
                    yield pieces, parts
                    pieces, parts, room = [], [], self._chunk
                pieces.append(piece)
                parts.append(part)
                room -= len(part)
            yield pieces, parts

    def _update(
        self, pieces: list[_Piece], gradients: list[Tensor], rate: float, scale: float | Tensor
    ) -> None:
        """Update pieces of one decay, and round their masters into the model."""
        lengths = [len(gradient) for gradient in gradients]
        scaled = list(self._scratch[: sum(lengths)].split(lengths))
        torch._foreach_copy_(scaled, gradients)
        if isinstance(scale, Tensor) or scale < 1:
            torch._foreach_mul_(scaled, scale)
        masters, firsts, seconds, workings, *_ = map(list, zip(*pieces, strict=True))
        self._adamw((masters, firsts, seconds), scaled, rate, pieces[0].decay)
        if workings[0].dtype != masters[0].dtype:
            torch._foreach_copy_(workings, masters)

    def _update_rows(self, i: int, gradient: Tensor, rate: float, scale: float | Tensor) -> None:
        """The same for the rows ever read; every other one only decays, by the same factor."""
        rows = self._reached
        assert rows is not None, "a gradient of rows, of a parameter that was not named"
        width = gradient.shape[1]
        read, values = gradient.indices()[0], gradient.values()
        wholes = (self.masters[i], self.first[i], self.second[i])
        for active in rows.active.split(max(1, self._chunk // width)):
            begin, end = torch.searchsorted(read, active[[0, -1]]).tolist()
            end += int(end < len(read) and read[end] == active[-1])
            scaled = self._scratch[: len(active) * width].view(-1, width).zero_()
            scaled[torch.searchsorted(active, read[begin:end])] = values[begin:end].float() * scale
            master, first, second = (whole.index_select(0, active) for whole in wholes)
            self._adamw(([master], [first], [second]), [scaled], rate, self.decays[i])
            for whole, part in zip(wholes, (master, first, second), strict=True):
                whole.index_copy_(0, active, part)
            if self.working[i] is not self.masters[i]:
                self.working[i].index_copy_(0, active, master.to(self.working[i].dtype))
        rows.decay(1 - rate * self.decays[i])

    def _adamw(
        self, held: tuple[Tensors, Tensors, Tensors], gradients: Tensors, rate: float, decay: float
    ) -> None:
        """One step of AdamW for (masters, first moments, second moments), all fp32, in place."""
        beta1, beta2 = self.betas
        if _PRIVATE is not None:
            _PRIVATE(
                held[0],
                gradients,
                *held[1:],
                [],
                [self._count] * len(gradients),
                lr=rate,
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )
            return
        for master, first, second, gradient in zip(*held, gradients, strict=True):
            master.mul_(1 - rate * decay)
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            below = (second.sqrt() / math.sqrt(1 - beta2**self.steps)).add_(self.eps)
            master.addcdiv_(first, below, value=-rate / (1 - beta1**self.steps))

    def _turn(self, gradients: list[Tensor | None], rate: float, scale: float | Tensor) -> None:
        """Update what Muon moves, and round the masters into the model."""
        found = {i: g for i in self._turned if (g := gradients[i]) is not None}
        if not found:
            return
        scaled = [torch.empty_like(self.masters[i]) for i in found]
        torch._foreach_copy_(scaled, list(found.values()))
        torch._foreach_mul_(scaled, scale)
        turn([self._turned[i] for i in found], scaled, rate)
        self._round(found)

    def _round(self, which: Iterable[int]) -> None:
        """Round some masters into what the model computes with."""
        apart = [i for i in which if self.working[i] is not self.masters[i]]
        if apart:
            working, masters = ([held[i] for i in apart] for held in (self.working, self.masters))
            torch._foreach_copy_(working, masters)

    def forget(self) -> None:
        """Be as new, the weights as they are: what trying out steps at rate 0 left is dropped."""
        for moment in (*self.first, *self.second):
            moment.zero_()
        if self._reached is not None:
            self._reached.forget()
        self.steps = 0

    def wholes(self) -> Iterator[Tensor]:
        """The fp32 masters, whole, one after another."""
        yield from self.masters

    def release(self) -> None:
        """Give the model its fp32 masters for good."""
        self.settle()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data = master

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Let the model have its fp32 masters inside the block."""
        self.release()
        try:
            yield
        finally:
            for parameter, working in zip(self.parameters, self.working, strict=True):
                parameter.data = working

    def _kept(self) -> dict[str, list[Tensor]]:
        """Everything a checkpoint holds, by kind: a tensor for each parameter, or an empty one."""
        return {"master": self.masters, "first": self.first, "second": self.second}

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, to be saved."""
        rows = {} if self._reached is None else self._reached.state(self.names[self._sparse])
        return rows | {
            f"{kind}.{name}": tensor
            for kind, tensors in self._kept().items()
            for name, tensor in zip(self.names, tensors, strict=True)
            if tensor.numel()
        }

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take up a saved state; the model's parameters follow."""
        with torch.no_grad():
            if self._reached is None:
                state = settled(state)
            else:
                self._reached.load(state, self.names[self._sparse])
            for kind, tensors in self._kept().items():
                for name, tensor in zip(self.names, tensors, strict=True):
                    if tensor.numel():
                        tensor.copy_(state[f"{kind}.{name}"])
            self._round(range(len(self.masters)))
        self.steps = steps


def _decay(found: tuple[_Piece, Tensor]) -> float:
    return found[0].decay


def sum_of_squares(gradients: list[Tensor]) -> Tensor:
    """Of all gradients together: each one's own norm taken in its dtype, summed in fp64."""
    if not gradients:
        return torch.zeros((), dtype=torch.float64)
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    return torch.stack(torch._foreach_norm(dense)).double().square().sum()


def _undecayed(model: nn.Module) -> Iterable[nn.Parameter]:
    """Parameters of LayerNorms and everything one-dimensional: by kind, not by name."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.LayerNorm) or parameter.dim() < 2:
                yield parameter
