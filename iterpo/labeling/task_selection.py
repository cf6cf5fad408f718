"""Which of the open tasks people get next: the urgency of a task, from what is known about it.

A share of the comparisons may be drawn at random instead (`labeling.random_share`); every label records the propensity
with which its task was given, so that a biased sample can be weighted back (Horvitz & Thompson 1952).
"""

from __future__ import annotations

from collections.abc import Mapping

from iterpo.store.tasks import Figures, Urgency


def oldest(_figures: Figures) -> float:
    """First come, first served."""
    return 0.0


def least_labelled(figures: Figures) -> float:
    """Every task gets its first label before any gets its second."""
    return -float(figures.labels)


def uncertainty(figures: Figures) -> float:
    """Where the reward model's margin, or the policy's implicit one, is smallest."""
    return figures.uncertainty


def disagreement(figures: Figures) -> float:
    """Where people contradict each other: 4 p (1 - p), p the share of votes for the first answer; tasks without a vote
    count as half that disputed, so that they are not left behind."""
    return 4 * figures.first_share * (1 - figures.first_share) if figures.labels else 0.5


SELECTIONS: Mapping[str, Urgency] = {
    "oldest": oldest,
    "least_labelled": least_labelled,
    "uncertainty": uncertainty,
    "disagreement": disagreement,
}
