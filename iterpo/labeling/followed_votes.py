"""`FollowedVotes`: what other labeling servers on the same database accept and decide, told to this one's crowd.

Every server judges the annotators by all of their votes. Its own it hears of as they are committed; the others' it
reads from the store, when that says that there are some.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from iterpo.errors import IterpoError
from iterpo.labeling.crowd import FIXED, Crowd
from iterpo.labeling.voting import seen_by_crowd
from iterpo.store.commit import Commit
from iterpo.store.connection import Connection
from iterpo.store.database import FeedbackDatabase
from iterpo.store.events import events_of_kinds
from iterpo.store.labels import votes_by_id
from iterpo.store.standings import read_standings
from iterpo.types import FeedbackEvent

logger = logging.getLogger(__name__)

KINDS = ("label", "retraction", "standing")
PAGE_EVENTS = 256
LOOK_SECONDS = 5.0
"""It looks at least this often, should word of a commit ever be missed."""


class FollowedVotes:
    """One thread, from `begin` to `close`; none where there is one server."""

    def __init__(self, database: FeedbackDatabase, crowd: Crowd) -> None:
        self._database, self._crowd = database, crowd
        self._news, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="iterpo-followed-votes", daemon=True)
        self._cursor = 0
        self._unsubscribe = database.subscribe(self._on_commit)

    def begin(self) -> None:
        """From here on: what was before is read otherwise."""
        if self._database.owner:
            self._cursor = self._database.read_settled(lambda _, upto: upto).result()
            self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        self._unsubscribe()

    def _on_commit(self, commit: Commit) -> None:
        if not commit.operations and not {*KINDS}.isdisjoint(commit.kinds):
            self._news.set()

    def _follow(self) -> None:
        while not self._closing.is_set():
            self._news.clear()
            try:
                while not self._closing.is_set() and self._read():
                    pass
            except IterpoError as error:  # the store is away: it is read on from the same place
                logger.warning("other servers' votes cannot be read: %s", error)
            self._news.wait(LOOK_SECONDS)

    def _read(self) -> bool:
        """Whether there may be more."""

        def page(connection: Connection, upto: int) -> tuple[list[FeedbackEvent], int]:
            return events_of_kinds(connection, KINDS, self._cursor, upto, PAGE_EVENTS), upto

        events, upto = self._database.read_settled(page).result()
        self._tell(events)
        more = len(events) == PAGE_EVENTS
        self._cursor = events[-1].cursor if more else upto
        return more

    def _tell(self, events: Sequence[FeedbackEvent]) -> None:
        """One's own are among them: seen before, they change nothing."""
        labels = [event.event_id for event in events if event.label is not None]
        for vote in self._database.read(lambda connection: votes_by_id(connection, labels)).result():
            self._crowd.see(seen_by_crowd(vote))
        for event in events:
            if event.retraction is not None:
                self._crowd.forget(event.retraction.label_id)
        decided = {event.standing.annotator for event in events if event.standing is not None}
        if decided:
            self._decide(decided)

    def _decide(self, annotators: set[str]) -> None:
        """A lead's word, and quarantine, hold at once; what else another server found, this one will find."""
        for standing, readmitted in self._database.read(read_standings).result():
            name, state = standing.annotator, standing.state
            if name in annotators and state is not self._crowd.state(name) and (standing.by or state in FIXED):
                self._crowd.set_state(name, state, standing.reason, readmitted)
