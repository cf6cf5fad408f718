"""A machine that several parts share: each of n that work at the same time gets on at 1/n of its speed.

Engine and learner both use every core that there is, so that is what the scheduler gives them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

Waiting = Generator[simpy.Event, Any, None]
DONE = 1e-9
"""Seconds of work: less is a rounding error."""


class Cores:
    def __init__(self, clock: simpy.Environment) -> None:
        self._clock = clock
        self._left: dict[simpy.Event, float] = {}
        self._looked = clock.now
        self._turn = 0
        self.busy = 0.0
        """Seconds in which anything worked."""

    def work(self, seconds: float) -> simpy.Event:
        """Happens when so much work, alone on the machine, is done."""
        self._get_on()
        done = self._clock.event()
        self._left[done] = seconds
        self._plan()
        return done

    def _get_on(self) -> None:
        passed, self._looked = self._clock.now - self._looked, self._clock.now
        if self._left:
            self.busy += passed
        for job in self._left:
            self._left[job] -= passed / len(self._left)

    def _plan(self) -> None:
        self._turn += 1  # alarms from before are void: the share has changed
        if self._left:
            self._clock.process(self._alarm(min(self._left.values()) * len(self._left), self._turn))

    def _alarm(self, seconds: float, turn: int) -> Waiting:
        yield self._clock.timeout(max(0.0, seconds))
        if turn != self._turn:
            return
        self._get_on()
        for job in [job for job, left in self._left.items() if left <= DONE]:
            del self._left[job]
            job.succeed()
        self._plan()
