"""A whole store in one hand, for whoever looks after it: read through, backed up, copied. Not for servers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw

from iterpo.errors import InvalidConfig, NotFound, WrongState
from iterpo.store.address import is_postgresql
from iterpo.store.connection import Connection, Row
from iterpo.store.migrate import OLDEST_VERSION, SCHEMA_VERSION
from iterpo.store.rows import int_of
from iterpo.store.sqlite_database import lock_file
from iterpo.store.sqlite_file import open_reader, open_writer

DUMP_SECONDS = 3600.0


class Whole(Connection, Protocol):
    def stream(self, sql: str) -> Iterable[Row]:
        """The rows of a query that may not fit into memory."""
        ...


class WholeFile:
    """A SQLite file's connection."""

    def __init__(self, raw: apsw.Connection) -> None:
        self.raw = raw
        self.execute, self.executemany = raw.execute, raw.executemany

    def stream(self, sql: str) -> Iterable[Row]:
        return self.raw.execute(sql)


@contextmanager
def reading(where: str, alone: bool = False) -> Iterator[Whole]:
    """A snapshot. `alone`: no server may be writing to a file (a PostgreSQL database's snapshot needs none away).

    Raises NotFound (STORE_MISSING), WrongState (STORE_IN_USE, STORE_OLD).
    """
    if is_postgresql(where):
        from iterpo.store.postgresql_whole import postgresql_reading

        with postgresql_reading(where) as whole:
            yield whole
        return
    path = _existing(where)
    lock = lock_file(path) if alone else None
    connection = open_reader(path)
    try:
        _check_version(path, int_of(connection.pragma("user_version")))
        connection.execute("BEGIN")
        yield WholeFile(connection)
    finally:
        connection.close()
        if lock is not None:
            os.close(lock)


@contextmanager
def filling(where: str) -> Iterator[Whole]:
    """For an empty store: all that is written, or nothing. Makes a new file, or an empty database's tables."""
    if is_postgresql(where):
        from iterpo.store.postgresql_whole import postgresql_filling

        with postgresql_filling(where) as whole:
            yield whole
        return
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_file(path)
    connection = open_writer(path)
    try:
        with connection:
            yield WholeFile(connection)
    finally:
        connection.close()
        os.close(lock)


def migrate(where: str) -> tuple[int, int]:
    """Bring a store up to date: its version before and after. Servers on it must be stopped."""
    if is_postgresql(where):
        from iterpo.store.postgresql_database import SESSION
        from iterpo.store.postgresql_schema import migrate as migrate_postgresql

        return migrate_postgresql(where, SESSION)
    path = _existing(where)
    lock = lock_file(path)
    try:
        connection = open_reader(path)
        before = int_of(connection.pragma("user_version"))
        connection.close()
        open_writer(path).close()
    finally:
        os.close(lock)
    return before, SCHEMA_VERSION


def backup(where: str, out: Path) -> None:
    """A consistent copy of the moment when it ends (SQLite: a file; PostgreSQL: pg_dump's custom format), servers
    running. Raises InvalidConfig when `out` exists; NotFound (PG_DUMP_MISSING)."""
    if out.exists():
        raise InvalidConfig(f"{out} exists.", "Name a new file.", "FILE_EXISTS")
    unfinished = out.with_name(f"{out.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    if is_postgresql(where):
        _dump(where, unfinished)
    else:
        _copy_pages(_existing(where), unfinished)
    unfinished.replace(out)


def _copy_pages(path: Path, out: Path) -> None:
    source, target = open_reader(path), apsw.Connection(str(out))
    try:
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(2000)
        target.pragma("journal_mode", "delete")  # one file, nothing beside it
        if target.pragma("integrity_check") != "ok":
            raise WrongState(f"The copy of {path} is damaged.", "Look at the disk, and try again.", "STORE_CORRUPT")
    finally:
        target.close()
        source.close()


def _dump(where: str, out: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise NotFound(
            "pg_dump is not on the path.", "Install PostgreSQL's client (Debian: postgresql-client).", "PG_DUMP_MISSING"
        )
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    parts: dict[str, Any] = dict(conninfo_to_dict(where))
    password = str(parts.pop("password", "") or os.environ.get("PGPASSWORD", ""))  # not where `ps` shows it
    command: Sequence[str] = [program, "--format=custom", f"--file={out}", make_conninfo(**parts)]
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DUMP_SECONDS, check=False, env=environment)
    if ended.returncode:
        raise WrongState(
            f"pg_dump failed: {ended.stderr.strip()}", "Mend what it says, and try again.", "BACKUP_FAILED"
        )


def _existing(where: str) -> Path:
    path = Path(where)
    if not path.is_file():
        raise NotFound(f"There is no feedback store at {path}.", "Name its file, or labeling.store.", "STORE_MISSING")
    return path


def _check_version(path: Path, version: int) -> None:
    if version != SCHEMA_VERSION:
        fix = "Run: iterpo store migrate" if OLDEST_VERSION <= version < SCHEMA_VERSION else "Use the iterpo it is of."
        raise WrongState(f"{path} has schema version {version}; this iterpo's is {SCHEMA_VERSION}.", fix, "STORE_OLD")
