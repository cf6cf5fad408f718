"""What reports need, which are asked for every other second."""

from __future__ import annotations

from iterpo.store.migrations.sql import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run(
        "ALTER TABLE labels ADD COLUMN run_id TEXT NOT NULL DEFAULT ''",
        "UPDATE labels SET run_id = (SELECT tasks.run_id FROM tasks WHERE tasks.task_id = labels.task_id)",
        "CREATE INDEX tasks_of_run ON tasks (run_id) WHERE kind = 'comparison'",
        "CREATE INDEX leases_unused ON leases (expires_at) WHERE released = 0 AND used_at IS NULL",
        "CREATE INDEX leases_used_late ON leases (expires_at) WHERE released = 0 AND used_at > expires_at",
        """CREATE INDEX labels_compared ON labels (run_id)
    WHERE kind = 'comparison' AND weight > 0 AND outcome IN ('first', 'second', 'tie')""",
        """CREATE TABLE label_counts (
    run_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    source TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (run_id, outcome, source)
) STRICT, WITHOUT ROWID""",
        """INSERT INTO label_counts
    SELECT run_id, outcome, CASE WHEN annotator LIKE '%/%' THEN annotator ELSE 'people' END, count(*)
    FROM labels GROUP BY 1, 2, 3""",
    )
