"""What an operation of the store is handed: the connection, the time, and the two ways to leave a trace."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from iterpo import feedback_wire
from iterpo.errors import Conflict
from iterpo.store.connection import Connection, Locks, OneWriter
from iterpo.store.migrate import SCHEMA_VERSION
from iterpo.store.rows import bytes_of, int_of, str_of
from iterpo.types import (
    EVENT_BODIES,
    Abstention,
    Group,
    Label,
    Preference,
    Release,
    Retraction,
    Reward,
    Standing,
    Task,
)

EventBody = Group | Reward | Abstention | Task | Label | Retraction | Preference | Standing | Release
Clock = Callable[[], float]
"""Seconds since the epoch."""

_FIELD_OF = {body: name for name, body in EVENT_BODIES.items()}
_UNDER_WAY = ""
"""Stands for the answer until there is one, within the transaction that makes it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mutation answered: ids, in the request's order."""

    ids: list[str]
    duplicate: bool = False
    """True when the request id had been stored before; the ids are then the first answer's."""


@dataclass(slots=True)
class Transaction:
    """Valid only while its operation runs, inside a writer's thread."""

    connection: Connection
    now: float
    """Seconds since the epoch, the store's clock, read once for the whole operation."""
    locks: Locks = field(default_factory=OneWriter)
    shard: int = 0
    """Which of the rows that are counters this writer keeps: no two that write at the same time have the same."""
    appended: list[str] = field(default_factory=list)
    """Kinds of the events appended so far."""
    opened: bool = False
    """A task may be leased that could not be before: people who wait should ask again."""
    last_cursor: int = 0
    """Of the event appended last."""

    def append(self, run_id: str, body: EventBody, event_id: str = "") -> str:
        """Add one event at the end; returns its event id, a fresh one unless it is given."""
        event_id, kind = event_id or fresh_id(), _FIELD_OF[type(body)]
        message = feedback_wire.event_message(event_id, run_id, self.now, kind, body)
        self.last_cursor = int_of(
            self.connection.execute(
                "INSERT INTO events (event_id, kind, run_id, body, schema_version, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?) RETURNING cursor",
                (event_id, kind, run_id, message.SerializeToString(), SCHEMA_VERSION, self.now),
            ).get
        )
        self.appended.append(kind)
        return event_id

    def once(self, request_id: str, payload: bytes, act: Callable[[], list[str]]) -> Answer:
        """Run `act` unless `request_id` was answered before; then return that answer.

        Raises Conflict REQUEST_ID_REUSED when the id was used for another payload.
        """
        digest = hashlib.sha256(payload).digest()
        # First, and not last: of two transactions with one request id the second waits here for the first one's end.
        fresh = self.connection.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
            (request_id, digest, _UNDER_WAY, self.now),
        ).get
        if fresh is None:
            stored = self.connection.execute(
                "SELECT payload_sha256, answer FROM requests WHERE request_id = ?", (request_id,)
            ).fetchone()
            if stored is None or bytes_of(stored[0]) != digest:
                raise Conflict(
                    f"Request id {request_id!r} was already used for another request.",
                    "Use a fresh request_id for every new request, and repeat one only with the same content.",
                    "REQUEST_ID_REUSED",
                )
            return Answer(json.loads(str_of(stored[1])), duplicate=True)
        ids = act()
        self.connection.execute("UPDATE requests SET answer = ? WHERE request_id = ?", (json.dumps(ids), request_id))
        return Answer(ids)

    def forget(self, request_id: str) -> None:
        """Let a request id that was answered in this very transaction be decided anew when it comes again."""
        self.connection.execute("DELETE FROM requests WHERE request_id = ?", (request_id,))


def fresh_id() -> str:
    """128 random bits, hexadecimal: as unique as a UUID, and made in a fraction of its time."""
    return os.urandom(16).hex()


def payload(*parts: str | bytes) -> bytes:
    """What tells one request from another: parts with their lengths, so that no two lists of parts look the same."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
