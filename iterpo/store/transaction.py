"""What an operation of the store is handed: the connection, the time, and the two ways to leave a trace."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import apsw

from iterpo import wire
from iterpo.errors import Conflict
from iterpo.store.schema import SCHEMA_VERSION
from iterpo.types import Abstention, FeedbackEvent, Group, Label, Reward, Task

EventBody = Group | Reward | Abstention | Task | Label
Clock = Callable[[], float]
"""Seconds since the epoch."""

_FIELD_OF = {Group: "group", Reward: "reward", Abstention: "abstention", Task: "task", Label: "label"}


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

    def append(self, run_id: str, body: EventBody) -> str:
        """Add one event at the end; returns its event id."""
        event_id, kind = uuid.uuid4().hex, _FIELD_OF[type(body)]
        event = _event(event_id, run_id, self.now, body)
        self.connection.execute(
            "INSERT INTO events (event_id, kind, run_id, body, schema_version, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (event_id, kind, run_id, wire.event_to_proto(event).SerializeToString(), SCHEMA_VERSION, self.now),
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


def _event(event_id: str, run_id: str, created_at: float, body: EventBody) -> FeedbackEvent:
    match body:
        case Group():
            return FeedbackEvent(0, event_id, run_id, created_at, group=body)
        case Reward():
            return FeedbackEvent(0, event_id, run_id, created_at, reward=body)
        case Abstention():
            return FeedbackEvent(0, event_id, run_id, created_at, abstention=body)
        case Task():
            return FeedbackEvent(0, event_id, run_id, created_at, task=body)
        case Label():
            return FeedbackEvent(0, event_id, run_id, created_at, label=body)
