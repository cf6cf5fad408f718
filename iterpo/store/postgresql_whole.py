"""A whole PostgreSQL store in one hand (`iterpo.store.whole`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg

from iterpo.store.connection import Row
from iterpo.store.postgresql_connection import PostgresqlConnection, translated
from iterpo.store.postgresql_database import SESSION, unreachable
from iterpo.store.postgresql_schema import check_schema
from iterpo.store.tables import IN_ORDER


class WholeDatabase(PostgresqlConnection):
    """Within one transaction."""

    def __init__(self, raw: psycopg.Connection[Row]) -> None:
        super().__init__(raw)
        self._names = count()

    def stream(self, sql: str) -> Iterable[Row]:
        with self.raw.cursor(name=f"iterpo_{next(self._names)}") as cursor:
            cursor.itersize = 1000
            cursor.execute(translated(sql), ())
            yield from cursor

    def number_on(self) -> None:
        """What comes next is numbered above what was copied."""
        for table, column in [("events", "cursor"), *((name, "rowid") for name in IN_ORDER)]:
            self.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table} "
                f"HAVING max({column}) IS NOT NULL"
            )


@contextmanager
def postgresql_reading(address: str) -> Iterator[WholeDatabase]:
    with _connected(address) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield WholeDatabase(connection)
        connection.rollback()


@contextmanager
def postgresql_filling(address: str) -> Iterator[WholeDatabase]:
    with _connected(address) as connection:
        whole = WholeDatabase(connection)
        yield whole
        whole.number_on()


@contextmanager
def _connected(address: str) -> Iterator[psycopg.Connection[Any]]:
    """Commits at the end. Raises Unavailable, WrongState as `check_schema`."""
    session = SESSION | {"application_name": "iterpo store"}
    try:
        check_schema(address, session)
        connection = psycopg.connect(address, **session)
    except psycopg.OperationalError as error:
        raise unreachable(address, error) from error
    with connection:
        connection.execute("SET idle_in_transaction_session_timeout = 0")
        connection.commit()
        yield connection
