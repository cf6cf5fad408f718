"""`Admission`: how many answers may be under way, and who has had enough for the moment.

Applications queue for the engine's places; beyond the queue they are told at once to come back, and when, instead of
waiting for an answer that comes too late. A learner's own sampling is not counted: it asks for whole groups and waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from iterpo.errors import ResourceExhausted

FIRST_GUESS_SECONDS = 1.0
"""What an answer takes, before the first is through."""
MEMORY = 0.9
"""Weight of the past in the running mean of answers' seconds."""


class Admission:
    """`places`: answers that the engine makes at the same time; `queue`: how many more may wait."""

    def __init__(
        self,
        places: int,
        queue: int,
        clock: Callable[[], float] = time.monotonic,
        on_refusal: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._places, self._most, self._clock, self._on_refusal = places, places + queue, clock, on_refusal
        self._seconds = FIRST_GUESS_SECONDS
        self.inside = 0

    @asynccontextmanager
    async def enter(self, answers: int = 1) -> AsyncIterator[None]:
        """Raises ResourceExhausted (QUEUE_FULL) with the time to wait; (TOO_MANY_ANSWERS) when it can never be."""
        if answers > self._most:
            self._on_refusal("TOO_MANY_ANSWERS")
            raise ResourceExhausted(
                f"{answers} answers were asked for at once, and {self._most} are the most.",
                "Ask for fewer, or raise inference.max_queue.",
                "TOO_MANY_ANSWERS",
            )
        if self.inside + answers > self._most:
            self._on_refusal("QUEUE_FULL")
            raise ResourceExhausted(
                f"{self.inside} answers are under way or wait, and {self._most} are the most.",
                f"Try again in {self.wait_seconds} s, or raise inference.max_queue.",
                "QUEUE_FULL",
                self.wait_seconds,
            )
        self.inside += answers
        started = self._clock()
        try:
            yield
        finally:
            self.inside -= answers
            self._seconds = MEMORY * self._seconds + (1 - MEMORY) * (self._clock() - started)

    @property
    def wait_seconds(self) -> int:
        """Whole seconds until a place should be free: the queue's length in rounds, each as long as answers take."""
        rounds = max(1, math.ceil((self.inside - self._places + 1) / self._places))
        return max(1, math.ceil(rounds * self._seconds))


class Quota:
    """Tokens a minute for each caller, prompt and answer together: a bucket that holds a minute's worth and fills
    evenly. It may go below nothing, since nobody knows how long an answer becomes; then the caller waits."""

    def __init__(
        self,
        tokens_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        on_refusal: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """0: no quota."""
        self._rate, self._clock, self._on_refusal = tokens_per_minute / 60, clock, on_refusal
        self._full = float(tokens_per_minute)
        self._buckets: dict[str, tuple[float, float]] = {}
        """Caller -> (tokens left, at what time)."""

    def check(self, caller: str) -> None:
        """Raises ResourceExhausted (QUOTA_EXCEEDED) with the time to wait."""
        left = self._left(caller)
        if self._rate and left <= 0:
            seconds = max(1, math.ceil(-left / self._rate))
            self._on_refusal("QUOTA_EXCEEDED")
            raise ResourceExhausted(
                f"This caller's quota of {self._full:.0f} tokens a minute is used up.",
                f"Try again in {seconds} s, or raise inference.tokens_per_minute.",
                "QUOTA_EXCEEDED",
                seconds,
            )

    def use(self, caller: str, tokens: int) -> None:
        if self._rate:
            self._buckets[caller] = (self._left(caller) - tokens, self._clock())

    def _left(self, caller: str) -> float:
        left, at = self._buckets.get(caller, (self._full, 0.0))
        return min(self._full, left + self._rate * (self._clock() - at))
