"""AdamW and Muon over fp32 masters, whatever dtype the model computes in."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Muon

from clozeworks.core.errors import UserError
from clozeworks.train.rows import Rows

CHUNK = 1 << 18
"""Values updated at a time: master, gradient and both moments then stay in the cache."""


Rule = Literal["adamw", "muon"]


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
        self.masters = [p.detach().clone().float() for p in self.parameters]
        turned = {id(p): parts for p, parts in (hidden or {}).items()}
        self.parts = [turned.get(id(p), 0) for p in self.parameters]
        """Of how many matrices each parameter consists that Muon moves; 0: AdamW moves it."""
        self.first = [torch.zeros_like(m) for m in self.masters]
        self.second = [
            torch.zeros_like(m) if not parts else torch.zeros(0, device=m.device)
            for m, parts in zip(self.masters, self.parts, strict=True)
        ]
        undecayed = set(map(id, _undecayed(model)))
        self.decays = [0.0 if id(p) in undecayed else decay for p in self.parameters]
        self.betas, self.eps, self.clip = betas, eps, clip
        self.steps = 0
        self._sums: list[Tensor] | None = None
        self._scratch = torch.empty(CHUNK, device=self.masters[0].device)
        """A chunk of gradient in fp32; used again and again, so that it stays in the cache."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data = master if dtype == torch.float32 else master.to(dtype)
        self._muon = self._turning() if any(self.parts) else None
        self._sparse = next((i for i, p in enumerate(self.parameters) if p is sparse), -1)
        self._rows: Rows | None = None
        if sparse is not None:
            self._rows = Rows(self.masters[self._sparse], sparse.data)

    def _turning(self) -> Muon:
        """torch's Muon over views of the masters, its momentum in views of ours."""
        groups: list[dict[str, Any]] = []
        momenta: list[tuple[Tensor, Tensor]] = []
        for i, parts in enumerate(self.parts):
            if parts:
                views = self.masters[i].chunk(parts)
                groups.append({"params": views, "weight_decay": self.decays[i]})
                momenta += zip(views, self.first[i].chunk(parts), strict=True)
        made = Muon(groups, adjust_lr_fn="match_rms_adamw")
        for view, momentum in momenta:
            made.state[view]["momentum_buffer"] = momentum
        return made

    def reach(self, ids: Tensor) -> None:
        """Say which tokens [T] are about to be read; must come before every forward pass."""
        if self._rows is not None:
            self._rows.reach(ids)

    def settle(self) -> None:
        """Bring every weight up to date, also those that no gradient has reached."""
        if self._rows is not None:
            self._rows.settle()

    def accumulate(self) -> None:
        """Move the parameters' gradients into fp32 sums, between the micro-batches of a step."""
        if self._sums is None:
            self._sums = [torch.zeros_like(m) for m in self.masters]
            if self._rows is not None:
                master = self.masters[self._sparse]
                self._sums[self._sparse] = _no_rows_of(master)
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is not None and parameter.grad.is_sparse:
                self._sums[i] = self._sums[i] + parameter.grad.float()
            elif parameter.grad is not None:
                self._sums[i] += parameter.grad
            parameter.grad = None

    def _gradients(self) -> list[Tensor | None]:
        if self._sums is None:
            return [p.grad for p in self.parameters]
        self.accumulate()
        return list(self._sums)

    def step(self, rate: float) -> float:
        """Update once with learning rate `rate`; return the gradient norm before clipping.

        Raises UserError if the gradient is not finite; nothing is updated then.
        """
        gradients = self._gradients()
        norm = _norm([g for g in gradients if g is not None])
        scale = min(1.0, self.clip / (norm + 1e-6)) if self.clip > 0 else 1.0
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient became {norm} at step {self.steps + 1}; lower the learning rate "
                "(and choose another --out)"
            )
        self.steps += 1
        with torch.no_grad():
            for i, gradient in enumerate(gradients):
                if gradient is not None and gradient.is_sparse:
                    self._update_rows(i, gradient.coalesce(), rate, scale)
                elif gradient is not None and not self.parts[i]:
                    self._update(i, gradient, rate, scale)
            if self._muon is not None:
                self._turn(gradients, rate, scale)
        self._sums = None
        for parameter in self.parameters:
            parameter.grad = None
        return norm

    def _update(self, i: int, gradient: Tensor, rate: float, scale: float) -> None:
        """Update one parameter, chunk by chunk, and round its master into the model."""
        flat = (self.masters[i], gradient, self.first[i], self.second[i], self.parameters[i].data)
        for master, grad, first, second, working in zip(
            *(t.reshape(-1).split(CHUNK) for t in flat), strict=True
        ):
            scaled = self._scratch[: len(grad)].copy_(grad)
            self._adamw((master, first, second), scaled.mul_(scale), rate, self.decays[i])
            if working.dtype != master.dtype:
                working.copy_(master)

    def _update_rows(self, i: int, gradient: Tensor, rate: float, scale: float) -> None:
        """The same for the rows ever read; every other one only decays, by the same factor."""
        rows = self._rows
        assert rows is not None, "a gradient of rows, of a parameter that was not named"
        width = gradient.shape[1]
        read, values = gradient.indices()[0], gradient.values()
        for active in rows.active.split(max(1, CHUNK // width)):
            begin, end = torch.searchsorted(read, active[[0, -1]]).tolist()
            begin, end = begin, end + int(end < len(read) and read[end] == active[-1])
            scaled = self._scratch[: len(active) * width].view(-1, width).zero_()
            scaled[torch.searchsorted(active, read[begin:end])] = values[begin:end].float() * scale
            held = [t[active] for t in (self.masters[i], self.first[i], self.second[i])]
            self._adamw((held[0], held[1], held[2]), scaled, rate, self.decays[i])
            for whole, part in zip(
                (self.masters[i], self.first[i], self.second[i]), held, strict=True
            ):
                whole[active] = part
            if self.parameters[i].dtype != held[0].dtype:
                self.parameters[i].data[active] = held[0].to(self.parameters[i].dtype)
        rows.decay(1 - rate * self.decays[i])

    def _adamw(
        self, held: tuple[Tensor, Tensor, Tensor], gradient: Tensor, rate: float, decay: float
    ) -> None:
        """One step of AdamW for a (master, first moment, second moment), all fp32, in place."""
        master, first, second = held
        torch._fused_adamw_(
            [master],
            [gradient],
            [first],
            [second],
            [],
            [torch.tensor(float(self.steps), device=master.device)],
            lr=rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _turn(self, gradients: list[Tensor | None], rate: float, scale: float) -> None:
        """Update what Muon moves, and round the masters into the model."""
        assert self._muon is not None
        turned = [i for i, parts in enumerate(self.parts) if parts]
        for i, group in zip(turned, self._muon.param_groups, strict=True):
            group["lr"], gradient = rate, gradients[i]
            if gradient is None:
                continue
            parts = (gradient.float() * scale).chunk(self.parts[i])
            for view, part in zip(group["params"], parts, strict=True):
                view.grad = part
        self._muon.step()
        for i, group in zip(turned, self._muon.param_groups, strict=True):
            for view in group["params"]:
                view.grad = None
            if self.parameters[i].dtype != self.masters[i].dtype:
                self.parameters[i].copy_(self.masters[i])

    def forget(self) -> None:
        """Be as new, the weights as they are: what trying out steps at rate 0 left is dropped."""
        for moment in (*self.first, *self.second):
            moment.zero_()
        if self._rows is not None:
            self._rows.forget()
        self.steps = 0

    def release(self) -> None:
        """Give the model its fp32 masters for good."""
        self.settle()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data = master

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, to be saved."""
        kinds = (("master", self.masters), ("first", self.first), ("second", self.second))
        rows = {} if self._rows is None else self._rows.state()
        return {f"{kind}.rows": tensor for kind, tensor in rows.items()} | {
            f"{kind}.{name}": tensor
            for kind, tensors in kinds
            for name, tensor in zip(self.names, tensors, strict=True)
            if tensor.numel()
        }

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Take up a saved state; the model's parameters follow."""
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])
            if self._rows is not None:
                self._rows.load(state["reached.rows"], state["faded.rows"])
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)
        self.steps = steps


def _no_rows_of(master: Tensor) -> Tensor:
    """A gradient of rows that holds none yet."""
    none = torch.zeros(1, 0, dtype=torch.int64, device=master.device)
    return torch.sparse_coo_tensor(none, master[:0], master.shape, check_invariants=False)


def _norm(gradients: list[Tensor]) -> float:
    """The norm of all gradients together, each one's own taken in its dtype, summed in fp32."""
    if not gradients:
        return 0.0
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    norms = torch.stack([torch.linalg.vector_norm(g).float() for g in dense])
    return float(torch.linalg.vector_norm(norms))


def _undecayed(model: nn.Module) -> Iterable[nn.Parameter]:
    """Parameters of LayerNorms and everything one-dimensional: by kind, not by name."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.LayerNorm) or parameter.dim() < 2:
                yield parameter
