"""The durable queue of completions that machine labelers still owe a verdict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from iterpo.store.connection import Connection
from iterpo.store.groups import find_completions
from iterpo.store.rows import float_of, int_of, str_of
from iterpo.store.transaction import Transaction
from iterpo.types import Abstention, Completion, Prompt, Reward

Verdict = Reward | Abstention


@dataclass(frozen=True, slots=True)
class WorkItem:
    run_id: str
    labeler: str
    prompt: Prompt
    completion: Completion
    attempts: int
    """Times that the labeler failed on it so far."""

    @property
    def key(self) -> tuple[str, str]:
        return self.completion.completion_id, self.labeler


def labelers_with_work(connection: Connection, now: float) -> list[str]:
    """That is due."""
    rows = connection.execute("SELECT DISTINCT labeler FROM work WHERE not_before <= ?", (now,))
    return [str_of(name) for (name,) in rows]


CLAIM_SECONDS = 30.0
"""How long a server's claim on an item holds without being renewed: after this long the others take it up."""


def claim_work(
    transaction: Transaction, labeler: str, limit: int, busy: Collection[tuple[str, str]], owner: str
) -> list[WorkItem]:
    """At most `limit` items whose time has come, first recorded first, leaving out the `busy` ones and those that
    another server has in hand; they are the `owner`'s now."""
    connection, now = transaction.connection, transaction.now
    rows = connection.execute(
        "SELECT completion_id, attempts FROM work WHERE labeler = ? AND not_before <= ? "
        f"AND (claimed_by = ? OR claimed_until <= ?) ORDER BY rowid LIMIT ? {transaction.locks.skip}",
        (labeler, now, owner, now, limit + len(busy)),
    ).fetchall()
    attempts_of = {str_of(row[0]): int_of(row[1]) for row in rows if (str_of(row[0]), labeler) not in busy}
    chosen = list(attempts_of)[:limit]
    connection.executemany(
        "UPDATE work SET claimed_by = ?, claimed_until = ? WHERE completion_id = ? AND labeler = ?",
        [(owner, now + CLAIM_SECONDS, completion_id, labeler) for completion_id in chosen],
    )
    return [
        WorkItem(found.run_id, labeler, found.prompt, found.completion, attempts_of[found.completion.completion_id])
        for found in find_completions(connection, chosen)
    ]


def renew_claims(transaction: Transaction, owner: str, keys: Collection[tuple[str, str]]) -> None:
    """What a server still has in hand."""
    transaction.connection.executemany(
        "UPDATE work SET claimed_until = ? WHERE completion_id = ? AND labeler = ? AND claimed_by = ?",
        [(transaction.now + CLAIM_SECONDS, *key, owner) for key in sorted(keys)],
    )


def next_due(connection: Connection) -> float | None:
    """When the earliest item becomes due (seconds since the epoch); None for an empty queue."""
    earliest = connection.execute("SELECT min(not_before) FROM work").get
    return None if earliest is None else float_of(earliest)


def depth(connection: Connection) -> int:
    return int_of(connection.execute("SELECT count(*) FROM work").get)


def finish(transaction: Transaction, item: WorkItem, verdict: Verdict) -> bool:
    """Append the verdict and take the item off the queue. False, and nothing appended, when it already has one."""
    completion_id, labeler = item.key
    transaction.connection.execute("DELETE FROM work WHERE completion_id = ? AND labeler = ?", item.key)
    known = transaction.connection.execute(
        "SELECT 1 FROM verdicts WHERE completion_id = ? AND labeler = ?", item.key
    ).fetchone()
    if known is not None:
        return False
    event_id = transaction.append(item.run_id, verdict)
    transaction.connection.execute("INSERT INTO verdicts VALUES (?, ?, ?)", (completion_id, labeler, event_id))
    return True


def postpone(transaction: Transaction, item: WorkItem, not_before: float) -> None:
    """Count a failed attempt; the item is due again at `not_before` (seconds since the epoch)."""
    transaction.connection.execute(
        "UPDATE work SET attempts = ?, not_before = ? WHERE completion_id = ? AND labeler = ?",
        (item.attempts + 1, not_before, *item.key),
    )
