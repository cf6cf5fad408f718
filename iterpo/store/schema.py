"""The tables, and how a database file is opened: WAL, every commit synced, brought up to this program's version.

`events` is append-only (triggers refuse anything else) and is the record; the other tables are derived state that the
same transactions keep: what was answered to which request, what is still to be labelled, who may label which task.
`tasks.free_at` says when a task may be leased again: 0 is now, a later moment is the end of the first of the leases
that fill it, NULL is never, because it has all its labels. `tasks.shown` is what annotators may see (a Task message).
Bodies are protobuf (`StreamFeedbackResponse` without its cursor): compact for log-probs, and able to gain fields.
PostgreSQL is not implemented.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from iterpo.errors import InvalidConfig, WrongState
from iterpo.store.rows import int_of

SCHEMA_VERSION = 5
"""Of the tables and of the event bodies. Raise it with every change that an older program would misread."""
CHECKPOINT_PAGES = 4000
"""Of the write-ahead log, 16 MB. With SQLite's 1,000 the labeling service acknowledged 2,720 labels a second, with
4,000 3,119 (medians of three runs in turn, two cores)."""
APPLICATION_ID = 0x69747270
"""`itrp`: marks the file as iterpo's feedback store (SQLite's application_id)."""

TABLES = """
CREATE TABLE events (
    cursor INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    run_id TEXT NOT NULL,
    body BLOB NOT NULL,
    schema_version INTEGER NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX events_of_run ON events (run_id, cursor);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    payload_sha256 BLOB NOT NULL,
    answer TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE groups (
    group_id TEXT PRIMARY KEY,
    event_cursor INTEGER NOT NULL REFERENCES events (cursor)
) STRICT;
CREATE TABLE completions (
    completion_id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    group_cursor INTEGER NOT NULL REFERENCES events (cursor),
    position INTEGER NOT NULL
) STRICT;

CREATE TABLE work (
    completion_id TEXT NOT NULL,
    labeler TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (completion_id, labeler)
) STRICT;
CREATE INDEX work_due ON work (labeler, not_before);
CREATE TABLE verdicts (
    completion_id TEXT NOT NULL,
    labeler TEXT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (completion_id, labeler)
) STRICT;

CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY,
    event_cursor INTEGER NOT NULL REFERENCES events (cursor),
    run_id TEXT NOT NULL,
    group_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    item TEXT NOT NULL,
    first_id TEXT NOT NULL,
    second_id TEXT NOT NULL,
    first_author TEXT NOT NULL,
    second_author TEXT NOT NULL,
    sides TEXT NOT NULL,
    shown BLOB NOT NULL,
    gold TEXT NOT NULL,
    only_for TEXT NOT NULL,
    guideline TEXT NOT NULL,
    language TEXT NOT NULL,
    priority INTEGER NOT NULL,
    uncertainty REAL NOT NULL,
    urgency REAL NOT NULL,
    required_labels INTEGER NOT NULL CHECK (required_labels > 0),
    accepted_labels INTEGER NOT NULL DEFAULT 0 CHECK (accepted_labels <= required_labels),
    free_at REAL DEFAULT 0
) STRICT;
CREATE INDEX tasks_free ON tasks (priority DESC, urgency DESC, event_cursor)
    WHERE free_at = 0 AND kind = 'comparison' AND only_for = '';
CREATE INDEX tasks_free_of_run ON tasks (run_id, priority DESC, urgency DESC, event_cursor)
    WHERE free_at = 0 AND kind = 'comparison' AND only_for = '';
CREATE INDEX tasks_personal ON tasks (only_for, event_cursor) WHERE free_at = 0 AND only_for <> '';
CREATE INDEX tasks_repeated ON tasks (only_for, item) WHERE kind = 'repeat';
CREATE INDEX tasks_gold ON tasks (event_cursor) WHERE kind = 'gold';
CREATE INDEX tasks_filled ON tasks (free_at) WHERE free_at > 0;
CREATE INDEX tasks_unfinished ON tasks (run_id) WHERE free_at IS NOT NULL AND kind = 'comparison';
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES tasks (task_id),
    annotator TEXT NOT NULL,
    item TEXT NOT NULL,
    granted_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    swapped INTEGER NOT NULL,
    propensity REAL NOT NULL,
    guideline_version TEXT NOT NULL,
    used_at REAL,
    released INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX leases_of_task ON leases (task_id) WHERE used_at IS NULL;
CREATE INDEX leases_of_person ON leases (annotator, item);
CREATE TABLE labels (
    task_id TEXT NOT NULL REFERENCES tasks (task_id),
    annotator TEXT NOT NULL,
    item TEXT NOT NULL,
    kind TEXT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    lease_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    strength INTEGER NOT NULL,
    weight REAL NOT NULL,
    swapped INTEGER NOT NULL,
    duration_seconds REAL NOT NULL,
    labelled_at REAL NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (task_id, annotator)
) STRICT;
CREATE INDEX labels_of_person ON labels (annotator, item);
CREATE INDEX labels_in_time ON labels (annotator, labelled_at);
CREATE TABLE standings (
    annotator TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    changed_at REAL NOT NULL,
    readmitted_at REAL
) STRICT;
"""
COUNTING = """
CREATE INDEX tasks_of_run ON tasks (run_id) WHERE kind = 'comparison';
CREATE INDEX leases_unused ON leases (expires_at) WHERE released = 0 AND used_at IS NULL;
CREATE INDEX leases_used_late ON leases (expires_at) WHERE released = 0 AND used_at > expires_at;
CREATE INDEX labels_compared ON labels (run_id)
    WHERE kind = 'comparison' AND weight > 0 AND outcome IN ('first', 'second', 'tie');
CREATE TABLE label_counts (
    run_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    source TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (run_id, outcome, source)
) STRICT, WITHOUT ROWID;
"""
"""What reports need, which are asked for every other second."""
UPGRADES = {
    4: f"""
ALTER TABLE labels ADD COLUMN run_id TEXT NOT NULL DEFAULT '';
UPDATE labels SET run_id = (SELECT tasks.run_id FROM tasks WHERE tasks.task_id = labels.task_id);
{COUNTING}
INSERT INTO label_counts
    SELECT run_id, outcome, CASE WHEN instr(annotator, '/') THEN annotator ELSE 'people' END, count(*)
    FROM labels GROUP BY 1, 2, 3;
""",
}
"""Schema version -> what makes it the next one. Event bodies need none: they gain fields only."""


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
            "Set labeling.database to a path in a writable directory.",
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
        if version == 0:
            connection.execute(TABLES + COUNTING)
            connection.pragma("application_id", APPLICATION_ID)
        for older in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
            connection.execute(UPGRADES[older])
        connection.pragma("user_version", SCHEMA_VERSION)


def _check_identity(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    has_tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if has_tables and connection.pragma("application_id") != APPLICATION_ID:
        raise WrongState(
            f"{path} is a database of another program.", "Set labeling.database to another path.", "STORE_CORRUPT"
        )
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise WrongState(
            f"{path} has schema version {version}; this iterpo knows versions up to {SCHEMA_VERSION}.",
            "Install the newer iterpo that wrote it, or set labeling.database to another path.",
            "STORE_TOO_NEW",
        )
    if isinstance(version, int) and 0 < version < min(UPGRADES):
        raise WrongState(
            f"{path} has schema version {version}, from before the first release; this iterpo reads {min(UPGRADES)} "
            "and later.",
            "Set labeling.database to another path, or export its labels with the iterpo that wrote it.",
            "STORE_TOO_OLD",
        )


def _corrupt(path: Path) -> WrongState:
    return WrongState(
        f"{path} is not a readable SQLite database.",
        "Restore it from a backup, or set labeling.database to another path.",
        "STORE_CORRUPT",
    )
