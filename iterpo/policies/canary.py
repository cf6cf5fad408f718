"""The canary's sequential test: may a version that passed the gate serve everybody, after a share of live traffic?

It may be looked at after every answer, for as long as one likes: bounds are confidence sequences, which hold at all
times at once. Each of five shares (of failed requests and of thumbs up, for the canary and for what serves; of duels
that the canary won) lies within its bounds always, with probability 1 - (1 - confidence) / 5; so all do with the
configured confidence, and a canary as good as what serves is rolled back with probability 1 - confidence at most,
however often one looks. That holds for verdicts that are independent: whoever counts them takes one of each user.

    rollback   surely more failures, surely fewer thumbs up, or surely less than half of the duels
    promote    surely no more failures than the margin allows, and, by thumbs or by duels, no worse than theirs
    hold       not known yet

Bounds: Robbins' mixture (1970) with the Jeffreys prior; Howard, Ramdas, McAuliffe and Sekhon (2021) give the theory.
Thumbs and duels are not added up: a duel gives each side one verdict whatever its share of the traffic, so a sum would
compare mixtures. Not implemented: feedback as anything but good or bad; verdicts that are taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from iterpo.config import CanarySettings

SHARES = 5
"""Bounds that must hold together."""
BISECTIONS = 60
EVEN = 0.5
"""Of duels between equals."""


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
    duels_won: int = 0
    """By the canary: an answer of its was preferred to one of the version that serves."""
    duels_lost: int = 0


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
    duels = bounds(tally.duels_won, tally.duels_lost, error)
    numbers = {
        "canary_seconds": seconds,
        "canary_answered": float(canary.answered),
        "canary_failed": float(canary.failed),
        "canary_good": float(canary.good),
        "canary_bad": float(canary.bad),
        "canary_serving_good": float(serving.good),
        "canary_serving_bad": float(serving.bad),
        "canary_duels_won": float(tally.duels_won),
        "canary_duels_lost": float(tally.duels_lost),
        "canary_duels_at_least": duels[0],
        "canary_more_failures_at_most": failed[0][1] - failed[1][0],
        "canary_less_good_at_most": good[1][1] - good[0][0],
    }
    reasons = []
    if failed[0][0] > failed[1][1]:
        reasons.append(f"at least {failed[0][0]:.1%} of its requests fail, at most {failed[1][1]:.1%} of the others")
    if good[0][1] < good[1][0]:
        reasons.append(f"at most {good[0][1]:.1%} of its feedback is good, at least {good[1][0]:.1%} of the others'")
    if duels[1] < EVEN:
        reasons.append(f"its answers win at most {duels[1]:.1%} of the duels")
    if reasons:
        return Judgement(Verdict.ROLLBACK, tuple(reasons), numbers)
    steady = numbers["canary_more_failures_at_most"] <= settings.error_margin
    thumbs = numbers["canary_less_good_at_most"] <= settings.feedback_margin
    liked = thumbs or duels[0] >= EVEN - settings.feedback_margin or not settings.needs_feedback
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
