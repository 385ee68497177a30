"""What each of the processes does of a step."""

from dataclasses import dataclass

import numpy as np

from clozeworks.core.records import Ints
from clozeworks.data.batches import Batch
from clozeworks.data.order import cut
from clozeworks.train.distributed import Team


@dataclass(frozen=True)
class Portion:
    """What one process does of a step: `batches`, of which the first `counted` count.

    The others keep it in step with processes that have more to do. `tokens` are those of the whole
    step.
    """

    batches: list[Batch]
    counted: int
    tokens: int

    @classmethod
    def of(cls, batches: list[Batch]) -> "Portion":
        """A whole step, done by one process."""
        return cls(batches, len(batches), sum(batch.num_tokens for batch in batches))


def slices(lengths: Ints, micro_tokens: int, team: Team) -> tuple[list[Ints], int]:
    """Which of a step's groups each pass of this process takes; how many passes the busiest has.

    Groups stay in order; a process takes those whose middle falls into its share of the tokens.
    """
    ends = np.cumsum(lengths)
    owner = ((ends - lengths / 2) * team.size / ends[-1]).astype(np.int64)
    cuts = [
        cut(np.flatnonzero(owner == rank), lengths, micro_tokens, "tokens")
        for rank in range(team.size)
    ]
    return cuts[team.rank], max(map(len, cuts))
