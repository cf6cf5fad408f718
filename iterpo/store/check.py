"""Whether what a store says of itself is true: derived tables against events, and the law of tasks."""

from __future__ import annotations

from dataclasses import dataclass

from iterpo.store.connection import Connection
from iterpo.store.rows import int_of


@dataclass(frozen=True, slots=True)
class Finding:
    law: str
    broken: int
    """Rows that break it."""


LAWS = {
    "a task has no more labels than it requires": "SELECT count(*) FROM tasks WHERE accepted_labels > required_labels",
    "a task counts its labels right": (
        "SELECT count(*) FROM tasks WHERE accepted_labels <> "
        "(SELECT count(*) FROM labels WHERE labels.task_id = tasks.task_id)"
    ),
    "labels and live leases together are no more than a task requires": (
        "SELECT count(*) FROM tasks WHERE required_labels < accepted_labels + (SELECT count(*) FROM leases "
        "WHERE leases.task_id = tasks.task_id AND used_at IS NULL AND released = 0 AND expires_at > :now)"
    ),
    "nobody labelled a task twice": (
        "SELECT count(*) FROM (SELECT task_id, annotator FROM labels GROUP BY 1, 2 HAVING count(*) > 1) AS twice"
    ),
    "every label is an event": (
        "SELECT count(*) FROM labels WHERE event_id NOT IN (SELECT event_id FROM events WHERE kind = 'label')"
    ),
    "every labelling event is a label, or was taken back": (
        "SELECT abs((SELECT count(*) FROM events WHERE kind = 'label') "
        "- (SELECT count(*) FROM events WHERE kind = 'retraction') - (SELECT count(*) FROM labels))"
    ),
    "every task is an event": (
        "SELECT count(*) FROM tasks WHERE event_cursor NOT IN (SELECT cursor FROM events WHERE kind = 'task')"
    ),
    "every group is an event": (
        "SELECT count(*) FROM groups WHERE event_cursor NOT IN (SELECT cursor FROM events WHERE kind = 'group')"
    ),
    "every verdict is an event": (
        "SELECT count(*) FROM verdicts WHERE event_id NOT IN "
        "(SELECT event_id FROM events WHERE kind IN ('reward', 'abstention'))"
    ),
    "what has a verdict waits for none": (
        "SELECT count(*) FROM work WHERE EXISTS (SELECT 1 FROM verdicts "
        "WHERE verdicts.completion_id = work.completion_id AND verdicts.labeler = work.labeler)"
    ),
    "labels are counted right": (
        "SELECT abs((SELECT coalesce(sum(number), 0) FROM label_counts) - (SELECT count(*) FROM labels))"
    ),
    "every request has its answer": "SELECT count(*) FROM requests WHERE answer = ''",
}
"""What must be so -> how many rows say otherwise."""


def check(connection: Connection, now: float) -> list[Finding]:
    """Every law, in order. Looks at whole tables: a minute for a million labels."""
    return [Finding(law, int_of(int(connection.execute(query, {"now": now}).get))) for law, query in LAWS.items()]
