"""How far a reward model's margins can be believed: how often they are right, and the scale that makes them say so."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iterpo.labeling.feedback import Pair

FEWEST, RECENT = 20, 500
"""Pairs from which the policy's temperature is worked out: at least so many, at most the latest so many, since it is
another policy after every swap."""
LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures: at the highest, margins mean nothing."""


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

    grid: list[float] = [LOWEST * (HIGHEST / LOWEST) ** (step / 80) for step in range(81)]
    return min(grid, key=loss)


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def policy_calibration(pairs: Sequence[Pair]) -> dict[str, float]:
    """`policy_accuracy` and `policy_temperature` of the policy's implicit reward, from untied pairs that it had an
    opinion of; empty with fewer than FEWEST. Log-ratios grow with training whether or not they agree with people: the
    HIGHEST temperature says that they mean nothing."""
    known = [(pair, pair.p_policy) for pair in pairs if pair.p_policy is not None and not pair.tied][-RECENT:]
    if len(known) < FEWEST:
        return {}
    margins = [log_odds(p) for _, p in known]
    first_wins = [pair.preference.p_first_wins > 0.5 for pair, _ in known]
    return {"policy_accuracy": accuracy(margins, first_wins), "policy_temperature": calibrate(margins, first_wins)}


def log_odds(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, x))))
