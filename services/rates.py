"""`Rates`: how often each caller may call, as a bucket that fills up while he waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from iterpo.errors import ResourceExhausted

BURST_SECONDS = 6.0
"""A bucket holds what this time gives: so many calls may come at once."""


class Rates:
    """One bucket a key; there are as many as tokens."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._most = max(1.0, per_second * BURST_SECONDS)
        self._buckets: dict[str, tuple[float, float]] = {}
        """Key -> (calls left, when that was so)."""

    def take(self, key: str) -> None:
        """Raises ResourceExhausted (CALLS_TOO_OFTEN)."""
        now = self._clock()
        left, since = self._buckets.get(key, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        if left < 1.0:
            self._buckets[key] = (left, now)
            wait = (1.0 - left) / self._per_second
            raise ResourceExhausted(
                f"The token may make {self._per_second:g} calls a second.",
                f"Wait {wait:.2g} s, or ask for a higher auth.calls_per_second.",
                "CALLS_TOO_OFTEN",
            )
        self._buckets[key] = (left - 1.0, now)
