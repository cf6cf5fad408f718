"""Prompt samplers without memory of rewards. Draw k is a pure function of (seed, drawn so far): resuming is exact."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Protocol


class PromptSampler(Protocol):
    name: ClassVar[str]

    def draw(self, pool: int, count: int, drawn: int, seed: int) -> list[int]:
        """`count` indices below `pool`, given that `drawn` were drawn before."""
        ...


@dataclass(frozen=True)
class Sequential:
    """In file order, again from the start at the end."""

    name: ClassVar[str] = "sequential"

    def draw(self, pool: int, count: int, drawn: int, seed: int) -> list[int]:
        return [(drawn + i) % pool for i in range(count)]


@dataclass(frozen=True)
class Uniform:
    """A fresh permutation every epoch: uniform, and no prompt twice before all have been seen."""

    name: ClassVar[str] = "uniform"

    def draw(self, pool: int, count: int, drawn: int, seed: int) -> list[int]:
        places = [divmod(drawn + i, pool) for i in range(count)]
        orders = {epoch: self._permutation(pool, epoch, seed) for epoch in dict.fromkeys(e for e, _ in places)}
        return [orders[epoch][position] for epoch, position in places]

    @staticmethod
    def _permutation(pool: int, epoch: int, seed: int) -> list[int]:
        order = list(range(pool))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        return order
