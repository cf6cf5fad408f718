"""What an operation of the store is handed: the connection, the time, and the two ways to leave a trace."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import apsw

from iterpo import feedback_wire
from iterpo.errors import Conflict
from iterpo.store.schema import SCHEMA_VERSION
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mutation answered: ids, in the request's order."""

    ids: list[str]
    duplicate: bool = False
    """True when the request id had been stored before; the ids are then the first answer's."""


@dataclass(slots=True)
class Transaction:
    """Valid only while its operation runs, inside the writer thread."""

    connection: apsw.Connection
    now: float
    """Seconds since the epoch, server clock, read once for the whole operation."""
    appended: list[str] = field(default_factory=list)
    """Kinds of the events appended so far."""
    opened: bool = False
    """A task may be leased that could not be before: people who wait should ask again."""

    def append(self, run_id: str, body: EventBody, event_id: str = "") -> str:
        """Add one event at the end; returns its event id, a fresh one unless it is given."""
        event_id, kind = event_id or fresh_id(), _FIELD_OF[type(body)]
        message = feedback_wire.event_message(event_id, run_id, self.now, kind, body)
        self.connection.execute(
            "INSERT INTO events (event_id, kind, run_id, body, schema_version, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (event_id, kind, run_id, message.SerializeToString(), SCHEMA_VERSION, self.now),
        )
        self.appended.append(kind)
        return event_id

    def last_cursor(self) -> int:
        """Cursor of the event appended last through this connection."""
        return self.connection.last_insert_rowid()

    def once(self, request_id: str, payload: bytes, act: Callable[[], list[str]]) -> Answer:
        """Run `act` unless `request_id` was answered before; then return that answer.

        Raises Conflict REQUEST_ID_REUSED when the id was used for another payload.
        """
        digest = hashlib.sha256(payload).digest()
        stored = self.connection.execute(
            "SELECT payload_sha256, answer FROM requests WHERE request_id = ?", (request_id,)
        ).fetchone()
        if stored is not None:
            if stored[0] != digest:
                raise Conflict(
                    f"Request id {request_id!r} was already used for another request.",
                    "Use a fresh request_id for every new request, and repeat one only with the same content.",
                    "REQUEST_ID_REUSED",
                )
            return Answer(json.loads(stored[1]), duplicate=True)
        ids = act()
        self.connection.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?)", (request_id, digest, json.dumps(ids), self.now)
        )
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
