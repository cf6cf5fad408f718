"""The tables of the first release.

`events` is append-only (triggers refuse anything else) and is the record; the other tables are derived state that the
same transactions keep: what was answered to which request, what is still to be labelled, who may label which task.
`tasks.free_at` says when a task may be leased again: 0 is now, a later moment is the end of the first of the leases
that fill it, NULL is never, because it has all its labels. `tasks.shown` is what annotators may see (a Task message).
Bodies are protobuf (`StreamFeedbackResponse` without its cursor): compact for log-probs, and able to gain fields.
"""

from __future__ import annotations

from iterpo.store.migrations.sql import run

revision = "0004"
down_revision = None

TABLES = (
    """CREATE TABLE events (
    cursor INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    run_id TEXT NOT NULL,
    body BLOB NOT NULL,
    schema_version INTEGER NOT NULL,
    created_at REAL NOT NULL
) STRICT""",
    "CREATE INDEX events_of_run ON events (run_id, cursor)",
    """CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    payload_sha256 BLOB NOT NULL,
    answer TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT""",
    """CREATE TABLE groups (
    group_id TEXT PRIMARY KEY,
    event_cursor INTEGER NOT NULL REFERENCES events (cursor)
) STRICT""",
    """CREATE TABLE completions (
    completion_id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    group_cursor INTEGER NOT NULL REFERENCES events (cursor),
    position INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE work ( -- in order
    completion_id TEXT NOT NULL,
    labeler TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (completion_id, labeler)
) STRICT""",
    "CREATE INDEX work_due ON work (labeler, not_before)",
    """CREATE TABLE verdicts (
    completion_id TEXT NOT NULL,
    labeler TEXT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (completion_id, labeler)
) STRICT""",
    """CREATE TABLE tasks (
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
) STRICT""",
    """CREATE INDEX tasks_free ON tasks (priority DESC, urgency DESC, event_cursor)
    WHERE free_at = 0 AND kind = 'comparison' AND only_for = ''""",
    """CREATE INDEX tasks_free_of_run ON tasks (run_id, priority DESC, urgency DESC, event_cursor)
    WHERE free_at = 0 AND kind = 'comparison' AND only_for = ''""",
    "CREATE INDEX tasks_personal ON tasks (only_for, event_cursor) WHERE free_at = 0 AND only_for <> ''",
    "CREATE INDEX tasks_repeated ON tasks (only_for, item) WHERE kind = 'repeat'",
    "CREATE INDEX tasks_gold ON tasks (event_cursor) WHERE kind = 'gold'",
    "CREATE INDEX tasks_filled ON tasks (free_at) WHERE free_at > 0",
    "CREATE INDEX tasks_unfinished ON tasks (run_id) WHERE free_at IS NOT NULL AND kind = 'comparison'",
    """CREATE TABLE leases ( -- in order
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
) STRICT""",
    "CREATE INDEX leases_of_task ON leases (task_id) WHERE used_at IS NULL",
    "CREATE INDEX leases_of_person ON leases (annotator, item)",
    """CREATE TABLE labels ( -- in order
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
    PRIMARY KEY (task_id, annotator)
) STRICT""",
    "CREATE INDEX labels_of_person ON labels (annotator, item)",
    "CREATE INDEX labels_in_time ON labels (annotator, labelled_at)",
    """CREATE TABLE standings (
    annotator TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    changed_at REAL NOT NULL,
    readmitted_at REAL
) STRICT""",
)
SQLITE_APPEND_ONLY = (
    """CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    """CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
)
POSTGRESQL_APPEND_ONLY = (
    """CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''events are append-only'' USING ERRCODE = ''integrity_constraint_violation''; END'""",
    """CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON events
FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only()""",
)


def upgrade() -> None:
    run(*TABLES, sqlite=SQLITE_APPEND_ONLY, postgresql=POSTGRESQL_APPEND_ONLY)
