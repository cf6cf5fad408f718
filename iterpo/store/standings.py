"""The annotators' states: the event that changed each, and the state that holds."""

from __future__ import annotations

from iterpo.store.connection import Connection
from iterpo.store.rows import float_of, str_of
from iterpo.store.transaction import Transaction
from iterpo.types import AnnotatorState, Standing


def set_standing(transaction: Transaction, standing: Standing) -> str:
    """Returns the event's id. Standings belong to no run. A lead's OK (`by` is set) is a readmission; its moment stays
    when the figures change the state later."""
    readmitted = transaction.now if standing.state is AnnotatorState.OK and standing.by else None
    transaction.connection.execute(
        "INSERT INTO standings VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (annotator) DO UPDATE SET"
        " state = excluded.state, reason = excluded.reason, decided_by = excluded.decided_by,"
        " changed_at = excluded.changed_at, readmitted_at = coalesce(excluded.readmitted_at, standings.readmitted_at)",
        (standing.annotator, standing.state.value, standing.reason, standing.by, transaction.now, readmitted),
    )
    return transaction.append("", standing)


def read_standings(connection: Connection) -> list[tuple[Standing, float | None]]:
    """In the order in which they changed, with the moment of the last readmission (seconds since the epoch)."""
    rows = connection.execute(
        "SELECT annotator, state, reason, decided_by, readmitted_at FROM standings ORDER BY changed_at, annotator"
    )
    return [
        (
            Standing(str_of(r[0]), AnnotatorState(str_of(r[1])), str_of(r[2]), str_of(r[3])),
            None if r[4] is None else float_of(r[4]),
        )
        for r in rows
    ]
