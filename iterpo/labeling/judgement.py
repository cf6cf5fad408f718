"""Is an annotator reliable? Exact Bayesian posteriors over a grid, and the verdict drawn from them.

Measured over 50 simulated crowds (benchmarks/label_quality.py: 20 good annotators of accuracy 0.85, 5 noisy at 0.5 to
0.55, 3 coordinated adversaries, 1 always-left; overlap 3, 10 % gold and more for the doubted, 60-120 labels each) with
the default settings:
    adversaries, always-left   all quarantined, after 26 labels at the latest
    noisy                      99 % warned or quarantined within 60 labels, 86 % quarantined; 95 % by the end
    good                       3 of 1,000 quarantined, 4.5 % warned at some time, at most one of a crowd at the end;
                               13 % of what they label is gold
To find every noisy one within 60 labels is beyond any method that spares the good ones: were all 60 gold, the best
test would get all 25 right in fewer than 95 of 100 crowds (tests/labeling/test_crowd.py). Stricter thresholds trade one
error for the other.

Not implemented: somebody who only says tie or skip is not doubted (his votes move nothing).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iterpo.labeling.annotator import Interval, Rate, Vote
from iterpo.labeling.crowd_settings import CrowdSettings
from iterpo.labeling.dawid_skene import Floats
from iterpo.types import AnnotatorState, Outcome, TaskKind

GRID: Floats = (np.arange(100) + 0.5) / 100
"""[G] midpoints: 0.65 and the other thresholds lie between two of them."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What an annotator's own votes show."""

    gold: Rate
    self_consistency: Rate
    left: Rate
    """Decided answers that were on the left."""
    median_seconds: float
    too_fast_share: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of an annotator whose state nobody fixed: never EXCLUDED."""

    state: AnnotatorState
    reasons: tuple[str, ...]
    accuracy: Interval
    judged: int
    doubt: float
    """P(accuracy < quarantine_below)."""


def judge(right: Floats, votes: Sequence[Vote], settings: CrowdSettings) -> Verdict:
    """`right` [n]: how likely each judged vote is right, from all but the annotator; `votes`: his own."""
    accuracy = accuracy_posterior(right, settings)
    habits = habits_of(votes, settings.min_seconds)
    quarantined = [*_inaccurate(accuracy, len(right), settings), *_one_sided(habits.left, settings)]
    warned = [*_doubtful(accuracy, len(right), settings), *_inconsistent(habits, settings), *_hasty(habits, settings)]
    state = AnnotatorState.OK
    if quarantined or warned:
        state = AnnotatorState.QUARANTINED if quarantined else AnnotatorState.WARNED
    doubt = below(accuracy, settings.quarantine_below)
    return Verdict(state, tuple(quarantined or warned), interval(accuracy), len(right), doubt)


def accuracy_posterior(right: Floats, settings: CrowdSettings) -> Floats:
    """[G]: the Beta prior times a * q + (1 - a) * (1 - q) of every judged vote, q its probability of being right."""
    a, b = settings.prior_accuracy * settings.prior_votes, (1.0 - settings.prior_accuracy) * settings.prior_votes
    log_prior = (a - 1.0) * np.log(GRID) + (b - 1.0) * np.log1p(-GRID)
    log_likelihood = np.log(np.outer(right, GRID) + np.outer(1.0 - right, 1.0 - GRID)).sum(axis=0)
    return _probabilities(log_prior + log_likelihood)


def share_posterior(rate: Rate) -> Floats:
    """[G] of a share of which `rate` was seen, uniform before."""
    return _probabilities(rate.right * np.log(GRID) + (rate.total - rate.right) * np.log1p(-GRID))


def interval(posterior: Floats) -> Interval:
    """Mean and middle 95 % of a posterior over the grid."""
    cumulative = np.concatenate([[0.0], np.cumsum(posterior)])
    edges = np.linspace(0.0, 1.0, len(cumulative))
    low, high = np.interp([0.025, 0.975], cumulative, edges)
    return Interval(float(posterior @ GRID), float(low), float(high))


def below(posterior: Floats, threshold: float) -> float:
    """The posterior's probability under the threshold."""
    return float(posterior[threshold > GRID].sum())


def habits_of(votes: Sequence[Vote], min_seconds: float) -> Habits:
    """Of one annotator's votes."""
    gold = [v.outcome is v.gold for v in votes if v.kind is TaskKind.GOLD and v.outcome is not Outcome.SKIP]
    seconds = [v.duration_seconds for v in votes]
    return Habits(
        gold=_rate(gold),
        self_consistency=_self_consistency(votes),
        left=_rate([v.left for v in votes if v.decided]),
        median_seconds=statistics.median(seconds) if seconds else 0.0,
        too_fast_share=sum(s < min_seconds for s in seconds) / len(seconds) if seconds else 0.0,
    )


def _self_consistency(votes: Sequence[Vote]) -> Rate:
    said = [v for v in votes if v.outcome is not Outcome.SKIP]
    original = {v.item: v.outcome for v in said if v.kind is not TaskKind.REPEAT}
    return _rate([v.outcome is original[v.item] for v in said if v.kind is TaskKind.REPEAT and v.item in original])


def _rate(right: Sequence[bool]) -> Rate:
    return Rate(sum(right), len(right))


def _probabilities(logs: Floats) -> Floats:
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def _inaccurate(accuracy: Floats, judged: int, settings: CrowdSettings) -> list[str]:
    sure = below(accuracy, settings.quarantine_below) > settings.quarantine_probability
    if not sure or judged < settings.quarantine_after:
        return []
    return [_accuracy_sentence(accuracy, judged, settings.quarantine_below)]


def _doubtful(accuracy: Floats, judged: int, settings: CrowdSettings) -> list[str]:
    doubt = below(accuracy, settings.warn_below) > settings.warn_probability
    if not doubt or judged < settings.warn_after:
        return []
    return [_accuracy_sentence(accuracy, judged, settings.warn_below)]


def _accuracy_sentence(accuracy: Floats, judged: int, threshold: float) -> str:
    found = interval(accuracy)
    return (
        f"Takes the right side in {found.mean:.0%} of {judged} answers that could be checked "
        f"({found.low:.0%} to {found.high:.0%}): "
        f"under {threshold:.0%} with probability {below(accuracy, threshold):.2f}."
    )


def _one_sided(left: Rate, settings: CrowdSettings) -> list[str]:
    posterior = share_posterior(left)
    inside = below(posterior, 0.5 + settings.left_margin) - below(posterior, 0.5 - settings.left_margin)
    if left.total < settings.quarantine_after or 1.0 - inside <= settings.left_probability:
        return []
    return [f"Chose the answer on the left in {left.right} of {left.total} decisions; it is there at random."]


def _inconsistent(habits: Habits, settings: CrowdSettings) -> list[str]:
    same = habits.self_consistency
    if below(share_posterior(same), settings.consistency_below) <= settings.consistency_probability:
        return []
    return [f"Gave the same answer again in only {same.right} of {same.total} repeated tasks."]


def _hasty(habits: Habits, settings: CrowdSettings) -> list[str]:
    if habits.too_fast_share <= settings.max_too_fast_share:
        return []
    return [f"{habits.too_fast_share:.0%} of the labels took less than {settings.min_seconds:g} seconds."]
