"""A step whose Examples are compared with one another, whichever pass and process reads them."""

from collections.abc import Mapping
from collections.abc import Sequence as Items

import torch
from torch import Tensor

from clozeworks.tasks.base import Task
from clozeworks.train.distributed import Team
from clozeworks.train.portion import Portion


def compare(
    task: Task,
    team: Team,
    portion: Portion,
    vectors: Items[Tensor],
    divisors: Mapping[str, float],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The means of a step's loss terms, and of each pass the loss's gradient by its `vectors`.

    `vectors` [G, H] fp32 are those of each of the portion's batches; the gradient by those that
    do not count is 0. Only the first process tells the means, for what all tell is added up.
    """
    counted, nothing = portion.counted, vectors[0][:0]
    own = torch.cat([*vectors[:counted], nothing])
    everyone = team.rows(own)
    step = torch.cat(everyone).requires_grad_()
    sums = task.compared(step, _targets(task, team, portion, own.device))
    means = {name: total / divisors[name] for name, total in sums.items()}
    torch.stack([task.weights[name] * mean for name, mean in means.items()]).sum().backward()
    assert step.grad is not None
    mine = step.grad.split([len(rows) for rows in everyone])[team.rank]
    pulls = [*mine.split([len(part) for part in vectors[:counted]])] if counted else []
    pulls += [torch.zeros_like(part) for part in vectors[counted:]]
    return {name: mean.detach() * team.leads for name, mean in means.items()}, pulls


def _targets(task: Task, team: Team, portion: Portion, device: torch.device) -> dict[str, Tensor]:
    """What the whole step is compared by, in the order of its vectors."""
    found = {}
    for name in task.compares:
        each = [batch.targets[name] for batch in portion.batches]
        own = torch.cat([*each[: portion.counted], each[0][:0]]).to(device)
        found[name] = torch.cat(team.rows(own))
    return found
