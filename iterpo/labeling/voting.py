"""Stored votes as the crowd looks at them, and votes on one pair -> the preference that learners read."""

from __future__ import annotations

from collections.abc import Sequence

from iterpo.labeling import crowd as quality
from iterpo.labeling.crowd import Crowd, aggregate
from iterpo.store.labels import ComparedPair, Vote
from iterpo.types import Outcome, Preference

DIGITS = 6
"""Of p_first_wins: rounding noise must not make a tie a preference."""
_TURNED = {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}


def preference_of(pair: ComparedPair, votes: Sequence[Vote], crowd: Crowd) -> Preference:
    """What the crowd's quality makes of the votes (iterpo/labeling/crowd.py). A vote weighs what it weighed when it was
    given, or nothing, once its annotator is in quarantine or taken out."""
    given = [(v.annotator, v.outcome, v.strength, min(v.weight, crowd.weight(v.annotator))) for v in votes]
    found = aggregate(given, crowd)
    return Preference(
        group_id=pair.group_id,
        first_id=pair.first_id,
        second_id=pair.second_id,
        p_first_wins=round(found.p_first_wins, DIGITS),
        weight=found.weight,
        strength=found.strength,
        p_both_bad=found.p_both_bad,
        task_id=pair.task_id,
    )


def seen_by_crowd(vote: Vote) -> quality.Vote:
    """In the item's own order, whichever way round the task asked for it."""
    outcome, gold = vote.outcome, vote.gold
    if not vote.in_order:
        outcome, gold = _TURNED.get(outcome, outcome), _TURNED.get(gold, gold) if gold else None
    return quality.Vote(
        item=vote.item,
        annotator=vote.annotator,
        outcome=outcome,
        presented_swapped=vote.swapped if vote.in_order else not vote.swapped,
        duration_seconds=vote.duration_seconds,
        at=vote.at,
        kind=vote.kind,
        gold=gold,
        vote_id=vote.event_id,
    )
