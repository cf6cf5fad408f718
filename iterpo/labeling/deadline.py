"""A deadline for code that cannot be interrupted: run it in a thread of its own and walk away when time is up.

Python cannot end a thread. An overdue call is abandoned (its thread ends when the call returns, its answer is thrown
away), and once `most_abandoned` calls hang at the same time, further calls fail at once instead of piling up threads.
A call that never releases the interpreter lock (a catastrophic regular expression) stops the process: not handled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """So many earlier calls never came back that no further one is started."""


class DeadlineRunner:
    """Runs calls with a deadline. May be used from several threads."""

    def __init__(self, seconds: float, most_abandoned: int = 8) -> None:
        self.seconds = seconds
        self._most_abandoned = most_abandoned
        self._abandoned = 0
        self._lock = threading.Lock()
        self._closed: Future[None] = Future()

    def run(self, call: Callable[[], T], allowance: float = 1.0) -> T:
        """The call's result, or what it raised. Raises TimeoutError after `allowance` deadlines, or StuckError."""
        with self._lock:
            if self._abandoned >= self._most_abandoned:
                raise StuckError(f"{self._abandoned} earlier calls never came back")
        future: Future[T] = Future()
        threading.Thread(target=_answer, args=(call, future), name="iterpo-labeler", daemon=True).start()
        waited: list[Future[Any]] = [future, self._closed]
        wait(waited, timeout=self.seconds * allowance, return_when=FIRST_COMPLETED)
        if future.done():
            return future.result()
        self._abandon(future)
        raise TimeoutError(f"no answer within {self.seconds * allowance:g} s")

    def close(self) -> None:
        """Let every waiting caller go at once, as if its time were up. Safe to call twice."""
        with self._lock:
            if not self._closed.done():
                self._closed.set_result(None)

    def _abandon(self, future: Future[T]) -> None:
        with self._lock:
            self._abandoned += 1
        future.add_done_callback(self._came_back)

    def _came_back(self, _: Future[T]) -> None:
        with self._lock:
            self._abandoned -= 1


def _answer(call: Callable[[], T], future: Future[T]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - handed to the caller, who decides; the thread must not die silently
        future.set_exception(error)
    else:
        future.set_result(result)
