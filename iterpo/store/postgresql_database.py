"""`PostgresqlDatabase`: the store of several labeling servers at once. Each operation is a transaction of its own, on
one of a few connections; PostgreSQL lets those that commit at the same time share a sync.

What one server alone may do (`on_duty`) is whoever holds an advisory lock; the database gives it to another when that
server, or its connection, is gone.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from iterpo.errors import InvalidInput, IterpoError, ResourceExhausted, Unavailable
from iterpo.store.address import without_password
from iterpo.store.commit import Commit, Listeners, Operation
from iterpo.store.connection import Connection, Row
from iterpo.store.events import read_events
from iterpo.store.postgresql_connection import SHARDS, PostgresqlConnection, RowLocks, settled_cursor
from iterpo.store.postgresql_news import CHANNEL, News
from iterpo.store.postgresql_schema import check_schema
from iterpo.store.transaction import Clock, Transaction
from iterpo.types import FeedbackEvent

logger = logging.getLogger(__name__)

T = TypeVar("T")

WRITERS, READERS = 8, 4
"""Connections, and threads. More writers than cores: most of the time they wait for the database."""
TRIES = 8
"""Of a transaction that another one was in the way of."""
WAIT_SECONDS = 10.0
"""For a connection: afterwards the caller is told to send again."""
SESSION: dict[str, Any] = {
    "application_name": "iterpo labeling",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    # A server that hangs in mid-transaction holds events back and keeps locks: the database lets go of it.
    "options": "-c idle_in_transaction_session_timeout=30s -c lock_timeout=20s -c timezone=UTC "
    "-c default_transaction_isolation=read\\ committed",
}


class WriterConnection(psycopg.Connection[Row]):
    shard = 0


class PostgresqlDatabase:
    """As FeedbackDatabase says."""

    path = None

    def __init__(self, address: str, clock: Clock | None = None) -> None:
        """Raises Unavailable (STORE_UNREACHABLE), WrongState as `check_schema`."""
        self.address, self.owner = address, uuid.uuid4().hex
        self._given_clock, self._ahead = clock, 0.0
        self._closed = False
        self._listeners = Listeners()
        self.subscribe = self._listeners.subscribe
        try:
            check_schema(address, SESSION)
        except psycopg.OperationalError as error:
            raise unreachable(address, error) from error
        session: dict[str, Any] = SESSION | {"autocommit": True}
        self._writing = ConnectionPool(
            address,
            connection_class=WriterConnection,
            kwargs=session,
            configure=_prepare,
            min_size=1,
            max_size=WRITERS,
            timeout=WAIT_SECONDS,
            open=True,
        )
        self._reading = ConnectionPool(
            address,
            kwargs=session,
            configure=_only_read,
            min_size=1,
            max_size=READERS,
            timeout=WAIT_SECONDS,
            open=True,
        )
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="iterpo-store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="iterpo-store-reader")
        self._news = News(address, SESSION, self.owner, self._listeners.tell)

    @property
    def clock(self) -> Clock:
        return self._given_clock or (lambda: time.time() + self._ahead)

    def write(self, operation: Operation[T]) -> Future[T]:
        self._check_open()
        return self._writers.submit(self._transact, operation)

    def read(self, query: Callable[[Connection], T]) -> Future[T]:
        self._check_open()
        return self._readers.submit(self._query, query)

    def read_settled(self, query: Callable[[Connection, int], T]) -> Future[T]:
        def settled(connection: PostgresqlConnection) -> T:
            upto = settled_cursor(connection)
            return query(connection, upto)

        self._check_open()
        return self._readers.submit(self._query, settled)

    def events(self, run_id: str, after: int, limit: int = 256) -> Future[list[FeedbackEvent]]:
        return self.read_settled(lambda connection, upto: read_events(connection, run_id, after, limit, upto))

    def on_duty(self) -> bool:
        return self._news.on_duty

    def when_on_duty(self, begin: Callable[[], None]) -> None:
        self._news.when_on_duty(begin)

    def close(self) -> None:
        self._closed = True
        self._writers.shutdown(wait=True)
        self._news.close()
        self._readers.shutdown(wait=True)
        self._writing.close()
        self._reading.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The feedback store is closed.", "Try again when the labeling server is back.")

    def _transact(self, operation: Operation[T]) -> T:
        for tried in range(1, TRIES + 1):
            try:
                return self._attempt(operation)
            except (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable) as error:
                if tried == TRIES:
                    raise store_error(error) from error
                time.sleep(random.uniform(0, 0.01 * 2**tried))
            except _NeverBegun as error:
                # A connection that had died unnoticed; the pool makes another.
                if tried == TRIES:
                    raise store_error(error.cause) from error.cause
            except (psycopg.Error, PoolTimeout, PoolClosed) as error:
                raise store_error(error) from error
        raise AssertionError("unreachable")

    def _attempt(self, operation: Operation[T]) -> T:
        with self._writing.connection() as raw:
            connection = PostgresqlConnection(raw)
            started = time.monotonic()
            try:
                now = connection.begin()
            except psycopg.OperationalError as error:
                raise _NeverBegun(error) from error
            self._ahead = now - time.time()
            if self._given_clock is not None:
                now = self._given_clock()
            transaction = Transaction(connection, now, RowLocks(connection), raw.shard)
            try:
                result = operation(transaction)
                raw.execute(self._commit(transaction))
            except BaseException:
                _roll_back(raw)
                raise
        kinds = tuple(transaction.appended)
        self._listeners.tell(Commit(1, time.monotonic() - started, kinds, transaction.opened))
        return result

    def _commit(self, transaction: Transaction) -> str:
        """Others are told in the same round trip."""
        if not transaction.appended and not transaction.opened:
            return "COMMIT"
        news = " ".join([self.owner, "opened" if transaction.opened else "", *dict.fromkeys(transaction.appended)])
        return f"NOTIFY {CHANNEL}, '{news}'; COMMIT"

    def _query(self, query: Callable[[PostgresqlConnection], T]) -> T:
        for last in (False, True):
            try:
                with self._reading.connection() as raw:
                    return query(PostgresqlConnection(raw))
            except psycopg.OperationalError as error:
                if last:
                    raise store_error(error) from error
            except (psycopg.Error, PoolTimeout, PoolClosed) as error:
                raise store_error(error) from error
        raise AssertionError("unreachable")


class _NeverBegun(Exception):
    def __init__(self, cause: psycopg.OperationalError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _prepare(raw: WriterConnection) -> None:
    """A shard of its own, held as long as the connection lives."""
    if (raw.execute("SHOW synchronous_commit").fetchone() or ("on",))[0] == "off":
        raw.execute("SET synchronous_commit = on")  # durable before the answer, whatever the server's default is
    shard = 0
    while not (raw.execute("SELECT pg_try_advisory_lock(%s, %s)", (SHARDS, shard)).fetchone() or (False,))[0]:
        shard += 1
    raw.shard = shard


def _only_read(raw: psycopg.Connection[Row]) -> None:
    raw.execute("SET default_transaction_read_only = on")


def _roll_back(raw: psycopg.Connection[Row]) -> None:
    try:
        raw.execute("ROLLBACK")
    except psycopg.Error as error:
        logger.debug("nothing is left to roll back: %s", error)
        raw.close()  # the pool makes another


def store_error(error: Exception) -> IterpoError:
    """What PostgreSQL said, as an error that names the fix."""
    if isinstance(error, errors.DiskFull):
        return ResourceExhausted(
            "The feedback store's disk is full; nothing of this request was stored, what was stored before is safe.",
            "Free space on the disk of PostgreSQL and send the request again with the same request_id.",
            "DISK_FULL",
        )
    if isinstance(error, psycopg.DataError):
        return InvalidInput(
            f"The store cannot keep a value of the request: {str(error).strip()}.",
            "Send no NUL characters, and numbers within 64 bits.",
            "VALUE_NOT_KEPT",
        )
    return Unavailable(
        f"The feedback store cannot be used: {type(error).__name__}: {str(error).strip()}.",
        "Look at PostgreSQL, then send the request again with the same request_id.",
        "STORE_FAILED",
    )


def unreachable(address: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"The feedback store {without_password(address)} cannot be reached: {str(error).strip()}.",
        "Start PostgreSQL, or mend labeling.store; the password comes from PGPASSWORD or ~/.pgpass.",
        "STORE_UNREACHABLE",
    )
