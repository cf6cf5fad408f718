"""Prompt samplers that look at nothing but how many prompts were drawn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.prompt_sampling.standing import Standing
from iterpo.types import Example


@dataclass(frozen=True)
class Sequential:
    """In file order, again from the start at the end."""

    name: ClassVar[str] = "sequential"
    remembers: ClassVar[bool] = False

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        return [(standing.drawn + i) % len(pool) for i in range(count)]


@dataclass(frozen=True)
class Uniform:
    """A fresh permutation every epoch: uniform, and no prompt twice before all have been seen."""

    name: ClassVar[str] = "uniform"
    remembers: ClassVar[bool] = False

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        return passes(len(pool), count, standing.drawn, str(standing.seed))


@dataclass(frozen=True)
class Shard:
    """Another part of the pool every iteration: iterated recipes that never learn twice from a prompt in a round.

    The pool is shuffled once and cut into `shards`; iteration k goes on in shard k modulo their number (Online-RLHF: a
    new split an iteration; SPPO: thirds).
    """

    name: ClassVar[str] = "shard"
    remembers: ClassVar[bool] = False

    shards: int = 3

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use shards >= 1.")

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        if len(pool) < self.shards:
            raise InvalidConfig(
                f"{len(pool)} prompts cannot be cut into {self.shards} shards.", "Lower prompt_sampling.shards."
            )
        number = standing.iteration % self.shards
        shard = permutation(len(pool), f"{standing.seed}/shards")[number :: self.shards]
        # Every shard goes on where its own last visit ended, which a share of all draws tells near enough.
        start = standing.drawn // self.shards
        return [shard[(start + i) % len(shard)] for i in range(count)]


@dataclass(frozen=True)
class Curriculum:
    """From easy to hard, and again from the start at the end: a static curriculum.

    Difficulty is the prompt file's `difficulty`; prompts without one come in order of their length, after those that
    have one.
    """

    name: ClassVar[str] = "curriculum"
    remembers: ClassVar[bool] = False

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        order = sorted(range(len(pool)), key=lambda i: difficulty(pool[i]))
        return [order[(standing.drawn + i) % len(order)] for i in range(count)]


def difficulty(example: Example) -> tuple[bool, float]:
    """Comparable: those that say how hard they are first, by it; then by length in characters."""
    if example.difficulty is not None:
        return False, example.difficulty
    return True, float(sum(len(m.content) for m in example.prompt.messages))


def passes(size: int, count: int, drawn: int, seed: str) -> list[int]:
    """The next `count` of an endless row of permutations, of which `drawn` were taken."""
    places = [divmod(drawn + i, size) for i in range(count)]
    orders = {epoch: permutation(size, f"{seed}/{epoch}") for epoch in dict.fromkeys(e for e, _ in places)}
    return [orders[epoch][position] for epoch, position in places]


def permutation(size: int, seed: str) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order
