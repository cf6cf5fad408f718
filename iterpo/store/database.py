"""`FeedbackDatabase`: the feedback store, a SQLite file of one labeling server or a PostgreSQL database of several."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

from iterpo.errors import InvalidConfig
from iterpo.store.address import is_postgresql
from iterpo.store.commit import Listener, Operation
from iterpo.store.connection import Connection
from iterpo.store.transaction import Clock
from iterpo.types import FeedbackEvent

T = TypeVar("T")


class FeedbackDatabase(Protocol):
    """Durable before the answer: a future of `write` is done only after its transaction is on the disk.

    Nothing here blocks but `close`: `write` and `read` return futures (`asyncio.wrap_future` them in a server).
    """

    @property
    def path(self) -> Path | None:
        """Of the file, where it is one."""
        ...

    @property
    def clock(self) -> Clock:
        """The store's time, which every server on it shares."""
        ...

    @property
    def owner(self) -> str:
        """Whose work in hand is this server's: "" where there is one server, which takes up what an earlier process
        left."""
        ...

    def write(self, operation: Operation[T]) -> Future[T]:
        """Run `operation` in a transaction: it may be run again when others were in its way, so it changes nothing
        else. Errors it raises arrive through the future. Raises Unavailable once the store is closed."""
        ...

    def read(self, query: Callable[[Connection], T]) -> Future[T]:
        """Run `query` on a read-only connection: it sees everything committed before it started."""
        ...

    def read_settled(self, query: Callable[[Connection, int], T]) -> Future[T]:
        """As `read`, with the cursor up to which no event is still to appear: who reads on after it misses none."""
        ...

    def events(self, run_id: str, after: int, limit: int = 256) -> Future[list[FeedbackEvent]]:
        """At most `limit` settled events with a cursor above `after`, oldest first; `run_id` "" means every run."""
        ...

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit, in a thread of the store's: it must be quick. Returns what ends it."""
        ...

    def on_duty(self) -> bool:
        """Whether this server does what one alone may do: machines' labels, annotators' states, the label budget."""
        ...

    def when_on_duty(self, begin: Callable[[], None]) -> None:
        """Call `begin` whenever this server takes the duty over: now, when it has it already."""
        ...

    def close(self) -> None:
        """Commit what was submitted, then close. Safe to call twice."""
        ...


def open_database(where: Path | str, clock: Clock | None = None) -> FeedbackDatabase:
    """`where`: a SQLite file, or the address of a PostgreSQL database (`postgresql://USER@HOST:PORT/NAME`; its password
    comes from PGPASSWORD or ~/.pgpass). `clock`: instead of the store's own, for tests.

    Raises InvalidConfig when it cannot be opened; WrongState STORE_IN_USE for a file that another process has open,
    STORE_TOO_NEW, STORE_TOO_OLD or STORE_CORRUPT.
    """
    if is_postgresql(where):
        try:
            from iterpo.store.postgresql_database import PostgresqlDatabase
        except ImportError as error:
            raise InvalidConfig(
                f"labeling.store is a PostgreSQL database, and its client is not installed: {error}.",
                "pip install 'iterpo[postgresql]', or name a file.",
                "POSTGRESQL_NOT_INSTALLED",
            ) from error
        return PostgresqlDatabase(str(where), clock)
    from iterpo.store.sqlite_database import SqliteDatabase

    return SqliteDatabase(Path(where), clock or time.time)
