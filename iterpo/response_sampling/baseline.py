"""Samplers that draw extra answers of a prompt to measure what to expect of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.group import rewarded
from iterpo.response_sampling.selection import Draw, Selection, Sized
from iterpo.types import Group

WITH_BASELINE = frozenset({"completions", "rewards", "baseline"})


@dataclass(frozen=True)
class GreedyBaseline(Sized):
    """`size` samples and the policy's greedy answer, whose reward is the baseline (ReMax, arXiv:2310.10505).

    The greedy answer itself is not trained on. A prompt whose greedy answer has no reward is dropped and counted.
    """

    name: ClassVar[str] = "greedy_baseline"
    provides: ClassVar[frozenset[str]] = WITH_BASELINE
    least: ClassVar[int] = 1

    size: int = 1

    @property
    def draws(self) -> tuple[Draw, ...]:
        return Draw(self.size), Draw(1, greedy=True)

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            greedy = group.completions[-1]
            baseline = group.rewards.get(greedy.completion_id)
            usable = [c for c in rewarded(selection, group) if c is not greedy]
            if baseline is None:
                selection.dropped["no_baseline"] += len(usable)
                continue
            for completion in usable:
                selection.add(completion, group.rewards[completion.completion_id], index, baseline=baseline)
        return selection


@dataclass(frozen=True)
class ReferenceBaseline(Sized):
    """One answer of the policy, and `size` of the base for V* = beta1 log mean exp(r / beta1) (A*-PO).

    The base's answers are not trained on. Published: 8 answers, beta1 0.5. Not implemented: V* kept from earlier
    iterations; it is measured anew whenever a prompt is drawn.
    """

    name: ClassVar[str] = "reference_baseline"
    provides: ClassVar[frozenset[str]] = WITH_BASELINE
    least: ClassVar[int] = 1

    beta1: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta1 <= 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use beta1 > 0.")

    @property
    def draws(self) -> tuple[Draw, ...]:
        return Draw(1), Draw(self.size, "base")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            own, *others = group.completions
            usable = rewarded(selection, group)
            measured = [group.rewards[c.completion_id] for c in others if c in usable]
            if own not in usable or not measured:
                selection.dropped["no_baseline"] += own in usable
                continue
            value = soft_maximum(measured, self.beta1)
            selection.add(own, group.rewards[own.completion_id], index, baseline=value)
        return selection


def soft_maximum(rewards: Sequence[float], beta: float) -> float:
    """beta log mean exp(r / beta), without overflow."""
    top = max(rewards)
    return top + beta * math.log(sum(math.exp((r - top) / beta) for r in rewards) / len(rewards))
