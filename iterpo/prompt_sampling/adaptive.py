"""Prompt samplers that learn which prompts teach: from how the last group of each prompt went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.prompt_sampling.standing import Standing, weighted
from iterpo.types import Example, Seen

MEASURES = ("spread", "entropy")


@dataclass(frozen=True)
class AdaptiveDifficulty:
    """Prompts whose success is near `target`, in proportion to a Gaussian around it.

    Success is the mean reward of a prompt's last group. Prompts never seen count as if they were at the target.
    """

    name: ClassVar[str] = "adaptive_difficulty"
    remembers: ClassVar[bool] = True

    target: float = 0.5
    width: float = 0.2
    """Standard deviation of the Gaussian, in units of the reward."""

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use width > 0.")

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        return weighted([self._log_weight(standing.seen.get(e.prompt.prompt_id)) for e in pool], count, standing)

    def _log_weight(self, seen: Seen | None) -> float:
        known = seen is not None and seen.reward is not None
        return -(((seen.reward - self.target) / self.width) ** 2) / 2 if known else 0.0  # type: ignore[union-attr,operator]


@dataclass(frozen=True)
class RewardFilter:
    """Uniform over prompts whose last group did not go all right or all wrong.

    A prompt is held back when its last group's mean reward is at most `low` or at least `high`, or its rewards were all
    equal; it comes back after `again` iterations, since the policy changes.
    """

    name: ClassVar[str] = "reward_filter"
    remembers: ClassVar[bool] = True

    low: float = 0.0
    high: float = 1.0
    again: int = 10

    def __post_init__(self) -> None:
        if not self.low < self.high or self.again < 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use low < high and again >= 1.")

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        free = [i for i, e in enumerate(pool) if not self._held(standing.seen.get(e.prompt.prompt_id), standing)]
        # With everything held back, the run must still go on: those held back longest come first.
        held = set(range(len(pool))) - set(free)
        rest = sorted(held, key=lambda i: (standing.seen[pool[i].prompt.prompt_id].iteration, i))
        chosen = [free[i] for i in weighted([0.0] * len(free), count, standing)]
        return (chosen + rest)[: min(count, len(pool))]

    def _held(self, seen: Seen | None, standing: Standing) -> bool:
        if seen is None or seen.reward is None or standing.iteration - seen.iteration >= self.again:
            return False
        return seen.reward <= self.low or seen.reward >= self.high or seen.spread == 0


@dataclass(frozen=True)
class Uncertainty:
    """Prompts about which least is settled, in proportion to a measure of their last group.

    `spread`: the standard deviation of its rewards (labelers or answers disagree). `entropy`: minus the mean log-prob a
    token of its answers (the policy is unsure), as active preference learning takes it (APL, arXiv:2402.08114). Prompts
    never seen count like the most uncertain one.
    """

    name: ClassVar[str] = "uncertainty"
    remembers: ClassVar[bool] = True

    measure: str = "spread"
    floor: float = 0.01
    """Added to every weight, so that no prompt is given up for good."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.floor <= 0:
            raise InvalidConfig(f"Out of range: {self}.", f"Use measure = {' | '.join(MEASURES)} and floor > 0.")

    def draw(self, pool: Sequence[Example], count: int, standing: Standing) -> list[int]:
        measured = {name: getattr(seen, self.measure) for name, seen in standing.seen.items()}
        known = {name: value for name, value in measured.items() if value is not None}
        most = max(known.values(), default=1.0)
        weights = [self.floor + max(0.0, known.get(e.prompt.prompt_id, most)) for e in pool]
        return weighted([math.log(w) for w in weights], count, standing)
