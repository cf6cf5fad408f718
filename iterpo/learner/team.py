"""Several processes on one update: every rank has the whole model, the same adapter and the same optimiser.

Micro-batches are dealt out; log-probs and gradients, each a sum of what the ranks have, are added up. An adapter's
gradient is some megabytes, so nothing is sharded: the base is replicated, and each rank does the optimiser's step.
Coefficients are computed from the whole batch on every rank, so no normaliser can tell how many there are.
Not implemented: sharding a base that does not fit into one device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


class Team:
    """One process alone."""

    size = 1

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's share."""
        return items

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Each becomes the sum over the ranks, in place."""

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return here

    def least(self, here: int) -> int:
        """Of all ranks'."""
        return here


class ProcessGroup(Team):
    """The ranks of torch's default process group, as `torchrun` starts them."""

    def __init__(self) -> None:
        self.size, self._rank = dist.get_world_size(), dist.get_rank()

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self._rank :: self.size]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        given = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in given])  # one message instead of hundreds
        dist.all_reduce(flat)
        for tensor, summed in zip(given, flat.split([t.numel() for t in given]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def any(self, here: bool) -> bool:
        flag = torch.tensor([float(here)])
        dist.all_reduce(flag)
        return bool(flag > 0)

    def least(self, here: int) -> int:
        number = torch.tensor([here])
        dist.all_reduce(number, dist.ReduceOp.MIN)
        return int(number)


def present() -> Team:
    """Of this process."""
    return ProcessGroup() if dist.is_available() and dist.is_initialized() else Team()
