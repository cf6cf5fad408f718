"""A lock that is handed on in the order of asking, so that whoever holds it for long can let others in between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        """Whose turn it is, and after him who waits."""

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within: it is this thread's turn. Not for one that has it already."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def give_way(self) -> None:
        """Let those who wait have their turns now; of the thread whose turn it is."""
        if len(self._queue) > 1:
            self._leave()
            self._enter()

    def _enter(self) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket)

    def _leave(self) -> None:
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()
