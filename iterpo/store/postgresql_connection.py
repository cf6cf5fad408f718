"""PostgreSQL as the store's queries see it: their placeholders and SQLite's hints translated, rows with `get`; locks of
rows and persons; and how far events may be read.

A cursor comes from a sequence, so of two transactions that are under way at the same time the one with the lower
cursors may commit last, and who reads on after the higher ones would never see them. Therefore every transaction, when
it begins, takes the sequence's value as an advisory lock: its own cursors will be above that. Events are readable up to
the lowest such lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from iterpo.store.connection import Parameters, Row, Value
from iterpo.store.rows import float_of, int_of

PERSONS, DUTY, SHARDS = 0x1701, 0x1702, 0x1703
"""Classes of our advisory locks that have two keys; those of cursors have one."""
BEGIN = """BEGIN;
SELECT extract(epoch FROM clock_timestamp())::float8,
       pg_advisory_xact_lock_shared(CASE WHEN is_called THEN last_value ELSE 0 END)::text
FROM events_cursor_seq"""
_NEWEST = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM events_cursor_seq"
_LOWEST_OPEN = """SELECT min((classid::bigint << 32) | objid::bigint) FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class PostgresqlRows:
    def __init__(self, cursor: psycopg.Cursor[Row]) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[Row]:
        return iter(self._cursor)

    def fetchone(self) -> Row | None:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Row]:
        return self._cursor.fetchall()

    @property
    def get(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else row[0]


class PostgresqlConnection:
    def __init__(self, raw: psycopg.Connection[Row]) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Parameters = (), /) -> PostgresqlRows:
        return PostgresqlRows(self.raw.execute(translated(sql), parameters))

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]], /) -> None:
        with self.raw.cursor() as cursor:
            cursor.executemany(translated(sql), rows)

    def begin(self) -> float:
        """Seconds since the epoch, the database's clock."""
        cursor = self.raw.execute(BEGIN)
        cursor.nextset()
        now, _ = cursor.fetchone() or (None, None)
        return float_of(now)


class RowLocks:
    """Locks that last until the transaction ends. Of several, the person's comes first."""

    skip = "FOR NO KEY UPDATE SKIP LOCKED"

    def __init__(self, connection: PostgresqlConnection) -> None:
        self._connection = connection
        self._persons: set[str] = set()

    def person(self, annotator: str) -> None:
        if annotator in self._persons:
            return
        self._persons.add(annotator)
        self._connection.execute("SELECT pg_advisory_xact_lock(?, hashtext(?))", (PERSONS, annotator))

    def task(self, task_id: str) -> None:
        self._connection.execute("SELECT 1 FROM tasks WHERE task_id = ? FOR NO KEY UPDATE", (task_id,))


def settled_cursor(connection: PostgresqlConnection) -> int:
    """No event up to it is still to appear. The questions' order matters: a transaction that begins in between gets
    cursors above the first answer. Events are to be read by a later statement than these."""
    newest = int_of(connection.execute(_NEWEST).get)
    lowest = connection.execute(_LOWEST_OPEN).get
    return newest if lowest is None else min(newest, int_of(lowest))


@lru_cache(maxsize=256)
def translated(sql: str) -> str:
    sql = re.sub(r"\bINDEXED BY \w+", "", sql.replace("%", "%%"))
    sql = sql.replace("CROSS JOIN", "JOIN").replace("?", "%s")
    return re.sub(r"(?<![:\w]):([a-z]\w*)", r"%(\1)s", sql)
