"""What is known of an annotator: the votes he gave and the profile made of them."""

from __future__ import annotations

from dataclasses import dataclass

from iterpo.types import AnnotatorState, Outcome, TaskKind

MACHINE = "/"
"""Names of machine labelers hold it: `reward_model/taste`, `judge/llm`."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One label, as the crowd looks at it."""

    item: str
    """The pair. A repeat's is that of the label it repeats."""
    annotator: str
    outcome: Outcome
    """In the item's own order, not the presented one."""
    presented_swapped: bool
    duration_seconds: float
    at: float
    """Seconds since the epoch."""
    kind: TaskKind
    gold: Outcome | None
    """The right answer of a gold task; None otherwise."""
    vote_id: str

    @property
    def decided(self) -> bool:
        """Whether it takes one side: the votes that accuracy and left share are about."""
        return self.outcome in (Outcome.FIRST, Outcome.SECOND)

    @property
    def left(self) -> bool:
        """Whether the answer shown on the left won."""
        return (self.outcome is Outcome.FIRST) != self.presented_swapped


@dataclass(frozen=True, slots=True)
class Interval:
    """A posterior: its mean, and the middle 95 %."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rate:
    right: int
    total: int


@dataclass(frozen=True, slots=True)
class Profile:
    """An annotator's figures, over the kept window of items."""

    annotator: str
    state: AnnotatorState
    reasons: tuple[str, ...]
    """Sentences; empty when OK."""
    labels: int
    """All of them, skips and repeats too, and those that left the window."""
    accuracy: Interval
    """Of taking the right side, on what could be judged; as of the last refresh."""
    judged: int
    """Votes that this rests on: gold, and pairs that others with weight labelled too."""
    gold: Rate
    """Skips are not counted; a tie is wrong where one answer is better."""
    self_consistency: Rate
    """Repeats answered like the first time; skips are not counted."""
    left_share: Interval
    median_seconds: float
    """0 without labels."""
    too_fast_share: float
    """[0, 1]; 0 when min_seconds is off."""
    weight: float
    """What a vote counts now, before the influence cap."""
