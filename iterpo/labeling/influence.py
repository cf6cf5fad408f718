"""`InfluenceWindow`: nobody decides alone, however fast he labels.

One flipped label moves DPO's gradient by a bounded amount, so a cap on an annotator's weight is a cap on the harm he
can do before he is found out. The cap works on what votes weigh when they are given, not on who gives how many.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

LEAST_SHARE = 0.1
"""Of what was asked for: less is not worth a place, and slivers would fill the window."""


class InfluenceWindow:
    """The last votes that together weigh `window_votes`: as many votes of full weight.

    Law: right after an annotator's vote, his weight in the window is at most
    `max_share * weight of the window + free_votes`, once `1 / max_share` annotators or more are in the window.
    Not implemented: making earlier votes lighter when the others fall silent.
    """

    def __init__(self, window_votes: int = 1_000, max_share: float = 0.2, free_votes: float = 5.0) -> None:
        self.max_share = max_share
        self.free_votes = free_votes
        self._votes: deque[tuple[str, float]] = deque()
        self._size = window_votes
        self._weights: dict[str, float] = defaultdict(float)
        self._numbers: Counter[str] = Counter()

    def allow(self, annotator: str, weight: float) -> float:
        """The weight in [0, `weight`] that the annotator's next vote may have; it is recorded as given."""
        if weight <= 0:
            return 0.0
        while self._votes and self.total() + weight > self._size:
            self._evict()
        allowance = self.cap(annotator) * self.total() + self.free_votes - self.of(annotator)
        allowed = min(weight, allowance)
        if allowed < LEAST_SHARE * weight:
            return 0.0
        self._votes.append((annotator, allowed))
        self._numbers[annotator] += 1
        self._weights[annotator] += allowed
        return allowed

    def cap(self, annotator: str) -> float:
        """The share of the window's weight that everybody may have, if `annotator` is about to vote. Fewer than
        1 / max_share people cannot all stay below it: of two, one who does four fifths of the work is no attacker."""
        active = len(self._numbers) + (annotator not in self._numbers)
        return self.max_share if active * self.max_share >= 1.0 else 1.0

    def total(self) -> float:
        return sum(self._weights.values())

    def of(self, annotator: str) -> float:
        """The annotator's weight in the window."""
        return self._weights.get(annotator, 0.0)

    def _evict(self) -> None:
        annotator, weight = self._votes.popleft()
        self._numbers[annotator] -= 1
        self._weights[annotator] -= weight
        if not self._numbers[annotator]:
            # Also ends the rounding errors of taking weights off again.
            del self._numbers[annotator], self._weights[annotator]
