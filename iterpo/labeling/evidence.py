"""Votes of all -> what they say about each annotator: confusion, and for every vote how likely it is right.

What is said about a vote comes from everybody but its annotator (leave-one-out), or a man whom nobody checks would
confirm himself: Dawid-Skene's own posterior of a pair that one person labelled is that person's vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iterpo.labeling.aggregate import CLASS_PRIOR, CLASSES, MIRROR, PRIOR_CONFUSION
from iterpo.labeling.annotator import Vote
from iterpo.labeling.dawid_skene import Ballot, Confusion, Floats, Model, dawid_skene, normalised
from iterpo.types import Outcome, TaskKind

COUNTED = (TaskKind.COMPARISON, TaskKind.GOLD)
"""Repeats would count a person twice; audits count for agreement only."""


@dataclass(frozen=True, slots=True)
class Evidence:
    confusions: Mapping[str, Confusion]
    """By annotator; who is not here has the prior's."""
    right: Mapping[str, Floats]
    """By annotator: [n] the probability that his vote is right, of the decided votes that others or gold say something
    about."""


@dataclass(frozen=True, slots=True)
class _Item:
    ballots: list[Ballot]
    """One an annotator, those without weight too."""
    gold: Outcome | None

    @property
    def tells_annotators_apart(self) -> bool:
        """A lone vote is as likely whatever its annotator's accuracy; EM would only take longer over it."""
        return self.gold in CLASSES or sum(b.weight > 0 for b in self.ballots) > 1


def gather(by_item: Mapping[str, Sequence[Vote]], weights: Mapping[str, float], confusion_votes: float) -> Evidence:
    """`weights`: by annotator, of his votes in everybody else's posteriors; 0 for those who do not count."""
    items = [item for item in (_item(name, votes, weights) for name, votes in by_item.items()) if item.ballots]
    confusions = _confusions([item for item in items if item.tells_annotators_apart], confusion_votes)
    return Evidence(confusions, _right(items, confusions))


def _item(name: str, votes: Sequence[Vote], weights: Mapping[str, float]) -> _Item:
    gold = next((v.gold for v in votes if v.kind is TaskKind.GOLD and v.gold is not None), None)
    ballots = {
        v.annotator: Ballot(name, v.annotator, CLASSES[v.outcome], weights[v.annotator])
        for v in votes
        if v.kind in COUNTED and v.outcome in CLASSES
    }
    return _Item(list(ballots.values()), gold)


def _confusions(items: Sequence[_Item], confusion_votes: float) -> dict[str, Confusion]:
    counts = tuple(tuple(confusion_votes * p for p in row) for row in PRIOR_CONFUSION)
    model = Model(len(CLASSES), confusion_counts=counts, class_prior=CLASS_PRIOR, mirror=MIRROR, max_iterations=50)
    ballots = [b for item in items for b in item.ballots if b.weight > 0]
    known = {item.ballots[0].item: CLASSES[item.gold] for item in items if item.gold in CLASSES}
    fit = dawid_skene(ballots, model, known)
    return {
        name: tuple(map(tuple, matrix)) for name, matrix in zip(fit.annotators, fit.confusions.tolist(), strict=True)
    }


def _right(items: Sequence[_Item], confusions: Mapping[str, Confusion]) -> dict[str, Floats]:
    right: dict[str, list[float]] = {}
    for item in items:
        for ballot, p in zip(item.ballots, _p_first(item, confusions), strict=True):
            if p is not None and ballot.symbol != CLASSES[Outcome.TIE]:
                is_first = ballot.symbol == CLASSES[Outcome.FIRST]
                right.setdefault(ballot.annotator, []).append(p if is_first else 1.0 - p)
    return {name: np.array(values) for name, values in right.items()}


def _p_first(item: _Item, confusions: Mapping[str, Confusion]) -> list[float | None]:
    """For every ballot, P(first) + P(tie) / 2 from all others; None where there is nothing to go by."""
    if item.gold is not None:
        # Of a gold pair with no better answer nobody can take the right side.
        sure = {Outcome.FIRST: 1.0, Outcome.SECOND: 0.0}.get(item.gold)
        return [sure] * len(item.ballots)
    said = np.array(
        [
            [b.weight * np.log(row[b.symbol]) for row in confusions.get(b.annotator, PRIOR_CONFUSION)]
            for b in item.ballots
        ]
    )
    others = normalised(said.sum(axis=0) - said + np.log(CLASS_PRIOR))
    weight = sum(b.weight for b in item.ballots)
    return [float(p[0] + p[2] / 2.0) if weight > b.weight else None for b, p in zip(item.ballots, others, strict=True)]
