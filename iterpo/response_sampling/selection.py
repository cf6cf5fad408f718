"""What a response sampler hands to the learner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from iterpo.types import Completion, Group


@dataclass(frozen=True)
class Pair:
    """Indices into `Selection.completions`."""

    chosen: int
    rejected: int
    p_chosen: float = 1.0
    weight: float = 1.0


@dataclass
class Selection:
    """S completions, their rewards and groups, and the pairs among them."""

    completions: list[Completion] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    """[S]; zero where the method looks at no rewards."""
    groups: list[int] = field(default_factory=list)
    """[S], counting from zero."""
    pairs: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """Completions left out, by reason."""

    def add(self, completion: Completion, reward: float, group: int) -> int:
        """Returns the completion's index."""
        self.completions.append(completion)
        self.rewards.append(reward)
        self.groups.append(group)
        return len(self.completions) - 1

    def add_pair(self, chosen: Completion, rejected: Completion, group: int, p_chosen: float, weight: float) -> None:
        self.pairs.append(Pair(self.add(chosen, 0.0, group), self.add(rejected, 0.0, group), p_chosen, weight))


class ResponseSampler(Protocol):
    name: ClassVar[str]
    provides: ClassVar[frozenset[str]]
    """Of `rewards`, `pairs`, `completions`."""
    offline: ClassVar[bool]
    """True: completions come from a file, inference is not asked for any."""

    @property
    def size(self) -> int: ...

    def select(self, groups: Sequence[Group], seed: int) -> Selection: ...
