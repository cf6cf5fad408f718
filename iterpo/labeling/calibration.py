"""How far a reward model's margins can be believed: how often they are right, and the scale that makes them say so."""

from __future__ import annotations

import math
from collections.abc import Sequence


def accuracy(margins: Sequence[float], first_wins: Sequence[bool]) -> float:
    """Share of the pairs in the right order; an equal reward is no right answer, whichever side won."""
    right = [margin > 0 if first else margin < 0 for margin, first in zip(margins, first_wins, strict=True)]
    return sum(right) / len(right)


def calibrate(margins: Sequence[float], first_wins: Sequence[bool]) -> float:
    """The temperature T at which s(margin / T) says how often people prefer the first: the least log loss on held-out
    pairs (Guo et al., arXiv:1706.04599), of a grid from 0.05 to 20.

    With few pairs, all of them right, the least loss lies at no temperature at all; so every pair counts as wrong with
    probability 1 / (n + 2), as in the rule of succession.
    """
    smoothing = 1 / (len(margins) + 2)

    def loss(temperature: float) -> float:
        total = 0.0
        for margin, first in zip(margins, first_wins, strict=True):
            z = (margin if first else -margin) / temperature
            total += (1 - smoothing) * _softplus(-z) + smoothing * _softplus(z)
        return total

    grid: list[float] = [0.05 * 400.0 ** (step / 80) for step in range(81)]
    return min(grid, key=loss)


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))
