"""Reading events back."""

from __future__ import annotations

from collections.abc import Sequence

from iterpo import feedback_wire
from iterpo.store.connection import Connection
from iterpo.store.rows import bytes_of, int_of
from iterpo.types import FeedbackEvent
from iterpo.v1 import labeling_pb2

NEWEST = 2**62
"""Above every cursor."""


def read_events(connection: Connection, run_id: str, after: int, limit: int, upto: int = NEWEST) -> list[FeedbackEvent]:
    """At most `limit` events with a cursor above `after` and not above `upto`, oldest first; `run_id` "" means every
    run."""
    if run_id:
        rows = connection.execute(
            "SELECT cursor, body FROM events WHERE run_id = ? AND cursor > ? AND cursor <= ? ORDER BY cursor LIMIT ?",
            (run_id, after, upto, limit),
        )
    else:
        rows = connection.execute(
            "SELECT cursor, body FROM events WHERE cursor > ? AND cursor <= ? ORDER BY cursor LIMIT ?",
            (after, upto, limit),
        )
    return [decode(int_of(cursor), bytes_of(body)) for cursor, body in rows]


def events_of_kinds(
    connection: Connection, kinds: Sequence[str], after: int, upto: int, limit: int
) -> list[FeedbackEvent]:
    """As `read_events`, of every run."""
    places = ", ".join("?" * len(kinds))
    rows = connection.execute(
        f"SELECT cursor, body FROM events WHERE kind IN ({places}) AND cursor > ? AND cursor <= ? "
        "ORDER BY cursor LIMIT ?",
        (*kinds, after, upto, limit),
    )
    return [decode(int_of(cursor), bytes_of(body)) for cursor, body in rows]


def newest_cursor(connection: Connection) -> int:
    """Of the event that was written last; 0 when there is none."""
    return int_of(connection.execute("SELECT coalesce(max(cursor), 0) FROM events").get)


def read_event(connection: Connection, cursor: int) -> FeedbackEvent:
    """The event at a cursor that a derived table named; LookupError means a damaged database."""
    body = connection.execute("SELECT body FROM events WHERE cursor = ?", (cursor,)).get
    if body is None:
        raise LookupError(f"no event has cursor {cursor}")
    return decode(cursor, bytes_of(body))


def decode(cursor: int, body: bytes) -> FeedbackEvent:
    message = labeling_pb2.StreamFeedbackResponse.FromString(body)
    message.cursor = cursor
    return feedback_wire.event_from_proto(message)
