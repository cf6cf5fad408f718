"""`Commit`: what a transaction did, for metrics and for whoever waits for events."""

from __future__ import annotations

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
