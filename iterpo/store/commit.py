"""`Commit`: what a transaction did, for metrics and for whoever waits for events (`Listeners`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from iterpo.store.transaction import Transaction

T = TypeVar("T")
Operation = Callable[[Transaction], T]


@dataclass(frozen=True, slots=True)
class Commit:
    operations: int
    """0: another labeling server's; nothing is known of it but `kinds` and `opened`."""
    seconds: float
    """From its begin to the return of COMMIT, the sync included."""
    kinds: tuple[str, ...]
    """Of the events appended, in order; another server's, each kind once."""
    opened: bool = False
    """A task may be leased that could not be before."""


Listener = Callable[[Commit], None]


class Listeners:
    """May be used by several threads."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """As FeedbackDatabase says."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return unsubscribe

    def tell(self, commit: Commit) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(commit)
