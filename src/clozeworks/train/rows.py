"""Which rows of a large embedding training has read: the others need no update of their own."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Rows:
    """AdamW over an embedding of which few rows are read, exactly as over all of them.

    A row that was never read has had no gradient, so its moments are zero and AdamW only decays
    it, by a factor all such rows share. That factor is kept as one number and given to a row just
    before it is first read.
    """

    def __init__(self, master: Tensor, working: Tensor) -> None:
        """`master` [V, H] fp32 and the copy `working` that the model computes with."""
        self._master, self._working = master, working
        self.reached = torch.zeros(len(master), dtype=torch.bool, device=master.device)
        self.faded = torch.ones((), dtype=torch.float64)
        """What decay has left of the rows that were never read."""
        self._active: Tensor | None = None

    @property
    def active(self) -> Tensor:
        """The rows ever read, ascending, int64."""
        if self._active is None:
            self._active = self.reached.nonzero().flatten()
        return self._active

    def reach(self, ids: Tensor) -> None:
        """Bring rows that are about to be read up to date, if they are read for the first time."""
        new = torch.unique(ids[~self.reached[ids]])
        if len(new):
            self._fade(new)
            self.reached[new] = True
            self._active = None

    def decay(self, factor: float) -> None:
        """Let every row never read shrink by `factor`."""
        self.faded *= factor

    def settle(self) -> None:
        """Bring the rows never read up to date, for the model to be judged or saved."""
        self._fade((~self.reached).nonzero().flatten())
        self.faded.fill_(1.0)

    def forget(self) -> None:
        """Be as new."""
        self.reached.zero_()
        self.faded.fill_(1.0)
        self._active = None

    def state(self, name: str) -> dict[str, Tensor]:
        """What must be saved beside masters and moments."""
        return {f"reached.{name}": self.reached.to(torch.uint8), f"faded.{name}": self.faded}

    def load(self, state: Mapping[str, Tensor], name: str) -> None:
        """Take up a saved state; one that was saved without has every row up to date."""
        self.forget()
        if f"reached.{name}" in state:
            self.reached.copy_(state[f"reached.{name}"])
            self.faded.copy_(state[f"faded.{name}"])
        else:
            self.reached.fill_(True)

    def _fade(self, rows: Tensor) -> None:
        if len(rows) and self.faded != 1:
            with torch.no_grad():
                self._master[rows] *= self.faded.to(self._master)
                if self._working is not self._master:
                    self._working[rows] = self._master[rows].to(self._working.dtype)


def settled(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A saved state with every row up to date, for whoever updates all of them at every step."""
    found = dict(state)
    for key in [key for key in found if key.startswith("reached.")]:
        name = key.removeprefix("reached.")
        unread, faded = ~found.pop(key).bool(), found.pop(f"faded.{name}")
        master = found[f"master.{name}"].clone()
        master[unread] *= faded.to(master)
        found[f"master.{name}"] = master
    return found


def no_rows_of(master: Tensor) -> Tensor:
    """A gradient of rows that holds none yet."""
    none = torch.zeros(1, 0, dtype=torch.int64, device=master.device)
    return torch.sparse_coo_tensor(none, master[:0], master.shape, check_invariants=False)
