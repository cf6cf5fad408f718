"""`InfluenceWindow`: nobody decides alone, however fast he labels.

One flipped label moves DPO's gradient by a bounded amount, so a cap on an annotator's weight is a cap on the harm he
can do before he is found out. The cap works on what votes weigh when they are given, not on who gives how many.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque


class InfluenceWindow:
    """The last `window_votes` votes that weighed something.

    Law: right after an annotator's vote, his weight in the window is at most
    `max(max_share, 1 / annotators in the window) * weight of the window + free_votes`.
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
        while len(self._votes) >= self._size:
            self._evict()
        allowance = self.cap(annotator) * self.total() + self.free_votes - self.of(annotator)
        allowed = min(weight, max(allowance, 0.0))
        if allowed > 0:
            self._votes.append((annotator, allowed))
            self._numbers[annotator] += 1
            self._weights[annotator] += allowed
        return allowed

    def cap(self, annotator: str) -> float:
        """The share of the window's weight that everybody may have, if `annotator` is about to vote."""
        active = len(self._numbers) + (annotator not in self._numbers)
        return max(self.max_share, 1.0 / active)

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
