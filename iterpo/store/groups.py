"""Recorded groups, and the labeling work that each of their completions still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apsw

from iterpo.errors import Conflict, NotFound
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
    cursor = transaction.last_cursor()
    try:
        transaction.connection.execute("INSERT INTO groups VALUES (?, ?)", (group.group_id, cursor))
    except apsw.ConstraintError as error:
        raise Conflict(
            f"Group {group.group_id!r} was already recorded.",
            "Give every group an id of its own; repeat a recording with its own request_id.",
            "GROUP_ID_REUSED",
        ) from error
    for position, completion in enumerate(group.completions):
        try:
            transaction.connection.execute(
                "INSERT INTO completions VALUES (?, ?, ?, ?)", (completion.completion_id, run_id, cursor, position)
            )
        except apsw.ConstraintError as error:
            raise Conflict(
                f"Completion {completion.completion_id!r} was already recorded.",
                "Repeat a recording with its own request_id; use CreateTasks to have recorded completions compared.",
                "COMPLETION_ID_REUSED",
            ) from error
    return event_id


def enqueue(transaction: Transaction, group: Group, labeler: str) -> None:
    """Leave word that `labeler` still owes every completion of the group a verdict."""
    transaction.connection.executemany(
        "INSERT INTO work (completion_id, labeler) VALUES (?, ?)",
        [(completion.completion_id, labeler) for completion in group.completions],
    )


def find_completions(connection: apsw.Connection, completion_ids: Sequence[str]) -> list[RecordedCompletion]:
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


def _group_at(connection: apsw.Connection, cursor: int) -> Group:
    group = read_event(connection, cursor).group
    if group is None:
        raise LookupError(f"the event at cursor {cursor} is not a group")
    return group
