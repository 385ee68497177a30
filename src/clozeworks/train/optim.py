"""AdamW and Muon over fp32 masters, whatever dtype the model computes in."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Muon

from clozeworks.core.errors import UserError

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
        hidden: Mapping[nn.Parameter, int] | None = None,
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

    def _turning(self) -> Muon:
        """torch's Muon over views of the masters, its momentum in views of ours."""
        groups, momenta = [], []
        for i, parts in enumerate(self.parts):
            if parts:
                views = self.masters[i].chunk(parts)
                groups.append({"params": views, "weight_decay": self.decays[i]})
                momenta += zip(views, self.first[i].chunk(parts), strict=True)
        made = Muon(groups, adjust_lr_fn="match_rms_adamw")
        for view, momentum in momenta:
            made.state[view]["momentum_buffer"] = momentum
        return made

    def accumulate(self) -> None:
        """Move the parameters' gradients into fp32 sums, between the micro-batches of a step."""
        if self._sums is None:
            self._sums = [torch.zeros_like(m) for m in self.masters]
        for total, parameter in zip(self._sums, self.parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
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
                if gradient is not None and not self.parts[i]:
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
        chunks = zip(*(t.reshape(-1).split(CHUNK) for t in flat), strict=True)
        steps = torch.tensor(float(self.steps), device=gradient.device)
        for master, grad, first, second, working in chunks:
            scaled = self._scratch[: len(grad)].copy_(grad)
            if scale < 1:
                scaled.mul_(scale)
            torch._fused_adamw_(
                [master],
                [scaled],
                [first],
                [second],
                [],
                [steps],
                lr=rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=self.decays[i],
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )
            if working.dtype != master.dtype:
                working.copy_(master)

    def _turn(self, gradients: list[Tensor | None], rate: float, scale: float) -> None:
        """Update what Muon moves, and round the masters into the model."""
        assert self._muon is not None
        turned = [i for i, parts in enumerate(self.parts) if parts]
        for i, group in zip(turned, self._muon.param_groups, strict=True):
            group["lr"], gradient = rate, gradients[i]
            views = [None] * self.parts[i]
            if gradient is not None:
                views = (gradient.float() * scale).chunk(self.parts[i])
            for view, part in zip(group["params"], views, strict=True):
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
        self.steps = 0

    def release(self) -> None:
        """Give the model its fp32 masters for good."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data = master

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, to be saved."""
        kinds = (("master", self.masters), ("first", self.first), ("second", self.second))
        return {
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
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)
        self.steps = steps


def _norm(gradients: list[Tensor]) -> float:
    """The norm of all gradients together, each one's own taken in its dtype, summed in fp32."""
    if not gradients:
        return 0.0
    norms = torch.stack([torch.linalg.vector_norm(g).float() for g in gradients])
    return float(torch.linalg.vector_norm(norms))


def _undecayed(model: nn.Module) -> Iterable[nn.Parameter]:
    """Parameters of LayerNorms and everything one-dimensional: by kind, not by name."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.LayerNorm) or parameter.dim() < 2:
                yield parameter
