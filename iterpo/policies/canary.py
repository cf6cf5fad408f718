"""The canary's sequential test: may a version that passed the gate serve everybody, after a share of live traffic?

It may be looked at after every answer, for as long as one likes: bounds are confidence sequences, which hold at all
times at once. Each share (of failed requests, of good feedback, for the canary and for what serves) lies within its
bounds always, with probability 1 - (1 - confidence) / 4; so all four do with the configured confidence, and a canary
that is as good as what serves is rolled back with probability 1 - confidence at most, however often one looks.

    rollback   surely more failures, or surely less good feedback, than what serves
    promote    surely neither worse by more than the margins
    hold       not known yet

Bounds: Robbins' mixture (1970) with the Jeffreys prior; Howard, Ramdas, McAuliffe and Sekhon (2021) give the theory.
Not implemented: feedback as anything but good or bad; a test that uses how the two answers of one user compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from iterpo.config import CanarySettings

SHARES = 4
"""Bounds that must hold together."""
BISECTIONS = 60


class Verdict(StrEnum):
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HOLD = "hold"


@dataclass
class Arm:
    """What became of one version's requests since the canary began."""

    answered: int = 0
    failed: int = 0
    """Requests that got no whole answer, through no fault of their own."""
    good: int = 0
    bad: int = 0


@dataclass
class Tally:
    canary: Arm = field(default_factory=Arm)
    serving: Arm = field(default_factory=Arm)


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: dict[str, float]


def judge(settings: CanarySettings, tally: Tally, seconds: float) -> Judgement:
    """`seconds`: since the canary began."""
    error = (1 - settings.confidence) / SHARES
    canary, serving = tally.canary, tally.serving
    failed = [bounds(arm.failed, arm.answered, error) for arm in (canary, serving)]
    good = [bounds(arm.good, arm.bad, error) for arm in (canary, serving)]
    numbers = {
        "canary_seconds": seconds,
        "canary_answered": float(canary.answered),
        "canary_failed": float(canary.failed),
        "canary_good": float(canary.good),
        "canary_bad": float(canary.bad),
        "canary_serving_good": float(serving.good),
        "canary_serving_bad": float(serving.bad),
        "canary_more_failures_at_most": failed[0][1] - failed[1][0],
        "canary_less_good_at_most": good[1][1] - good[0][0],
    }
    reasons = []
    if failed[0][0] > failed[1][1]:
        reasons.append(f"at least {failed[0][0]:.1%} of its requests fail, at most {failed[1][1]:.1%} of the others")
    if good[0][1] < good[1][0]:
        reasons.append(f"at most {good[0][1]:.1%} of its feedback is good, at least {good[1][0]:.1%} of the others'")
    if reasons:
        return Judgement(Verdict.ROLLBACK, tuple(reasons), numbers)
    steady = numbers["canary_more_failures_at_most"] <= settings.error_margin
    liked = numbers["canary_less_good_at_most"] <= settings.feedback_margin or not settings.needs_feedback
    if steady and liked:
        return Judgement(Verdict.PROMOTE, (), numbers)
    if seconds > settings.patience_seconds:
        reason = f"undecided after {settings.patience_seconds:.0f} s, and canary.undecided is {settings.undecided!r}"
        return Judgement(Verdict(settings.undecided), (reason,), numbers)
    return Judgement(Verdict.HOLD, (), numbers)


def bounds(yes: int, no: int, error: float) -> tuple[float, float]:
    """Of a share, after `yes` and `no`: it lies outside at any time with probability `error` at most.

    A share p is out once the mixture's likelihood is 1/error times p's own: Ville's inequality.
    """
    if not yes + no:
        return 0.0, 1.0
    mixture = math.lgamma(yes + 0.5) + math.lgamma(no + 0.5) - math.lgamma(yes + no + 1) - 2 * math.lgamma(0.5)

    def out(p: float) -> bool:
        own = (yes * math.log(p) if yes else 0.0) + (no * math.log1p(-p) if no else 0.0)
        return mixture - own >= -math.log(error)

    middle = yes / (yes + no)
    return (_edge(middle, 0.0, out) if yes else 0.0), (_edge(middle, 1.0, out) if no else 1.0)


def _edge(inside: float, outside: float, out: Callable[[float], bool]) -> float:
    """Where `out` changes between a point within and one beyond, from beyond: the bound errs on the wide side."""
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        if out(middle):
            outside = middle
        else:
            inside = middle
    return outside
