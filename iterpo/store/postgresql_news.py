"""`News`: one connection that listens for other servers' commits, and holds the duty when it can get it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import psycopg

from iterpo.background import in_background
from iterpo.errors import IterpoError
from iterpo.store.commit import Commit
from iterpo.store.postgresql_connection import DUTY
from iterpo.types import EVENT_BODIES

logger = logging.getLogger(__name__)

CHANNEL = "iterpo_commits"
LOOK_SECONDS = 1.0
"""How often the duty is asked for, and how long a connection that was lost is not sought again."""


class News:
    """One thread, from the beginning until `close`."""

    def __init__(self, address: str, session: Mapping[str, Any], owner: str, tell: Callable[[Commit], None]) -> None:
        """When it is made, the duty has been asked for once. `owner`: whose own commits are no news."""
        self._address, self._session = address, dict(session)
        self._owner, self._tell = owner, tell
        self.on_duty = False
        self._begins: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        connection = self._connect()
        self._thread = threading.Thread(target=self._listen, args=(connection,), name="iterpo-store-news", daemon=True)
        self._thread.start()

    def when_on_duty(self, begin: Callable[[], None]) -> None:
        with self._lock:
            self._begins.append(begin)
            now = self.on_duty
        if now:
            begin()

    def close(self) -> None:
        self._closing.set()
        try:
            with psycopg.connect(self._address, autocommit=True, **self._session) as waker:
                waker.execute(f"NOTIFY {CHANNEL}, '{self._owner} '")
        except psycopg.Error as error:  # the thread looks up by itself, within LOOK_SECONDS
            logger.debug("the listener was not woken: %s", error)
        self._thread.join()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._address, autocommit=True, **self._session)
        connection.execute(f"LISTEN {CHANNEL}")
        self._ask_for_duty(connection)
        return connection

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        while not self._closing.is_set():
            try:
                for notify in connection.notifies(timeout=LOOK_SECONDS):
                    self._hear(notify.payload)
                    if self._closing.is_set():
                        break
                self._ask_for_duty(connection)
            except psycopg.Error as error:
                self.on_duty = False
                logger.warning("the feedback store is away: %s", str(error).strip())
                connection.close()
                connection = self._connect_again(connection)
        connection.close()
        self.on_duty = False

    def _connect_again(self, lost: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
        """The lost one when this is closed meanwhile."""
        while not self._closing.wait(LOOK_SECONDS):
            try:
                found = self._connect()
            except psycopg.Error:
                continue
            logger.info("the feedback store is back")
            # What was told meanwhile was missed: whoever waits looks for himself.
            self._tell(Commit(0, 0.0, tuple(EVENT_BODIES), True))
            return found
        return lost

    def _ask_for_duty(self, connection: psycopg.Connection[Any]) -> None:
        if self.on_duty:
            connection.execute("SELECT 1")  # a connection that is lost holds no lock any more
            return
        [gained] = connection.execute("SELECT pg_try_advisory_lock(%s, 0)", (DUTY,)).fetchone() or (False,)
        if not gained:
            return
        with self._lock:
            self.on_duty = True
            begins = tuple(self._begins)
        for begin in begins:
            in_background("taking the duty over", partial(self._begin, begin))

    def _begin(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except IterpoError as error:  # what it would have done once is done by whoever takes the duty over next
            logger.warning("the duty could not be begun: %s", error)

    def _hear(self, news: str) -> None:
        owner, opened, *kinds = news.split(" ")
        if owner != self._owner:
            self._tell(Commit(0, 0.0, tuple(kinds), opened == "opened"))
