"""Several labeling servers on one database: whose work is whose, and counters that nobody waits for."""

from __future__ import annotations

from iterpo.store.migrations.sql import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run(
        "ALTER TABLE work ADD COLUMN claimed_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE work ADD COLUMN claimed_until REAL NOT NULL DEFAULT 0",
        "ALTER TABLE label_counts RENAME TO label_counts_of_one",
        """CREATE TABLE label_counts (
    run_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    source TEXT NOT NULL,
    shard INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (run_id, outcome, source, shard)
) STRICT, WITHOUT ROWID""",
        "INSERT INTO label_counts SELECT run_id, outcome, source, 0, number FROM label_counts_of_one",
        "DROP TABLE label_counts_of_one",
    )
