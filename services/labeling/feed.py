"""Feedback as an endless stream: pages from the store, and a bell that rings at every commit with new events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from iterpo import feedback_wire
from iterpo.errors import Unavailable
from iterpo.store.commit import Commit
from iterpo.store.database import FeedbackDatabase
from iterpo.store.events import read_events
from iterpo.v1 import labeling_pb2

PAGE_EVENTS = 64
LONGEST_NAP_SECONDS = 5.0
"""A stream looks at the store at least this often, should a ring ever be missed."""


class Feed:
    """Made inside the event loop that serves; `close` ends every open stream with a reason."""

    def __init__(self, database: FeedbackDatabase) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Event] = set()
        self._closing = False
        self._unsubscribe = database.subscribe(self._on_commit)

    async def events(
        self, run_id: str, cursor: int, idle_seconds: float
    ) -> AsyncIterator[labeling_pb2.StreamFeedbackResponse]:
        """Everything after `cursor` (negative: the newest event), then what comes; ends after `idle_seconds` of nothing
        (0: never).

        Raises Unavailable STOPPING when the server drains: the last cursor is where to go on.
        """
        bell = asyncio.Event()
        self._waiting.add(bell)
        try:
            last_event = time.monotonic()
            if cursor < 0:
                cursor = await asyncio.wrap_future(self._database.read_settled(lambda _, upto: upto)) - 1
            while not self._closing:
                bell.clear()
                page = await self._page(run_id, cursor)
                for message in page:
                    yield message
                    cursor = message.cursor
                if page:
                    last_event = time.monotonic()
                    continue
                left = idle_seconds - (time.monotonic() - last_event) if idle_seconds > 0 else LONGEST_NAP_SECONDS
                if left <= 0:
                    return
                await _nap(bell, min(left, LONGEST_NAP_SECONDS))
        finally:
            self._waiting.discard(bell)
        raise Unavailable(
            "The labeling server is stopping.", f"Stream again from cursor {cursor} when it is back.", "STOPPING"
        )

    def close(self) -> None:
        self._closing = True
        self._unsubscribe()
        self._ring()

    async def _page(self, run_id: str, cursor: int) -> list[labeling_pb2.StreamFeedbackResponse]:
        """Read and converted in the store's reader thread: decoding log-probs must not hold up the event loop."""
        return await asyncio.wrap_future(
            self._database.read_settled(
                lambda connection, upto: [
                    feedback_wire.event_to_proto(event)
                    for event in read_events(connection, run_id, cursor, PAGE_EVENTS, upto)
                ]
            )
        )

    def _on_commit(self, commit: Commit) -> None:
        if commit.kinds and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for bell in self._waiting:
            bell.set()


async def _nap(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return
