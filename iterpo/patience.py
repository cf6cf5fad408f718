"""Waiting for another process to come back: bounded, visible, and interruptible (invariant 9)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from iterpo.errors import IterpoError, Unavailable

Result = TypeVar("Result")
FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.25, 5.0


class RunStopped(IterpoError):
    """Somebody asked the run to stop; its last checkpoint stands."""

    code = "CANCELLED"
    reason = "RUN_STOPPED"


class Control:
    """How a run is paused and stopped from another thread, and how it says what it is doing."""

    def __init__(self, on_status: Callable[[str, bool], None] = lambda text, waiting: None) -> None:
        """`on_status(text, waiting)` is called from the run's own threads."""
        self._running = threading.Event()
        self._running.set()
        self._stopped = threading.Event()
        self.status = on_status

    def sharing(self, on_status: Callable[[str, bool], None]) -> Control:
        """Another loop's of the same run: paused and stopped together, heard apart."""
        other = Control(on_status)
        other._running, other._stopped = self._running, self._stopped
        return other

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def stop(self) -> None:
        self._stopped.set()
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def point(self) -> None:
        """Where a run may be paused or stopped: between iterations, and while it waits."""
        self._running.wait()
        if self._stopped.is_set():
            raise RunStopped("The run was stopped.", "Go on with: iterpo run resume")

    def wait(self, what: str, seconds: float) -> None:
        """Sleep, visibly; ended by a stop. Raises RunStopped."""
        self.status(what, True)
        self._stopped.wait(seconds)
        self.point()

    def patiently(self, what: str, call: Callable[[], Result], patience_seconds: float = 1800.0) -> Result:
        """`call()`, again and again with growing pauses while it raises Unavailable; `call` must be repeatable."""
        delay, deadline = FIRST_DELAY_SECONDS, time.monotonic() + patience_seconds
        while True:
            self.point()
            try:
                result = call()
            except Unavailable as error:
                if time.monotonic() > deadline:
                    raise
                self.status(f"waiting for {what}: {error.message}", True)
                self._stopped.wait(delay)
                delay = min(2 * delay, LAST_DELAY_SECONDS)
            else:
                self.status(what, False)
                return result
