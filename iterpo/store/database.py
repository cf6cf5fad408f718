"""`FeedbackDatabase`: the SQLite file, its one writer, its reader, and whoever wants to hear of commits."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from iterpo.errors import WrongState
from iterpo.store.events import read_events
from iterpo.store.schema import open_reader, open_writer
from iterpo.store.transaction import Clock
from iterpo.store.writer import Commit, Operation, Writer, store_error
from iterpo.types import FeedbackEvent

T = TypeVar("T")
Listener = Callable[[Commit], None]


class FeedbackDatabase:
    """Durable before the answer: a future of `write` is done only after its transaction is on the disk.

    Nothing here blocks: `write` and `read` return futures (`asyncio.wrap_future` them in a server). One process at a
    time may open a file; a second one is told so (WrongState STORE_IN_USE).
    """

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self.path = path
        self.clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        self._lock_file: int | None = lock
        try:
            connection = open_writer(path)
        except BaseException:
            os.close(lock)
            raise
        self._reading = open_reader(path)
        self._listeners: list[Listener] = []
        self._listeners_lock = threading.Lock()
        self._write_connection = connection
        self._writer = Writer(connection, clock, self._tell)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="iterpo-store-reader")

    def write(self, operation: Operation[T]) -> Future[T]:
        """Run `operation` in the writer's next transaction. Errors it raises arrive through the future."""
        return self._writer.submit(operation)

    def read(self, query: Callable[[apsw.Connection], T]) -> Future[T]:
        """Run `query` on a read-only connection: it sees everything committed before it started."""
        return self._reader.submit(self._query, query)

    def events(self, run_id: str, after: int, limit: int = 256) -> Future[list[FeedbackEvent]]:
        """At most `limit` events with a cursor above `after`, oldest first; `run_id` "" means every run."""
        return self.read(lambda connection: read_events(connection, run_id, after, limit))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every commit, in the writer's thread: it must be quick. Returns the unsubscriber."""
        with self._listeners_lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._listeners_lock:
                self._listeners.remove(listener)

        return unsubscribe

    def close(self) -> None:
        """Commit what was submitted, then close; the file can be opened again afterwards, even when a failing disk
        raises here. Safe to call twice."""
        try:
            self._writer.close()
            self._reader.shutdown(wait=True)
            self._reading.close()
            self._write_connection.close()
        finally:
            lock, self._lock_file = self._lock_file, None
            if lock is not None:
                os.close(lock)

    def _query(self, query: Callable[[apsw.Connection], T]) -> T:
        try:
            return query(self._reading)
        except apsw.Error as error:
            raise store_error(error) from error

    def _tell(self, commit: Commit) -> None:
        with self._listeners_lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(commit)


def _lock(path: Path) -> int:
    """An advisory lock that the kernel drops with the process, `kill -9` included."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise WrongState(
            f"The feedback database {path} is in use by another process.",
            "Stop the other labeling server, or set labeling.database to another path.",
            "STORE_IN_USE",
        ) from error
    return descriptor
