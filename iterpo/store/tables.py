"""The store's tables as they are, in an order in which each row's references come before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import apsw

from iterpo.store.migrate import sqlite_statements

NAMES = (
    "events", "requests", "groups", "completions", "work", "verdicts", "tasks", "leases", "labels", "standings",
    "label_counts",
)  # fmt: skip
IN_ORDER = ("work", "leases", "labels")
"""Tables whose rows are asked for in the order in which they came: that is copied, too."""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    """Its primary key."""

    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name} ORDER BY {', '.join(self.key)}"

    def insert(self) -> str:
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({', '.join('?' * len(self.columns))})"


@lru_cache(maxsize=1)
def tables() -> tuple[Table, ...]:
    """Read from a new file's definitions: they are said in one place."""
    made = apsw.Connection(":memory:")
    made.execute(sqlite_statements(0))
    found = []
    for name in NAMES:
        rows = made.execute(f"SELECT name, pk FROM pragma_table_info('{name}') ORDER BY cid").fetchall()
        key = tuple(str(column) for column, place in sorted(rows, key=lambda row: int(str(row[1]))) if place)
        columns = tuple(str(column) for column, _ in rows)
        if name in IN_ORDER:
            key, columns = ("rowid",), ("rowid", *columns)
        found.append(Table(name, columns, key))
    made.close()
    return tuple(found)
