"""The annotators' states: the event that changed each, and the state that holds."""

from __future__ import annotations

import apsw

from iterpo.store.rows import float_of, str_of
from iterpo.store.transaction import Transaction
from iterpo.types import AnnotatorState, Standing


def set_standing(transaction: Transaction, standing: Standing) -> str:
    """Returns the event's id. Standings belong to no run."""
    transaction.connection.execute(
        "INSERT OR REPLACE INTO standings VALUES (?, ?, ?, ?, ?)",
        (standing.annotator, standing.state.value, standing.reason, standing.by, transaction.now),
    )
    return transaction.append("", standing)


def read_standings(connection: apsw.Connection) -> list[tuple[Standing, float]]:
    """With the moment of each (seconds since the epoch), in that order."""
    rows = connection.execute(
        "SELECT annotator, state, reason, decided_by, changed_at FROM standings ORDER BY changed_at, annotator"
    )
    return [
        (Standing(str_of(r[0]), AnnotatorState(str_of(r[1])), str_of(r[2]), str_of(r[3])), float_of(r[4])) for r in rows
    ]
