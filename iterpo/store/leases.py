"""Leases: which task a person gets, for how long, and how he gives it back. Each decided in one transaction.

A person is never leased a pair that he has labelled, given back, or holds a live lease on, nor a text of his own. Once
a lease has expired unused, the same person may be leased the task again: a lone annotator who closed his window must
be able to go on. Repeats are the exception that they are made for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from iterpo import feedback_wire
from iterpo.store.connection import Connection
from iterpo.store.rows import bytes_of, float_of, int_of, str_of
from iterpo.store.tasks import add_task, read_task, settle, tidy
from iterpo.store.transaction import Transaction, fresh_id
from iterpo.types import Lease, Release, TaskKind
from iterpo.v1 import types_pb2

WINDOW = 256
"""Of how many eligible tasks, the most urgent first, the random share draws."""

_COLUMNS = "task_id, item, guideline, shown, required_labels - accepted_labels"
_NOT_SEEN = """
  AND first_author <> :annotator AND second_author <> :annotator
  AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.annotator = :annotator AND labels.item = tasks.item)
  AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.annotator = :annotator AND leases.item = tasks.item
                  AND (released = 1 OR (used_at IS NULL AND expires_at > :now)))
"""
_NOT_HELD = """
  AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.annotator = :annotator AND leases.item = tasks.item
                  AND leases.task_id = tasks.task_id AND (released = 1 OR (used_at IS NULL AND expires_at > :now)))
"""
"""Of a task made for this person: other tasks of the same pair do not matter."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Who wants tasks, how many, and which."""

    annotator: str
    limit: int
    seconds: float
    run_id: str = ""
    guideline: str = ""
    """Empty: every guideline."""
    languages: tuple[str, ...] = ()
    """Tasks in these, and those in none; empty: every language."""
    only_measured: bool = False
    """Only tasks that measure the annotator (gold, repeats): for a person in quarantine."""
    only_own: bool = False
    """Only tasks made for this very annotator: for a machine."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """How tasks are mixed."""

    random_share: float = 0.0
    """Of the comparisons: drawn at random instead of by urgency, so that labels can be reweighted."""
    gold_share: float = 0.0
    repeat_share: float = 0.0
    repeat_after: int = 10
    """A pair comes again to the same person once he has labelled this many others."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as the store hands it out: the task is a message, as it is sent and shown."""

    lease_id: str
    task_id: str
    annotator: str
    expires_at: float
    swapped: bool
    guideline: str
    """Name or text."""
    shown: bytes
    """iterpo.v1.Task without token ids, log-probs and the policies' identity."""
    propensity: float = 1.0

    @property
    def lease(self) -> Lease:
        task = feedback_wire.task_from_proto(types_pb2.Task.FromString(self.shown))
        return Lease(self.lease_id, task, self.annotator, self.expires_at, self.swapped)


@dataclass(frozen=True, slots=True)
class _Candidate:
    task_id: str
    item: str
    guideline: str
    shown: bytes
    places: int
    propensity: float = 1.0


Version = Callable[[str], str]
"""A guideline (name or text) -> the version that is shown at the moment."""


def lease_tasks(
    transaction: Transaction, ask: Ask, mixture: Mixture, draw: random.Random, version: Version
) -> list[Held]:
    """At most `ask.limit` leases; `draw` also decides which answer is shown first."""
    transaction.locks.person(ask.annotator)
    tidy(transaction)
    chosen = _claimed(transaction, _personal(transaction, ask), ask.limit)
    if not ask.only_own:
        chosen += _mixed(transaction, ask, mixture, draw, ask.limit - len(chosen), {c.item for c in chosen})
    return [_grant(transaction, candidate, ask, draw.random() < 0.5, version) for candidate in chosen]


def _mixed(
    transaction: Transaction, ask: Ask, mixture: Mixture, draw: random.Random, places: int, taken: set[str]
) -> list[_Candidate]:
    """Comparisons with measuring tasks among them, each place drawn for itself, and in no order that tells them
    apart."""
    measured: list[_Candidate] = []
    for _ in range(places):
        found = _measured(transaction, ask, mixture, draw, taken)
        if found is not None:
            measured.append(found)
            taken = taken | {found.item}
    left = 0 if ask.only_measured else places - len(measured)
    mixed = _comparisons(transaction, ask, mixture, draw, left, taken)
    for each in measured:
        mixed.insert(draw.randrange(len(mixed) + 1), each)
    return mixed


def live_leases(transaction: Transaction, annotator: str) -> list[Held]:
    """What the person holds at the moment, oldest first: where a broken connection goes on."""
    rows = transaction.connection.execute(
        "SELECT lease_id, task_id, expires_at, swapped, guideline, shown, propensity FROM leases JOIN tasks "
        "USING (task_id) WHERE annotator = ? AND used_at IS NULL AND expires_at > ? ORDER BY granted_at, leases.rowid",
        (annotator, transaction.now),
    ).fetchall()
    return [
        Held(
            str_of(r[0]),
            str_of(r[1]),
            annotator,
            float_of(r[2]),
            bool(r[3]),
            str_of(r[4]),
            bytes_of(r[5]),
            float_of(r[6]),
        )
        for r in rows
    ]


def extend_lease(transaction: Transaction, annotator: str, lease_id: str, seconds: float) -> float | str:
    """The lease's new end, from now on; or why not: LEASE_UNKNOWN, NOT_YOUR_LEASE, LEASE_USED, LEASE_EXPIRED."""
    task_id = _own_unused(transaction, annotator, lease_id)
    if isinstance(task_id, Refusal):
        return task_id.reason
    row = transaction.connection.execute("SELECT expires_at FROM leases WHERE lease_id = ?", (lease_id,)).fetchone()
    if row is None or float_of(row[0]) <= transaction.now:
        return "LEASE_EXPIRED"
    ends = transaction.now + seconds
    transaction.connection.execute("UPDATE leases SET expires_at = ? WHERE lease_id = ?", (ends, lease_id))
    settle(transaction, task_id)
    return ends


def release_task(transaction: Transaction, annotator: str, lease_id: str, reason: str) -> str:
    """Give the task back: its place is free at once, and this person does not get it again. Returns "" or why not."""
    task_id = _own_unused(transaction, annotator, lease_id)
    if isinstance(task_id, Refusal):
        return task_id.reason
    transaction.opened = True
    connection = transaction.connection
    connection.execute("UPDATE leases SET used_at = ?, released = 1 WHERE lease_id = ?", (transaction.now, lease_id))
    settle(transaction, task_id)
    run_id = connection.execute("SELECT run_id FROM tasks WHERE task_id = ?", (task_id,)).get
    transaction.append(str(run_id), Release(task_id, annotator, reason))
    return ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a lease or a label cannot be had, as a stable word."""

    reason: str


def leased_task(transaction: Transaction, annotator: str, lease_id: str) -> str | Refusal:
    """The task of a person's own lease, locked: what is read of both from now on stays so. Refused as LEASE_UNKNOWN or
    NOT_YOUR_LEASE."""
    row = transaction.connection.execute(
        "SELECT task_id, annotator FROM leases WHERE lease_id = ?", (lease_id,)
    ).fetchone()
    if row is None:
        return Refusal("LEASE_UNKNOWN")
    if row[1] != annotator:
        return Refusal("NOT_YOUR_LEASE")
    transaction.locks.person(annotator)
    transaction.locks.task(str_of(row[0]))
    return str_of(row[0])


def _own_unused(transaction: Transaction, annotator: str, lease_id: str) -> str | Refusal:
    """The lease's task."""
    task_id = leased_task(transaction, annotator, lease_id)
    if isinstance(task_id, Refusal):
        return task_id
    used = transaction.connection.execute("SELECT used_at FROM leases WHERE lease_id = ?", (lease_id,)).get
    return Refusal("LEASE_USED") if used is not None else task_id


def _personal(transaction: Transaction, ask: Ask) -> list[_Candidate]:
    """Tasks made for this very person come first: repeats left over, a machine's own."""
    return _candidates(
        transaction.connection,
        f"free_at = 0 AND only_for <> '' AND only_for = :annotator {_NOT_HELD}",
        "event_cursor",
        {"annotator": ask.annotator, "now": transaction.now, "limit": ask.limit},
    )


def _comparisons(
    transaction: Transaction, ask: Ask, mixture: Mixture, draw: random.Random, count: int, taken: set[str]
) -> list[_Candidate]:
    """The most urgent ones, or with probability `random_share` any of the window; each with its propensity."""
    if count <= 0:
        return []
    where, about = _pool(ask, transaction.now)
    limit = WINDOW if mixture.random_share else count + len(taken)
    found = _candidates(
        transaction.connection,
        f"free_at = 0 AND kind = 'comparison' AND only_for = '' {where} {_NOT_SEEN}",
        "priority DESC, urgency DESC, event_cursor",
        {**about, "limit": limit},
        index="tasks_free_of_run" if ask.run_id else "tasks_free",
    )
    window = _one_an_item(found, taken)
    chosen: list[_Candidate] = []
    while window and len(chosen) < count:
        random_one = draw.random() < mixture.random_share
        index = draw.randrange(len(window)) if random_one else 0
        share = mixture.random_share / len(window) + (1 - mixture.random_share) * (index == 0)
        chosen += _claimed(transaction, [replace(window.pop(index), propensity=share)], 1)
    return chosen


def _claimed(transaction: Transaction, candidates: list[_Candidate], count: int) -> list[_Candidate]:
    """The first `count` that may still be leased, and that nobody else is leasing at the moment. With one writer these
    are all of them."""
    if not transaction.locks.skip:
        return candidates[:count]
    claimed: list[_Candidate] = []
    for candidate in candidates:
        places = transaction.connection.execute(
            "SELECT required_labels - accepted_labels FROM tasks WHERE task_id = ? AND free_at = 0 "
            f"{transaction.locks.skip}",
            (candidate.task_id,),
        ).get
        if places is not None and len(claimed) < count:
            claimed.append(replace(candidate, places=int_of(places)))
    return claimed


def _measured(
    transaction: Transaction, ask: Ask, mixture: Mixture, draw: random.Random, taken: set[str]
) -> _Candidate | None:
    """A gold task or a repeat, as often as their shares say (always, for one who gets nothing else)."""
    lot = draw.random()
    if lot < mixture.gold_share or ask.only_measured:
        gold = _gold(transaction, ask, taken, draw)
        if gold is not None or not ask.only_measured:
            return gold
    if mixture.gold_share <= lot < mixture.gold_share + mixture.repeat_share or ask.only_measured:
        return _repeat(transaction, ask, mixture.repeat_after, taken)
    return None


def _gold(transaction: Transaction, ask: Ask, taken: set[str], draw: random.Random) -> _Candidate | None:
    where, about = _pool(replace(ask, run_id=""), transaction.now)
    found = _candidates(
        transaction.connection,
        f"kind = 'gold' AND free_at = 0 {where} {_NOT_SEEN}",
        "event_cursor",
        {**about, "limit": WINDOW},
    )
    fresh = [c for c in found if c.item not in taken]
    claimed = _claimed(transaction, [draw.choice(fresh)], 1) if fresh else []
    return claimed[0] if claimed else None


def _repeat(transaction: Transaction, ask: Ask, after: int, taken: set[str]) -> _Candidate | None:
    """Make a task of a pair that the person labelled `after` labels ago and has not been given again."""
    row = transaction.connection.execute(
        "SELECT task_id FROM labels INDEXED BY labels_in_time "
        "WHERE annotator = :annotator AND kind = 'comparison' AND outcome <> 'skip' "
        "AND NOT EXISTS (SELECT 1 FROM tasks WHERE kind = 'repeat' AND only_for = :annotator "
        "                AND item = labels.item) "
        "ORDER BY labelled_at DESC LIMIT 1 OFFSET :after",
        {"annotator": ask.annotator, "after": after},
    ).fetchone()
    if row is None:
        return None
    earlier = read_task(transaction.connection, str_of(row[0]))
    if earlier.item in taken:
        return None
    task = replace(earlier, task_id=fresh_id(), kind=TaskKind.REPEAT, only_for=ask.annotator, required_labels=1)
    add_task(transaction, task)
    shown = feedback_wire.task_to_proto(feedback_wire.shown(task)).SerializeToString()
    return _Candidate(task.task_id, task.item, task.guideline, shown, 1)


def _pool(ask: Ask, now: float) -> tuple[str, dict[str, str | float]]:
    """Conditions are written only where they are asked for: an index serves the plain question."""
    where = ""
    about: dict[str, str | float] = {"annotator": ask.annotator, "now": now}
    if ask.run_id:
        where, about["run"] = where + " AND run_id = :run", ask.run_id
    if ask.guideline:
        where, about["guideline"] = where + " AND guideline = :guideline", ask.guideline
    for number, language in enumerate(ask.languages):
        about[f"language{number}"] = language
    if ask.languages:
        where += f" AND language IN ('', {', '.join(f':language{n}' for n in range(len(ask.languages)))})"
    return where, about


def _candidates(
    connection: Connection, where: str, order: str, about: dict[str, str | float], index: str = ""
) -> list[_Candidate]:
    """`index`: in whose order the tasks are read; left to itself, SQLite sorts every open task of a run."""
    source = f"tasks INDEXED BY {index}" if index else "tasks"  # PostgreSQL is not told, and needs no telling
    query = f"SELECT {_COLUMNS} FROM {source} WHERE {where} ORDER BY {order} LIMIT :limit"
    return [
        _Candidate(str_of(r[0]), str_of(r[1]), str_of(r[2]), bytes_of(r[3]), int_of(r[4]))
        for r in connection.execute(query, about)
    ]


def _one_an_item(candidates: list[_Candidate], taken: set[str]) -> list[_Candidate]:
    """The first of each pair that is not taken, in their order."""
    first: dict[str, _Candidate] = {}
    for candidate in candidates:
        if candidate.item not in taken:
            first.setdefault(candidate.item, candidate)
    return list(first.values())


def _grant(transaction: Transaction, candidate: _Candidate, ask: Ask, swapped: bool, version: Version) -> Held:
    lease_id, ends = fresh_id(), transaction.now + ask.seconds
    transaction.connection.execute(
        "INSERT INTO leases (lease_id, task_id, annotator, item, granted_at, expires_at, swapped, propensity, "
        "guideline_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            lease_id,
            candidate.task_id,
            ask.annotator,
            candidate.item,
            transaction.now,
            ends,
            int(swapped),
            candidate.propensity,
            version(candidate.guideline),
        ),
    )
    if candidate.places == 1:
        transaction.connection.execute("UPDATE tasks SET free_at = ? WHERE task_id = ?", (ends, candidate.task_id))
    else:
        settle(transaction, candidate.task_id)
    return Held(
        lease_id,
        candidate.task_id,
        ask.annotator,
        ends,
        swapped,
        candidate.guideline,
        candidate.shown,
        candidate.propensity,
    )
