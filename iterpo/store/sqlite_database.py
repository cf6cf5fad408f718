"""`SqliteDatabase`: the file, its one writer, its reader, and whoever wants to hear of commits."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from iterpo.errors import WrongState
from iterpo.store.commit import Listeners, Operation
from iterpo.store.connection import Connection
from iterpo.store.events import newest_cursor, read_events
from iterpo.store.sqlite_file import open_reader, open_writer
from iterpo.store.sqlite_writer import Writer, store_error
from iterpo.store.transaction import Clock
from iterpo.types import FeedbackEvent

T = TypeVar("T")


class SqliteDatabase:
    """As FeedbackDatabase says. One process at a time may open a file; a second one is told so (STORE_IN_USE)."""

    owner = ""

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self.path = path
        self.clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(path)
        self._lock_file: int | None = lock
        try:
            connection = open_writer(path)
        except BaseException:
            os.close(lock)
            raise
        self._reading = open_reader(path)
        self._listeners = Listeners()
        self.subscribe = self._listeners.subscribe
        self._write_connection = connection
        self._writer = Writer(connection, clock, self._listeners.tell)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="iterpo-store-reader")

    def write(self, operation: Operation[T]) -> Future[T]:
        return self._writer.submit(operation)

    def read(self, query: Callable[[Connection], T]) -> Future[T]:
        return self._reader.submit(self._query, query)

    def read_settled(self, query: Callable[[Connection, int], T]) -> Future[T]:
        return self.read(lambda connection: query(connection, newest_cursor(connection)))

    def events(self, run_id: str, after: int, limit: int = 256) -> Future[list[FeedbackEvent]]:
        return self.read_settled(lambda connection, upto: read_events(connection, run_id, after, limit, upto))

    def on_duty(self) -> bool:
        return True

    def when_on_duty(self, begin: Callable[[], None]) -> None:
        begin()

    def close(self) -> None:
        """The file can be opened again afterwards, even when a failing disk raises here."""
        try:
            self._writer.close()
            self._reader.shutdown(wait=True)
            self._reading.close()
            self._write_connection.close()
        finally:
            lock, self._lock_file = self._lock_file, None
            if lock is not None:
                os.close(lock)

    def _query(self, query: Callable[[Connection], T]) -> T:
        try:
            return query(self._reading)
        except apsw.Error as error:
            raise store_error(error) from error


def lock_file(path: Path) -> int:
    """An advisory lock that the kernel drops with the process, `kill -9` included."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise WrongState(
            f"The feedback database {path} is in use by another process.",
            "Stop the other labeling server, or set labeling.store to another path.",
            "STORE_IN_USE",
        ) from error
    return descriptor
