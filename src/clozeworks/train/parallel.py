"""Several processes as one: the whole model in each (DDP), or a part of everything (FSDP2).

Both add up gradients as one process would: torch's division by the number of processes is undone,
since each term of the loss was divided by its count over all of them already.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from clozeworks.core.errors import UserError
from clozeworks.model.decoder import Decoder
from clozeworks.model.encoder import Encoder, Layer
from clozeworks.model.heads import Model
from clozeworks.tasks.base import Task
from clozeworks.train.distributed import ALONE, Team
from clozeworks.train.loop import Learner, Objective, TrainSettings
from clozeworks.train.optim import Optimizer
from clozeworks.train.portion import Portion
from clozeworks.train.precision import pick_dtype

BUCKET = 1 << 24
"""Values that are summed over the processes in one go."""


def learner_for(model: Model, task: Task, settings: TrainSettings, team: Team = ALONE) -> Learner:
    """Make a model ready to be trained: dropout, recomputation, precision, and its processes."""
    if settings.dropout is not None:
        model.set_dropout(settings.dropout)
    encoders = [part for part in model.modules() if isinstance(part, Encoder | Decoder)]
    if settings.recompute and not encoders:
        raise UserError(f"recompute: {model.config.family!r} has no layers to run again")
    for encoder in encoders:
        encoder.recompute = settings.recompute
    for layer in _compilable(model, settings, team):
        layer.compiled = True
    # processes add up whole gradients, a tied head gives every row one, and a GPU moves all rows
    # (16,000 were measured) in less time than it waits to be told which were read
    alone = team.size == 1 and model.device.type == "cpu"
    model.encoder.embeddings.sparse = alone and not model.tied
    if team.size == 1:
        return Learner(model, task, settings, _optimizer(model, settings), team)
    if settings.parallel == "ddp":
        return Replicated(model, task, settings, _optimizer(model, settings), team)
    return _sharded(model, task, settings, team)


def _compilable(model: Model, settings: TrainSettings, team: Team) -> list[Layer]:
    """The layers that torch is to compile; raises UserError where that is asked for in vain."""
    if not settings.compile:
        return []
    if model.device.type != "cuda":
        raise UserError(
            f"compile: made for a GPU, and this model learns on {model.device}; leave it out"
        )
    if team.size > 1 and settings.parallel == "fsdp":
        raise UserError('compile: not with parallel = "fsdp", which cuts every layer; use "ddp"')
    layers = [part for part in model.modules() if isinstance(part, Layer)]
    if not layers:
        raise UserError(f"compile: {model.config.family!r} has no layers to compile")
    return layers


def _optimizer(
    model: Model, settings: TrainSettings, kind: type[Optimizer] = Optimizer
) -> Optimizer:
    dtype = torch.float32 if kind is not Optimizer else pick_dtype(settings.precision, model.device)
    embeddings = model.encoder.embeddings
    return kind(
        model,
        dtype,
        decay=settings.decay,
        betas=(0.9, settings.beta2),
        eps=settings.eps,
        clip=settings.clip,
        hidden=model.hidden_matrices() if settings.optimizer == "muon" else None,
        sparse=embeddings.tokens.weight if embeddings.sparse else None,
    )


# === The whole model in each process ===


@dataclass
class Replicated(Learner):
    """Every process holds the whole model, and learns of all gradients during the backward pass.

    Of several passes, the fp32 sums are exchanged once, after the last.
    """

    _ddp: DistributedDataParallel = field(init=False)
    _rehearsed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ddp = DistributedDataParallel(self.objective)
        self._ddp.register_comm_hook(None, _summed)
        self.objective = self._ddp

    def learn(self, portion: Portion, divisors: Mapping[str, float]) -> Tensor:
        if len(portion.batches) == 1 and not self._rehearsed:
            self._rehearse(portion, divisors)
        return super().learn(portion, divisors)

    def _rehearse(self, portion: Portion, divisors: Mapping[str, float]) -> None:
        """Let the first exchange count for nothing.

        DDP lays out its buckets anew after it, and with them the order in which more than two
        processes are summed; so every step adds alike, in a run that went on as in one that began.
        """
        self._pass(0, portion.batches[0], dict.fromkeys(divisors, math.inf))
        for parameter in self.optimizer.parameters:
            parameter.grad = None
        self._rehearsed = True

    def leave(self) -> None:
        """Free DDP while its group is still there.

        An error's traceback may keep this learner longer than the group; torch then ends the group
        with the interpreter's lock held, and waits for a thread that waits for the lock.
        """
        self.objective = self._ddp.module
        del self._ddp

    def _apart(self) -> AbstractContextManager[None]:
        return self._ddp.no_sync()

    def _join(self) -> None:
        for bucket in _buckets(self.optimizer.sums):
            flat = torch.cat([total.view(-1) for total in bucket])
            dist.all_reduce(flat)
            for total, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                total.copy_(part.view_as(total))


def _summed(
    state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # there, but not for type checkers
) -> torch.futures.Future[Tensor]:
    """Sum a bucket of gradients over the processes: DDP of itself would take the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[list[Tensor]] = work.get_future()
    return future.then(lambda done: done.value()[0])


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, some at a time."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(t.numel() for t in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


# === A part of everything in each process ===


@dataclass
class Sharded(Learner):
    """Every process holds its rows of each parameter, gradient and moment.

    `model` is the cut one; `whole` has the same shape, and weights only while it is shown.
    """

    whole: Model = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._empty()

    @contextmanager
    def shown(self, exact: bool = False) -> Iterator[Model]:
        dtype = pick_dtype(self.settings.precision, self.model.device)
        self._fill(torch.float32 if exact else dtype)
        try:
            yield self.whole
        finally:
            self._empty()

    def release(self) -> None:
        self._fill(torch.float32)

    def _fill(self, dtype: torch.dtype) -> None:
        wholes = self.optimizer.wholes()
        for parameter, tensor in zip(self.whole.parameters(), wholes, strict=True):
            parameter.data = tensor.to(dtype)

    def _empty(self) -> None:
        for parameter in self.whole.parameters():
            parameter.data = parameter.data.new_empty(0)


def _sharded(model: Model, task: Task, settings: TrainSettings, team: Team) -> Sharded:
    """Cut a copy of the model with `fully_shard`, a unit for each layer and one for the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    from clozeworks.train.sharded import ShardedOptimizer

    dtype = pick_dtype(settings.precision, model.device)
    mesh = init_device_mesh(model.device.type, (team.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    live = copy.deepcopy(model)
    objective = Objective(live, task)
    for layer in [module for module in live.modules() if isinstance(module, Layer)]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    optimizer = _optimizer(live, settings, ShardedOptimizer)
    learner = Sharded(live, task, settings, optimizer, team, whole=model)
    learner.objective = objective
    return learner
