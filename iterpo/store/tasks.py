"""Tasks for people: leases and labels, each decided in one transaction.

The law: for every task, `accepted labels + live leases <= required labels`, at every moment. A lease is live while
it is unused and its `expires_at` lies in the future of the server's clock, read when the question is asked; nothing
has to sweep. A person is never leased a task that he has labelled or holds a live lease on. Once a lease has expired
unused, the same person may be leased the task again: a lone annotator who closed his window must be able to go on.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import apsw

from iterpo.store.events import read_event
from iterpo.store.rows import int_of, str_of
from iterpo.store.transaction import Transaction
from iterpo.types import Label, Lease, Outcome, Task

_LIVE_LEASES = "SELECT count(*) FROM leases WHERE task_id = :task AND used_at IS NULL AND expires_at > :now"
_LEASABLE = """
SELECT task_id, event_cursor FROM tasks
WHERE accepted_labels < required_labels AND (:run = '' OR run_id = :run)
  AND accepted_labels + (SELECT count(*) FROM leases AS lease WHERE lease.task_id = tasks.task_id
                         AND used_at IS NULL AND expires_at > :now) < required_labels
  AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.task_id = tasks.task_id AND labels.annotator = :annotator)
  AND NOT EXISTS (SELECT 1 FROM leases AS own WHERE own.task_id = tasks.task_id AND own.annotator = :annotator
                  AND used_at IS NULL AND expires_at > :now)
ORDER BY event_cursor LIMIT :limit
"""
_SWAPPED_BACK = {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}


@dataclass(frozen=True, slots=True)
class Submission:
    """A person's judgement of a leased task, in the order that the screen showed."""

    lease_id: str
    presented_outcome: Outcome
    strength: int = 0
    rationale: str = ""
    duration_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    """LEASE_UNKNOWN, NOT_YOUR_LEASE, ALREADY_LABELLED or TASK_COMPLETE."""


@dataclass(frozen=True, slots=True)
class TaskCounts:
    open: int
    """Need a label and are with nobody."""
    leased: int
    """Need a label and somebody holds a live lease."""
    complete: int
    expired_leases: int
    """Leases that ran out without a label in time."""


def add_task(transaction: Transaction, task: Task) -> None:
    transaction.append(task.run_id, task)
    transaction.connection.execute(
        "INSERT INTO tasks (task_id, run_id, event_cursor, required_labels) VALUES (?, ?, ?, ?)",
        (task.task_id, task.run_id, transaction.last_cursor(), task.required_labels),
    )


def lease_tasks(
    transaction: Transaction, annotator: str, limit: int, seconds: float, run_id: str, coin: Callable[[], bool]
) -> list[Lease]:
    """At most `limit` leases on the oldest tasks open to this person; `coin` draws which answer is shown first."""
    rows = transaction.connection.execute(
        _LEASABLE, {"run": run_id, "now": transaction.now, "annotator": annotator, "limit": limit}
    ).fetchall()
    return [_lease(transaction, int_of(cursor), annotator, seconds, coin()) for _, cursor in rows]


def submit_label(transaction: Transaction, annotator: str, submission: Submission) -> str | Refusal:
    """Store the label and use up the lease; returns the label's event id, or why it was refused."""
    row = transaction.connection.execute(
        "SELECT task_id, annotator, swapped FROM leases WHERE lease_id = ?", (submission.lease_id,)
    ).fetchone()
    if row is None:
        return Refusal("LEASE_UNKNOWN")
    task_id, swapped = str_of(row[0]), bool(row[2])
    if row[1] != annotator:
        return Refusal("NOT_YOUR_LEASE")
    if _has_labelled(transaction, task_id, annotator):
        return Refusal("ALREADY_LABELLED")
    if not _has_capacity(transaction, task_id, annotator):
        return Refusal("TASK_COMPLETE")
    event_id = transaction.append(*_label(transaction, task_id, annotator, submission, swapped))
    _count_label(transaction, task_id, annotator, event_id)
    return event_id


def open_tasks(connection: apsw.Connection, run_id: str) -> int:
    """Tasks that still need labels, leased or not; `run_id` "" means every run."""
    return int_of(
        connection.execute(
            "SELECT count(*) FROM tasks WHERE accepted_labels < required_labels AND (:run = '' OR run_id = :run)",
            {"run": run_id},
        ).get
    )


def count_tasks(connection: apsw.Connection, now: float) -> TaskCounts:
    total = int_of(connection.execute("SELECT count(*) FROM tasks").get)
    unfinished = open_tasks(connection, "")
    leased = connection.execute(
        "SELECT count(DISTINCT leases.task_id) FROM leases JOIN tasks USING (task_id) "
        "WHERE used_at IS NULL AND expires_at > ? AND accepted_labels < required_labels",
        (now,),
    ).get
    expired = connection.execute(
        "SELECT count(*) FROM leases WHERE expires_at <= ? AND (used_at IS NULL OR used_at > expires_at)", (now,)
    ).get
    return TaskCounts(unfinished - int_of(leased), int_of(leased), total - unfinished, int_of(expired))


def _lease(transaction: Transaction, cursor: int, annotator: str, seconds: float, swapped: bool) -> Lease:
    task = _task_at(transaction.connection, cursor)
    lease = Lease(uuid.uuid4().hex, task, annotator, transaction.now + seconds, swapped)
    transaction.connection.execute(
        "INSERT INTO leases (lease_id, task_id, annotator, expires_at, swapped) VALUES (?, ?, ?, ?, ?)",
        (lease.lease_id, task.task_id, annotator, lease.expires_at, int(swapped)),
    )
    return lease


def _has_labelled(transaction: Transaction, task_id: str, annotator: str) -> bool:
    row = transaction.connection.execute(
        "SELECT 1 FROM labels WHERE task_id = ? AND annotator = ?", (task_id, annotator)
    ).fetchone()
    return row is not None


def _has_capacity(transaction: Transaction, task_id: str, annotator: str) -> bool:
    """A live lease of one's own is a reserved place; otherwise a place must be left beside everybody's live leases."""
    about = {"task": task_id, "now": transaction.now, "annotator": annotator}
    connection = transaction.connection
    if int_of(connection.execute(f"{_LIVE_LEASES} AND annotator = :annotator", about).get) > 0:
        return True
    row = connection.execute(
        "SELECT accepted_labels, required_labels FROM tasks WHERE task_id = :task", about
    ).fetchone()
    live = int_of(connection.execute(_LIVE_LEASES, {"task": task_id, "now": transaction.now}).get)
    return row is not None and int_of(row[0]) + live < int_of(row[1])


def _label(
    transaction: Transaction, task_id: str, annotator: str, submission: Submission, swapped: bool
) -> tuple[str, Label]:
    cursor = transaction.connection.execute("SELECT event_cursor FROM tasks WHERE task_id = ?", (task_id,)).get
    task = _task_at(transaction.connection, int_of(cursor))
    presented = submission.presented_outcome
    label = Label(
        label_id=uuid.uuid4().hex,
        task_id=task_id,
        group_id=task.group_id,
        first_id=task.first.completion_id,
        second_id=task.second.completion_id,
        outcome=_SWAPPED_BACK.get(presented, presented) if swapped else presented,
        annotator=annotator,
        strength=submission.strength,
        rationale=submission.rationale,
        presented_swapped=swapped,
        duration_seconds=submission.duration_seconds,
    )
    return task.run_id, label


def _count_label(transaction: Transaction, task_id: str, annotator: str, event_id: str) -> None:
    connection = transaction.connection
    connection.execute("INSERT INTO labels VALUES (?, ?, ?)", (task_id, annotator, event_id))
    connection.execute("UPDATE tasks SET accepted_labels = accepted_labels + 1 WHERE task_id = ?", (task_id,))
    connection.execute(
        "UPDATE leases SET used_at = ? WHERE task_id = ? AND annotator = ? AND used_at IS NULL",
        (transaction.now, task_id, annotator),
    )


def _task_at(connection: apsw.Connection, cursor: int) -> Task:
    task = read_event(connection, cursor).task
    if task is None:
        raise LookupError(f"the event at cursor {cursor} is not a task")
    return task
