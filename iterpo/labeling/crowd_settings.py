"""`CrowdSettings`: when annotators are warned, quarantined and capped."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CrowdSettings:
    """Probabilities are posterior ones, given the labels. iterpo/labeling/judgement.py says what was measured."""

    window_items: int = 5_000
    """Items whose votes are kept, those labelled last."""
    refresh_votes: int = 50
    """New votes after which a refresh is worth doing."""
    prior_accuracy: float = 0.8
    """Of somebody nobody knows yet; people agree with each other in 63-77 % of preferences, which is 0.75-0.87 each."""
    prior_votes: float = 5.0
    """What that prior is worth, in judged votes."""
    confusion_votes: float = 4.0
    """What the prior of a confusion matrix is worth, in votes a true class."""
    quarantine_below: float = 0.7
    quarantine_probability: float = 0.9
    """Quarantined when P(accuracy < quarantine_below) is more than this ..."""
    quarantine_after: int = 20
    """... and so many votes could be judged."""
    warn_below: float = 0.75
    warn_probability: float = 0.75
    warn_after: int = 15
    """Warned likewise."""
    left_margin: float = 0.25
    left_probability: float = 0.99
    """Quarantined when P(share of answers on the left is outside 0.5 +- left_margin) is more than this."""
    consistency_below: float = 0.6
    consistency_probability: float = 0.95
    """Warned when P(agrees with himself on repeats less often than consistency_below) is more than this."""
    min_seconds: float = 0.0
    """Labels given faster are too fast; 0 is off."""
    max_too_fast_share: float = 0.3
    warned_weight: float = 0.5
    """Of a warned annotator's vote; 1 is everybody else's, 0 that of the quarantined and excluded."""
    influence_votes: int = 1_000
    """Weighted votes over which influence is capped."""
    max_share: float = 0.2
    """[0, 1] of those votes' weight that one annotator may have; 1 is off."""
    free_votes: float = 5.0
    """Weight that anybody may have on top of it: without some, equals would block each other."""
    history_points: int = 200
