"""What a query of the store is handed, of whichever engine: apsw's connection has this shape, and PostgreSQL's is given
it. The queries are written once, in what both understand: `?` and `:name` for parameters, `rowid` for the order in
which rows came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

Value = str | int | float | bytes | None
Parameters = Sequence[Value] | Mapping[str, Value]
Row = tuple[Any, ...]


class Rows(Protocol):
    """A statement's answer. It is read once."""

    def __iter__(self) -> Iterator[Row]: ...

    def fetchone(self) -> Row | None: ...

    def fetchall(self) -> list[Row]: ...

    @property
    def get(self) -> Any:
        """The only column of the first row; None without one."""
        ...


class Connection(Protocol):
    def execute(self, sql: str, parameters: Parameters = (), /) -> Rows: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Value]], /) -> object: ...


class Locks(Protocol):
    """Who else may not touch what a transaction looks at, until it ends. SQLite has one writer: nothing to lock."""

    skip: str
    """Ends a SELECT of rows that are about to be taken: those that somebody else is taking are left out."""

    def person(self, annotator: str) -> None:
        """Nobody else leases to this person, or stores labels of his."""
        ...

    def task(self, task_id: str) -> None:
        """Nobody else changes the task, its leases and its labels. What was read of them before may be old."""
        ...


class OneWriter:
    """SQLite's locks."""

    skip = ""

    def person(self, annotator: str) -> None: ...

    def task(self, task_id: str) -> None: ...
