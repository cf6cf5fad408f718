"""Labels: accepted or refused, and taken back. Each decided in one transaction.

A label that comes after its lease ran out is accepted while a place is left beside everybody's live leases, and
refused as TASK_COMPLETE otherwise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from iterpo.errors import NotFound, WrongState
from iterpo.store.connection import Connection
from iterpo.store.leases import Held, Refusal, leased_task
from iterpo.store.rows import bytes_of, float_of, int_of, str_of
from iterpo.store.tasks import Urgency, set_urgency, settle
from iterpo.store.transaction import Transaction, fresh_id
from iterpo.types import Label, Outcome, Retraction, Side, TaskKind

Weigh = Callable[[TaskKind], float]
"""What the vote counts at the moment; asked once the label is accepted."""
_SWAPPED = {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}


@dataclass(frozen=True, slots=True)
class Submission:
    """A person's judgement of a leased task, in the order that the screen showed."""

    lease_id: str
    presented_outcome: Outcome
    strength: int = 0
    rationale: str = ""
    duration_seconds: float = 0.0
    presented_aspects: Mapping[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vote:
    """A stored label, as aggregation and quality look at it: in the task's own order."""

    event_id: str
    task_id: str
    item: str
    kind: TaskKind
    gold: Outcome | None
    annotator: str
    outcome: Outcome
    strength: int
    weight: float
    swapped: bool
    duration_seconds: float
    at: float
    """Seconds since the epoch."""
    in_order: bool = True
    """The task's first answer is the item's first: two tasks may ask for a pair in either order."""


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """What a task compares, without the texts."""

    task_id: str
    run_id: str
    group_id: str
    first_id: str
    second_id: str


@dataclass(frozen=True, slots=True)
class Accepted:
    label: Label
    pair: ComparedPair
    vote: Vote
    complete: bool
    """The task has all its labels now."""
    alone: bool
    """It is the task's only label."""


def submit_label(
    transaction: Transaction, annotator: str, submission: Submission, weigh: Weigh, urgency: Urgency
) -> Accepted | Refusal:
    """Store the label and use up the lease.

    Refused as LEASE_UNKNOWN, NOT_YOUR_LEASE, RELEASED, ALREADY_LABELLED or TASK_COMPLETE.
    """
    task_id = leased_task(transaction, annotator, submission.lease_id)
    if isinstance(task_id, Refusal):
        return task_id
    row = transaction.connection.execute(
        "SELECT swapped, expires_at, used_at, released, granted_at, propensity, guideline_version "
        "FROM leases WHERE lease_id = ?",
        (submission.lease_id,),
    ).fetchone()
    if row is None:
        return Refusal("LEASE_UNKNOWN")
    if row[3]:
        return Refusal("RELEASED")
    swapped = bool(row[0])
    if _has_labelled(transaction.connection, task_id, annotator):
        return Refusal("ALREADY_LABELLED")
    live = row[2] is None and float_of(row[1]) > transaction.now
    if not live and not _has_place(transaction, task_id, annotator):
        return Refusal("TASK_COMPLETE")
    given = _Given(
        annotator,
        submission,
        swapped,
        submission.lease_id,
        presented_at=float_of(row[4]),
        propensity=float_of(row[5]),
        guideline_version=str_of(row[6]),
    )
    return _store(transaction, task_id, given, weigh, urgency)


def label_directly(
    transaction: Transaction,
    task_id: str,
    annotator: str,
    outcome: Outcome,
    rationale: str,
    weight: float,
    strength: int = 0,
) -> Accepted:
    """A label without a lease (a machine's on a held task, an application's user's): the task needs no other one."""
    transaction.locks.task(task_id)
    transaction.connection.execute(
        "UPDATE tasks SET required_labels = accepted_labels + 1 WHERE task_id = ?", (task_id,)
    )
    submission = Submission("", outcome, strength, rationale)
    given = _Given(annotator, submission, False, "", presented_at=transaction.now)
    return _store(transaction, task_id, given, lambda _kind: weight, lambda _figures: 0.0)


def undo_label(transaction: Transaction, annotator: str, event_id: str, not_before: float, seconds: float) -> Held:
    """Take an own label back; its task is leased to the person again, in the same order.

    Raises NotFound LABEL_UNKNOWN; WrongState NOT_YOUR_LABEL, TOO_LATE for a label from before `not_before`, or
    NOT_LEASED for one that an application's user gave.
    """
    labelled = transaction.connection.execute("SELECT task_id FROM labels WHERE event_id = ?", (event_id,)).get
    if labelled is not None:
        transaction.locks.task(str_of(labelled))
    row = transaction.connection.execute(
        "SELECT labels.task_id, annotator, swapped, labelled_at, tasks.run_id, group_id, guideline, shown, lease_id, "
        "outcome "
        "FROM labels JOIN tasks USING (task_id) WHERE event_id = ?",
        (event_id,),
    ).fetchone()
    if row is None:
        raise NotFound(
            f"There is no label {event_id!r} to take back.", "Name the event id of a label.", "LABEL_UNKNOWN"
        )
    if row[1] != annotator:
        raise WrongState("The label is another person's.", "Take back labels of your own only.", "NOT_YOUR_LABEL")
    if float_of(row[3]) < not_before:
        raise WrongState("The label is too old to be taken back.", "Tell the lead what was wrong with it.", "TOO_LATE")
    if not row[8]:
        raise WrongState("The label came without a lease.", "Send new feedback instead.", "NOT_LEASED")
    task_id, swapped, guideline = str_of(row[0]), bool(row[2]), str_of(row[6])
    transaction.append(str_of(row[4]), Retraction(event_id, task_id, str_of(row[5]), annotator))
    connection = transaction.connection
    _tally(transaction, str_of(row[4]), Outcome(str_of(row[9])), annotator, -1)
    connection.execute("DELETE FROM labels WHERE event_id = ?", (event_id,))
    connection.execute("UPDATE tasks SET accepted_labels = accepted_labels - 1 WHERE task_id = ?", (task_id,))
    lease_id, ends = fresh_id(), transaction.now + seconds
    connection.execute(
        "INSERT INTO leases (lease_id, task_id, annotator, item, granted_at, expires_at, swapped, propensity, "
        "guideline_version) SELECT ?, task_id, annotator, item, ?, ?, swapped, propensity, guideline_version "
        "FROM leases WHERE lease_id = ?",
        (lease_id, transaction.now, ends, str_of(row[8])),
    )
    settle(transaction, task_id)
    return Held(lease_id, task_id, annotator, ends, swapped, guideline, bytes_of(row[7]))


def votes_of(connection: Connection, task_id: str) -> list[Vote]:
    return _votes(connection, "labels.task_id = ? ORDER BY labels.rowid", (task_id,))


def recent_votes(connection: Connection, limit: int) -> list[Vote]:
    """The last `limit` labels, oldest first."""
    return _votes(connection, "TRUE ORDER BY labels.rowid DESC LIMIT ?", (limit,))[::-1]


def votes_by_id(connection: Connection, event_ids: Sequence[str]) -> list[Vote]:
    """Of labels that were not taken back, in the order in which they came."""
    if not event_ids:
        return []
    places = ", ".join("?" * len(event_ids))
    return _votes(connection, f"labels.event_id IN ({places}) ORDER BY labels.rowid", tuple(event_ids))


def complete_pairs_of(connection: Connection, annotator: str, limit: int) -> list[ComparedPair]:
    """Of the complete comparisons that the person took part in the latest `limit`, oldest first."""
    rows = connection.execute(
        "SELECT task_id, tasks.run_id, group_id, first_id, second_id FROM labels JOIN tasks USING (task_id) "
        "WHERE annotator = ? AND tasks.kind = 'comparison' AND free_at IS NULL ORDER BY labels.rowid DESC LIMIT ?",
        (annotator, limit),
    ).fetchall()
    return [ComparedPair(*map(str_of, row)) for row in reversed(rows)]


def people_labels(connection: Connection) -> int:
    """How many comparisons people have labelled so far; machines' names hold a slash."""
    return int_of(
        connection.execute("SELECT count(*) FROM labels WHERE kind = 'comparison' AND annotator NOT LIKE '%/%'").get
    )


def count_labels(connection: Connection, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
    """(by outcome, by source); the source is `people`, or the name of a machine, which has a slash."""
    outcomes: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for outcome, source, number in connection.execute(
        "SELECT outcome, source, number FROM label_counts WHERE (:run = '' OR run_id = :run)", {"run": run_id}
    ):
        outcomes[str_of(outcome)] += int_of(number)
        sources[str_of(source)] += int_of(number)
    return dict(+outcomes), dict(+sources)  # what was taken back leaves no zero


def _tally(transaction: Transaction, run_id: str, outcome: Outcome, annotator: str, by: int) -> None:
    """Kept, because a report over a million labels is asked for every two seconds; each writer counts for itself."""
    transaction.connection.execute(
        "INSERT INTO label_counts (run_id, outcome, source, shard, number) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (run_id, outcome, source, shard) DO UPDATE SET number = label_counts.number + excluded.number",
        (run_id, outcome.value, annotator if "/" in annotator else "people", transaction.shard, by),
    )


def comparisons_by_version(connection: Connection, run_id: str, limit: int) -> list[tuple[int, int, float, float]]:
    """(policy version of the first, of the second, p_first_wins, weight) of the latest votes that compare two versions
    and say something about the order."""
    # Two queries: with `:run = '' OR` in one, SQLite could not use the run's index.
    rows = connection.execute(
        "SELECT sides, outcome, weight FROM labels JOIN tasks USING (task_id) WHERE labels.kind = 'comparison' "
        f"AND weight > 0 AND outcome IN ('first', 'second', 'tie') {'AND labels.run_id = :run ' if run_id else ''}"
        "ORDER BY labels.rowid DESC LIMIT :limit",
        {"run": run_id, "limit": limit},
    )
    found = []
    for sides, outcome, weight in rows:
        first, second = (int(side["policy_version"]) for side in json.loads(str_of(sides)))
        if first != second:
            p_first = {"first": 1.0, "second": 0.0, "tie": 0.5}[str_of(outcome)]
            found.append((first, second, p_first, float_of(weight)))
    return found


def _votes(connection: Connection, where: str, about: tuple[str | int, ...]) -> list[Vote]:
    rows = connection.execute(
        "SELECT event_id, task_id, labels.item, labels.kind, gold, annotator, outcome, strength, weight, swapped, "
        f"duration_seconds, labelled_at, first_id <= second_id FROM labels JOIN tasks USING (task_id) WHERE {where}",
        about,
    )
    return [
        Vote(
            str_of(r[0]),
            str_of(r[1]),
            str_of(r[2]),
            TaskKind(str_of(r[3])),
            Outcome(str_of(r[4])) if r[4] else None,
            str_of(r[5]),
            Outcome(str_of(r[6])),
            int_of(r[7]),
            float_of(r[8]),
            bool(r[9]),
            float_of(r[10]),
            float_of(r[11]),
            bool(r[12]),
        )
        for r in rows
    ]


@dataclass(frozen=True, slots=True)
class _Given:
    annotator: str
    submission: Submission
    swapped: bool
    lease_id: str
    presented_at: float
    propensity: float = 1.0
    guideline_version: str = ""


@lru_cache(maxsize=1024)
def _sides(text: str) -> tuple[Side, Side]:
    """Few policies write many answers: parsing is worth remembering in a path that runs thousands of times a second."""
    first, second = json.loads(text)
    return Side(**first), Side(**second)


def _has_labelled(connection: Connection, task_id: str, annotator: str) -> bool:
    row = connection.execute("SELECT 1 FROM labels WHERE task_id = ? AND annotator = ?", (task_id, annotator))
    return row.fetchone() is not None


def _has_place(transaction: Transaction, task_id: str, annotator: str) -> bool:
    """Another live lease of one's own is a reserved place; otherwise one must be left beside everybody's."""
    own, live, places = transaction.connection.execute(
        "SELECT (SELECT count(*) FROM leases WHERE task_id = :task AND annotator = :who AND used_at IS NULL "
        "        AND expires_at > :now), "
        "       (SELECT count(*) FROM leases WHERE task_id = :task AND used_at IS NULL AND expires_at > :now), "
        "       required_labels - accepted_labels FROM tasks WHERE task_id = :task",
        {"task": task_id, "who": annotator, "now": transaction.now},
    ).fetchone() or (0, 0, 0)
    return int_of(own) > 0 or int_of(live) < int_of(places)


def _store(transaction: Transaction, task_id: str, given: _Given, weigh: Weigh, urgency: Urgency) -> Accepted:
    connection, submission = transaction.connection, given.submission
    row = connection.execute(
        "SELECT run_id, group_id, kind, item, first_id, second_id, sides, gold, required_labels, accepted_labels "
        "FROM tasks WHERE task_id = ?",
        (task_id,),
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no task {task_id!r}.", "Name a task of this store.", "TASK_UNKNOWN")
    run_id, kind, item, accepted = str_of(row[0]), TaskKind(str_of(row[2])), str_of(row[3]), int_of(row[9])
    places = int_of(row[8]) - accepted
    first_side, second_side = _sides(str_of(row[6]))
    event_id = fresh_id()
    label = Label(
        label_id=event_id,
        task_id=task_id,
        group_id=str_of(row[1]),
        first_id=str_of(row[4]),
        second_id=str_of(row[5]),
        outcome=_turned(submission.presented_outcome, given.swapped),
        annotator=given.annotator,
        strength=submission.strength,
        rationale=submission.rationale,
        presented_swapped=given.swapped,
        duration_seconds=submission.duration_seconds,
        kind=kind,
        aspects={name: _turned(each, given.swapped) for name, each in submission.presented_aspects.items()},
        presented_at=given.presented_at,
        guideline_version=given.guideline_version,
        propensity=given.propensity,
        first_side=first_side,
        second_side=second_side,
    )
    transaction.append(run_id, label, event_id)
    vote = Vote(
        event_id,
        task_id,
        item,
        kind,
        Outcome(str_of(row[7])) if row[7] else None,
        given.annotator,
        label.outcome,
        label.strength,
        weigh(kind),
        given.swapped,
        label.duration_seconds,
        transaction.now,
        label.first_id <= label.second_id,
    )
    _count(transaction, run_id, vote, given.lease_id, places, urgency)
    pair = ComparedPair(task_id, run_id, label.group_id, label.first_id, label.second_id)
    return Accepted(label, pair, vote, complete=places == 1, alone=accepted == 0)


def _count(transaction: Transaction, run_id: str, vote: Vote, lease_id: str, places: int, urgency: Urgency) -> None:
    connection = transaction.connection
    connection.execute(
        "INSERT INTO labels (task_id, annotator, item, kind, event_id, lease_id, outcome, strength, weight, swapped, "
        "duration_seconds, labelled_at, run_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            vote.task_id,
            vote.annotator,
            vote.item,
            vote.kind.value,
            vote.event_id,
            lease_id,
            vote.outcome.value,
            vote.strength,
            vote.weight,
            int(vote.swapped),
            vote.duration_seconds,
            vote.at,
            run_id,
        ),
    )
    _tally(transaction, run_id, vote.outcome, vote.annotator, 1)
    connection.execute(
        "UPDATE leases SET used_at = ? WHERE task_id = ? AND annotator = ? AND used_at IS NULL",
        (vote.at, vote.task_id, vote.annotator),
    )
    if places == 1:
        connection.execute(
            "UPDATE tasks SET accepted_labels = accepted_labels + 1, free_at = NULL WHERE task_id = ?", (vote.task_id,)
        )
        return
    connection.execute("UPDATE tasks SET accepted_labels = accepted_labels + 1 WHERE task_id = ?", (vote.task_id,))
    settle(transaction, vote.task_id)
    set_urgency(transaction, vote.task_id, urgency)


def _turned(outcome: Outcome, swapped: bool) -> Outcome:
    return _SWAPPED.get(outcome, outcome) if swapped else outcome
