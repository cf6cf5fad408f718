"""Earlier groups once more: beside the fresh ones, up to an age."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from iterpo.errors import InvalidConfig
from iterpo.types import Group


@dataclass(frozen=True)
class Replay:
    """`groups` earlier groups join every iteration's fresh ones, before the response sampler chooses from them all.

    Age is counted in policy versions between sampling and training, and older groups than `max_age` are forgotten. A
    policy gradient on them is off-policy: the mismatch correction weighs their tokens by trainer over sampler, capped.
    """

    groups: int = 0
    """Zero switches it off."""
    max_age: int = 4

    def __post_init__(self) -> None:
        if self.groups < 0 or self.max_age < 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use groups >= 0 and max_age >= 1.")

    def young(self, memory: Sequence[Group], version: int) -> list[Group]:
        """What may still be replayed when `version` is trained."""
        return [g for g in memory if version - min(c.policy_version for c in g.completions) <= self.max_age]

    def draw(self, memory: Sequence[Group], version: int, seed: str) -> list[Group]:
        """Up to `groups` different ones, uniformly; a pure function of its arguments."""
        young = self.young(memory, version)
        return random.Random(seed).sample(young, min(self.groups, len(young)))
