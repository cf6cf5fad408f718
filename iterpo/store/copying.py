"""A store copied into an empty one, of either kind, and proved: as many rows, and the same digest of each table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from iterpo.errors import WrongState
from iterpo.store.connection import Row
from iterpo.store.tables import Table, tables
from iterpo.store.whole import Whole

ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Copied:
    table: str
    rows: int
    digest: str
    """SHA-256 of all rows, in the order of their key; equal in both."""


def copy(source: Whole, target: Whole, progress: Callable[[str, int], None]) -> list[Copied]:
    """All or nothing, if the target's caller has begun a transaction. `progress`: (table, rows so far).

    Raises WrongState: STORE_NOT_EMPTY, or COPY_DIFFERS when what was written is read otherwise.
    """
    for table in tables():
        if target.execute(f"SELECT 1 FROM {table.name} LIMIT 1").get is not None:
            raise WrongState(
                f"The target has rows in `{table.name}` already.", "Copy into an empty store.", "STORE_NOT_EMPTY"
            )
    copied = []
    for table in tables():
        rows, digest = _write(source, target, table, progress)
        again = _digest(target.stream(table.select()))
        if again != (rows, digest):
            raise WrongState(
                f"Of `{table.name}` {rows} rows were written, and what is read is not the same ({again[0]} rows).",
                "Nothing was kept. Look at both databases' logs, and copy again.",
                "COPY_DIFFERS",
            )
        copied.append(Copied(table.name, rows, digest))
    return copied


def digests(source: Whole) -> list[Copied]:
    return [Copied(table.name, *_digest(source.stream(table.select()))) for table in tables()]


def _write(source: Whole, target: Whole, table: Table, progress: Callable[[str, int], None]) -> tuple[int, str]:
    hashed, count = hashlib.sha256(), 0
    rows = iter(source.stream(table.select()))
    while batch := _batch(rows):
        target.executemany(table.insert(), batch)
        for row in batch:
            hashed.update(_canonical(row))
        count += len(batch)
        progress(table.name, count)
    return count, hashed.hexdigest()


def _batch(rows: Iterator[Row]) -> list[Row]:
    return list(islice(rows, ROWS_AT_ONCE))


def _digest(rows: Iterable[Row]) -> tuple[int, str]:
    hashed, count = hashlib.sha256(), 0
    for row in rows:
        hashed.update(_canonical(row))
        count += 1
    return count, hashed.hexdigest()


def _canonical(row: Sequence[object]) -> bytes:
    """The same bytes whichever engine the row came from."""
    parts = [value if isinstance(value, bytes) else repr(value).encode() for value in row]
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
