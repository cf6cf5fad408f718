"""How a SQLite file is opened: WAL, every commit synced, brought up to this program's version."""

from __future__ import annotations

from pathlib import Path

import apsw

from iterpo.errors import InvalidConfig, WrongState
from iterpo.store.migrate import OLDEST_VERSION, SCHEMA_VERSION, sqlite_statements
from iterpo.store.rows import int_of

CHECKPOINT_PAGES = 4000
"""Of the write-ahead log, 16 MB. With SQLite's 1,000 the labeling service acknowledged 2,720 labels a second, with
4,000 3,119 (medians of three runs in turn, two cores)."""
APPLICATION_ID = 0x69747270
"""`itrp`: marks the file as iterpo's feedback store (SQLite's application_id)."""


def open_writer(path: Path) -> apsw.Connection:
    """The only connection that writes. Creates the tables of a new file.

    Raises InvalidConfig when the file cannot be opened, WrongState STORE_TOO_NEW, STORE_TOO_OLD or STORE_CORRUPT.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(5000)
        _check_identity(connection, path)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("foreign_keys", True)
        connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        _bring_up_to_date(connection)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise _corrupt(path) from error
    except apsw.CantOpenError as error:
        raise InvalidConfig(
            f"The feedback database {path} cannot be opened: {error}.",
            "Set labeling.store to a path in a writable directory.",
        ) from error
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A read-only connection: it never checkpoints, so the writer is the only one that does."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(5000)
    return connection


def _bring_up_to_date(connection: apsw.Connection) -> None:
    """Each in one transaction: a new file's tables, or what an older version of them lacks."""
    version = int_of(connection.pragma("user_version"))
    if version == SCHEMA_VERSION:
        return
    with connection:
        connection.execute(sqlite_statements(version))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA_VERSION)


def _check_identity(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    has_tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if has_tables and connection.pragma("application_id") != APPLICATION_ID:
        raise WrongState(
            f"{path} is a database of another program.", "Set labeling.store to another path.", "STORE_CORRUPT"
        )
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise WrongState(
            f"{path} has schema version {version}; this iterpo knows versions up to {SCHEMA_VERSION}.",
            "Install the newer iterpo that wrote it, or set labeling.store to another path.",
            "STORE_TOO_NEW",
        )
    if isinstance(version, int) and 0 < version < OLDEST_VERSION:
        raise WrongState(
            f"{path} has schema version {version}, from before the first release; this iterpo reads {OLDEST_VERSION} "
            "and later.",
            "Set labeling.store to another path, or export its labels with the iterpo that wrote it.",
            "STORE_TOO_OLD",
        )


def _corrupt(path: Path) -> WrongState:
    return WrongState(
        f"{path} is not a readable SQLite database.",
        "Restore it from a backup, or set labeling.store to another path.",
        "STORE_CORRUPT",
    )
