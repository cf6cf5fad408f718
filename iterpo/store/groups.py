"""Recorded groups, and the labeling work that each of their completions still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iterpo.errors import Conflict, NotFound
from iterpo.store.connection import Connection
from iterpo.store.events import read_event
from iterpo.store.rows import int_of, str_of
from iterpo.store.transaction import Transaction
from iterpo.types import Completion, Group, Prompt


@dataclass(frozen=True, slots=True)
class RecordedCompletion:
    run_id: str
    prompt: Prompt
    completion: Completion


def record_group(transaction: Transaction, run_id: str, group: Group) -> str:
    """Append the group's event and make its completions findable; returns the event id.

    Raises Conflict GROUP_ID_REUSED or COMPLETION_ID_REUSED when an id was recorded before: the later group would hide
    the earlier one from whoever folds events.
    """
    event_id = transaction.append(run_id, group)
    cursor, connection = transaction.last_cursor, transaction.connection
    if not _is_new(connection, "INSERT INTO groups VALUES (?, ?)", group.group_id, cursor):
        raise Conflict(
            f"Group {group.group_id!r} was already recorded.",
            "Give every group an id of its own; repeat a recording with its own request_id.",
            "GROUP_ID_REUSED",
        )
    for position, completion in enumerate(group.completions):
        row = (completion.completion_id, run_id, cursor, position)
        if not _is_new(connection, "INSERT INTO completions VALUES (?, ?, ?, ?)", *row):
            raise Conflict(
                f"Completion {completion.completion_id!r} was already recorded.",
                "Repeat a recording with its own request_id; use CreateTasks to have recorded completions compared.",
                "COMPLETION_ID_REUSED",
            )
    return event_id


def enqueue(transaction: Transaction, group: Group, labeler: str) -> None:
    """Leave word that `labeler` still owes every completion of the group a verdict."""
    transaction.connection.executemany(
        "INSERT INTO work (completion_id, labeler) VALUES (?, ?)",
        [(completion.completion_id, labeler) for completion in group.completions],
    )


def find_completions(connection: Connection, completion_ids: Sequence[str]) -> list[RecordedCompletion]:
    """In the order asked for; a group that holds several of them is read once. Raises NotFound."""
    groups: dict[int, Group] = {}
    found = []
    for completion_id in completion_ids:
        row = connection.execute(
            "SELECT run_id, group_cursor, position FROM completions WHERE completion_id = ?", (completion_id,)
        ).fetchone()
        if row is None:
            raise NotFound(
                f"Completion {completion_id!r} was never recorded.", "Record its group first with RecordCompletions."
            )
        cursor = int_of(row[1])
        if cursor not in groups:
            groups[cursor] = _group_at(connection, cursor)
        group = groups[cursor]
        found.append(RecordedCompletion(str_of(row[0]), group.prompt, group.completions[int_of(row[2])]))
    return found


def _group_at(connection: Connection, cursor: int) -> Group:
    group = read_event(connection, cursor).group
    if group is None:
        raise LookupError(f"the event at cursor {cursor} is not a group")
    return group


def _is_new(connection: Connection, insert: str, *row: str | int) -> bool:
    return connection.execute(f"{insert} ON CONFLICT DO NOTHING RETURNING 1", row).get is not None
