"""Tasks for people, and when each may be leased.

The law: for every task, `accepted labels + live leases <= required labels`, at every moment. A lease is live while it
is unused and its `expires_at` lies in the future of the server's clock. `free_at` keeps what follows from it, so that
looking for a task never counts leases: 0 while a place is free, otherwise the moment at which the first of the leases
that fill the task runs out, and NULL once it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from iterpo import feedback_wire
from iterpo.errors import NotFound
from iterpo.store.connection import Connection
from iterpo.store.events import read_event
from iterpo.store.rows import float_of, int_of
from iterpo.store.transaction import Transaction
from iterpo.types import Outcome, Side, Task, TaskKind

HELD = 9e18
"""`free_at` of a task that waits for the reward model's opinion: no clock reaches it."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the choice of the next task may look at."""

    uncertainty: float
    """[0, 1]."""
    labels: int
    """Accepted so far."""
    first_share: float
    """Share of the votes that prefer the first answer, a tie being half a vote; 0.5 without any."""


Urgency = Callable[[Figures], float]
"""Of tasks with the same priority the one with the greatest urgency comes first, then the oldest."""


@dataclass(frozen=True, slots=True)
class TaskCounts:
    open: int
    """Need a label and are with nobody."""
    leased: int
    """Need a label and somebody holds a live lease."""
    complete: int
    held: int
    """Wait for the reward model's opinion; among the open ones."""
    gold: int
    expired_leases: int
    """Leases that ran out without a label in time."""


def add_task(transaction: Transaction, task: Task, urgency: float = 0.0, held: bool = False) -> None:
    transaction.opened = transaction.opened or not (held or task.only_for)
    transaction.append(task.run_id, task)
    sides = json.dumps([asdict(Side.of(task.first)), asdict(Side.of(task.second))])
    shown = feedback_wire.task_to_proto(feedback_wire.shown(task)).SerializeToString()
    transaction.connection.execute(
        "INSERT INTO tasks (task_id, event_cursor, run_id, group_id, kind, item, first_id, second_id, first_author, "
        "second_author, sides, shown, gold, only_for, guideline, language, priority, uncertainty, urgency, "
        "required_labels, free_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            task.task_id,
            transaction.last_cursor,
            task.run_id,
            task.group_id,
            task.kind.value,
            task.item,
            task.first.completion_id,
            task.second.completion_id,
            task.first.author,
            task.second.author,
            sides,
            shown,
            task.gold.value if task.gold else "",
            task.only_for,
            task.guideline,
            task.language,
            task.priority,
            float(task.uncertainty),
            float(urgency),
            task.required_labels,
            HELD if held else 0.0,
        ),
    )


def read_task(connection: Connection, task_id: str) -> Task:
    """Whole, with token ids and the right answer. Raises NotFound."""
    cursor = connection.execute("SELECT event_cursor FROM tasks WHERE task_id = ?", (task_id,)).get
    if cursor is None:
        raise NotFound(f"There is no task {task_id!r}.", "Name a task of this store.", "TASK_UNKNOWN")
    task = read_event(connection, int_of(cursor)).task
    if task is None:
        raise LookupError(f"the event at cursor {cursor} is not a task")
    return task


def guideline_of_lease(connection: Connection, lease_id: str) -> str:
    """Name or text; empty for an unknown lease."""
    found = connection.execute(
        "SELECT guideline FROM leases JOIN tasks USING (task_id) WHERE lease_id = ?", (lease_id,)
    ).get
    return "" if found is None else str(found)


def held_tasks(connection: Connection, limit: int) -> list[Task]:
    """The oldest tasks that wait for the reward model's opinion."""
    rows = connection.execute(
        "SELECT task_id FROM tasks WHERE free_at > 0 AND free_at = ? ORDER BY event_cursor LIMIT ?", (HELD, limit)
    ).fetchall()
    return [read_task(connection, str(task_id)) for (task_id,) in rows]


def open_for_machines(connection: Connection) -> list[tuple[str, str]]:
    """(task id, machine) of the unfinished tasks that only a machine may label, the oldest first."""
    rows = connection.execute(
        "SELECT task_id, only_for FROM tasks WHERE free_at IS NOT NULL AND only_for LIKE '%/%' "
        "AND accepted_labels < required_labels ORDER BY event_cursor"
    ).fetchall()
    return [(str(task_id), str(machine)) for task_id, machine in rows]


def let_go(transaction: Transaction, task_id: str, uncertainty: float, urgency: Urgency) -> None:
    """A held task goes to people."""
    transaction.opened = True
    transaction.connection.execute(
        "UPDATE tasks SET free_at = 0, uncertainty = ?, urgency = ? WHERE task_id = ? AND free_at = ?",
        (uncertainty, urgency(Figures(uncertainty, 0, 0.5)), task_id, HELD),
    )


def let_all_go(transaction: Transaction) -> None:
    """What an earlier configuration held back goes to people: nobody would ask the reward model for it any more."""
    transaction.connection.execute("UPDATE tasks SET free_at = 0 WHERE free_at > 0 AND free_at = ?", (HELD,))


def tidy(transaction: Transaction) -> None:
    """Give places back whose leases have run out; read at the moment of every grant, so nothing else has to sweep."""
    skip = transaction.locks.skip
    transaction.connection.execute(
        "UPDATE tasks SET free_at = 0 WHERE task_id IN "
        f"(SELECT task_id FROM tasks WHERE free_at > 0 AND free_at <= ? {skip})",
        (transaction.now,),
    )


def settle(transaction: Transaction, task_id: str) -> None:
    """Work `free_at` out anew from the labels and the live leases."""
    connection = transaction.connection
    row = connection.execute(
        "SELECT required_labels - accepted_labels FROM tasks WHERE task_id = ?", (task_id,)
    ).fetchone()
    places = int_of(row[0]) if row else 0
    live = connection.execute(
        "SELECT count(*), min(expires_at) FROM leases WHERE task_id = ? AND used_at IS NULL AND expires_at > ?",
        (task_id, transaction.now),
    ).fetchone()
    count, earliest = (int_of(live[0]), live[1]) if live else (0, None)
    free_at = None if places <= 0 else earliest if count >= places else 0.0
    connection.execute("UPDATE tasks SET free_at = ? WHERE task_id = ?", (free_at, task_id))


def set_urgency(transaction: Transaction, task_id: str, urgency: Urgency) -> None:
    row = transaction.connection.execute(
        "SELECT uncertainty, accepted_labels, (SELECT avg(CAST(CASE outcome WHEN ? THEN 1.0 WHEN ? THEN 0.0 "
        "WHEN ? THEN 0.5 END AS DOUBLE PRECISION)) FROM labels WHERE labels.task_id = tasks.task_id) "
        "FROM tasks WHERE task_id = ?",
        (Outcome.FIRST.value, Outcome.SECOND.value, Outcome.TIE.value, task_id),
    ).fetchone()
    if row is not None and row[0] is not None:
        share = 0.5 if row[2] is None else float_of(row[2])
        figures = Figures(float_of(row[0]), int_of(row[1]), share)
        transaction.connection.execute("UPDATE tasks SET urgency = ? WHERE task_id = ?", (urgency(figures), task_id))


RANKED_TOGETHER = 500
"""Tasks whose urgency is worked out in one transaction: labels get their turn in between."""


def rank_anew(transaction: Transaction, urgency: Urgency, after: str = "") -> str:
    """After a change of the configuration: the urgency of the next unfinished tasks after this one. Returns the last,
    or "" when there are no more."""
    unfinished = transaction.connection.execute(
        "SELECT task_id FROM tasks WHERE free_at IS NOT NULL AND kind = ? AND task_id > ? ORDER BY task_id LIMIT ?",
        (TaskKind.COMPARISON.value, after, RANKED_TOGETHER),
    ).fetchall()
    for (task_id,) in unfinished:
        transaction.locks.task(str(task_id))
        set_urgency(transaction, str(task_id), urgency)
    return str(unfinished[-1][0]) if unfinished else ""


def open_tasks(connection: Connection, run_id: str) -> int:
    """Tasks that still need labels, leased or not; `run_id` "" means every run."""
    return int_of(
        connection.execute(
            # Named, as few of a run's tasks are unfinished: SQLite would go through all of the run's.
            "SELECT count(*) FROM tasks INDEXED BY tasks_unfinished "
            f"WHERE free_at IS NOT NULL AND kind = 'comparison' {_of_run(run_id)}",
            {"run": run_id},
        ).get
    )


def _of_run(run_id: str) -> str:
    """A condition, or none: with `:run = '' OR` in it SQLite could not use an index."""
    return "AND run_id = :run" if run_id else ""


def count_tasks(connection: Connection, now: float, run_id: str = "") -> TaskCounts:
    about: dict[str, str | float] = {"run": run_id, "now": now, "held": HELD}
    mine = _of_run(run_id)

    def count(query: str) -> int:
        return int_of(connection.execute(query, about).get)

    unfinished = open_tasks(connection, run_id)
    leased = count(
        "SELECT count(DISTINCT task_id) FROM leases CROSS JOIN tasks USING (task_id) WHERE used_at IS NULL "
        f"AND expires_at > :now AND free_at IS NOT NULL AND kind = 'comparison' {mine}"
    )
    return TaskCounts(
        open=unfinished - leased,
        leased=leased,
        complete=count(f"SELECT count(*) FROM tasks WHERE kind = 'comparison' {mine}") - unfinished,
        held=count(f"SELECT count(*) FROM tasks WHERE free_at > 0 AND free_at = :held {mine}"),
        gold=count("SELECT count(*) FROM tasks WHERE kind = 'gold'"),
        expired_leases=count(
            "SELECT (SELECT count(*) FROM leases WHERE expires_at <= :now AND released = 0 AND used_at IS NULL) + "
            "(SELECT count(*) FROM leases WHERE expires_at <= :now AND released = 0 AND used_at > expires_at)"
        ),
    )
