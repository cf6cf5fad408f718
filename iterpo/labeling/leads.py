"""`LeadDesk`: what leads see (queue, agreement, annotators, policies) and decide (who may label)."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from iterpo.background import in_background
from iterpo.labeling.agreement import Agreement
from iterpo.labeling.annotator import MACHINE
from iterpo.labeling.bradley_terry import Comparison, Strength, bradley_terry
from iterpo.labeling.crowd import Crowd, Profile
from iterpo.labeling.voting import preference_of
from iterpo.store.connection import Connection
from iterpo.store.database import FeedbackDatabase
from iterpo.store.labels import comparisons_by_version, complete_pairs_of, count_labels, votes_of
from iterpo.store.rows import float_of, int_of
from iterpo.store.standings import read_standings, set_standing
from iterpo.store.tasks import TaskCounts, count_tasks
from iterpo.store.transaction import Transaction, payload
from iterpo.types import AnnotatorState, Standing

logger = logging.getLogger(__name__)

Compared = tuple[int, int, float, float]
"""Policy versions of the first and the second answer, p_first_wins, weight."""
MOST_REVISED = 2_000
"""Preferences made anew when somebody's state changes, the latest ones: older ones were trained on long ago."""
ALL = 2**62
"""After a lead's decision every preference is made anew: a replay reads even the oldest."""
MOST_COMPARED, MOST_VERSIONS = 5_000, 200
"""Votes and policy versions of the Bradley-Terry table, the latest ones."""

MOST_TABLES = 16
TABLE_SECONDS = 30.0
"""How old a table may be before a page's question has a newer one made."""


@dataclass(frozen=True, slots=True)
class Report:
    counts: TaskCounts
    labels_by_outcome: Mapping[str, int]
    labels_by_source: Mapping[str, int]
    """`people`, or a machine's name."""
    agreement: Agreement
    """Krippendorff's alpha over the latest items."""
    machines: Mapping[str, Agreement]
    """Cohen's kappa of every machine with people."""
    policies: list[Strength]
    """Bradley-Terry over policy versions."""


@dataclass(frozen=True, slots=True)
class Sitting:
    """A person's own figures: what the annotators' page shows him. Nothing about gold tasks."""

    labels: int
    today: int
    """Of the last 24 hours."""
    median_seconds: float


class LeadDesk:
    def __init__(self, database: FeedbackDatabase, crowd: Crowd) -> None:
        self.database = database
        self.crowd = crowd
        self._remembering = threading.Lock()
        self._tables: OrderedDict[str, tuple[float, list[Strength]]] = OrderedDict()
        """Run -> (when, the policies' table); of the MOST_TABLES runs that leads looked at last."""

    def set_state(
        self, annotator: str, state: AnnotatorState, reason: str, by: str, request_id: str
    ) -> Future[tuple[int, bool]]:
        """Take somebody out (EXCLUDED) or readmit him (OK). Returns how many preferences were made anew, and whether
        the request is a repeated one. Conflict REQUEST_ID_REUSED arrives through the future."""

        def act(transaction: Transaction) -> tuple[int, bool]:
            def once() -> list[str]:
                self.crowd.set_state(annotator, state, reason)
                set_standing(transaction, Standing(annotator, state, reason, by))
                return [str(self._revise(transaction, annotator, ALL))]

            answer = transaction.once(request_id, payload("state", annotator, state.value, reason, by), once)
            return int(answer.ids[0]), answer.duplicate

        return self.database.write(act)

    def judge(self) -> list[Standing]:
        """Work the annotators' quality out anew, record whose state is not the stored one, and make their preferences
        anew; blocks. What a failed write or a crash left unrecorded is recorded the next time."""
        self.crowd.refresh()
        if not self.database.on_duty():  # another server on the same database records them
            return []
        changed = self.database.read(self._unrecorded).result()

        def act(transaction: Transaction) -> list[Standing]:
            # Read again: a lead may have decided in between.
            changed = self._unrecorded(transaction.connection)
            for standing in changed:
                set_standing(transaction, standing)
                self._revise(transaction, standing.annotator, MOST_REVISED)
            return changed

        return self.database.write(act).result() if changed else []

    def _unrecorded(self, connection: Connection) -> list[Standing]:
        """States that are not the stored ones."""
        stored = {standing.annotator: standing.state for standing, _ in read_standings(connection)}
        found = self.crowd.states()
        names = [name for name, state in found.items() if state is not stored.get(name, AnnotatorState.OK)]
        return [Standing(p.annotator, p.state, " ".join(p.reasons)) for p in map(self.crowd.profile, names)]

    def profiles(self, annotator: str = "") -> list[Profile]:
        """Of one annotator, or of all; nothing of somebody who never labelled."""
        return [profile for profile in self.crowd.profiles() if annotator in ("", profile.annotator)]

    def tally(self, run_id: str = "") -> tuple[TaskCounts, dict[str, int], dict[str, int]]:
        """(tasks, labels by outcome, labels by source); "" is every run."""

        def read(connection: Connection) -> tuple[TaskCounts, dict[str, int], dict[str, int]]:
            return count_tasks(connection, self.database.clock(), run_id), *count_labels(connection, run_id)

        return self.database.read(read).result()

    def report(self, run_id: str = "", fresh: bool = True) -> Report:
        """Blocks for half a second or so; "" is every run. Not `fresh`: the policies' table may be the last one that
        was made, and a newer one is on its way when that is older than TABLE_SECONDS."""
        counts, outcomes, sources = self.tally(run_id)
        machines = sorted(p.annotator for p in self.crowd.profiles() if MACHINE in p.annotator)
        return Report(
            counts,
            outcomes,
            sources,
            agreement=self.crowd.agreement(),
            machines={name: self.crowd.agreement_with_people(name) for name in machines},
            policies=self._compared_anew(run_id) if fresh else self._compared(run_id),
        )

    def _compared(self, run_id: str) -> list[Strength]:
        at, found = self._tables.get(run_id, (-math.inf, None))
        if found is None:
            return self._compared_anew(run_id)
        if time.monotonic() - at > TABLE_SECONDS:
            self._remember(run_id, found)  # whoever asks meanwhile need not begin another
            in_background("comparing policies", partial(self._again, run_id))
        return found

    def _compared_anew(self, run_id: str) -> list[Strength]:
        votes = self.database.read(lambda c: comparisons_by_version(c, run_id, MOST_COMPARED)).result()
        known = {version for first, second, *_ in votes for version in (first, second)}
        latest = set(sorted(known)[-MOST_VERSIONS:])
        found = bradley_terry([Comparison(str(a), str(b), p, weight) for a, b, p, weight in votes if {a, b} <= latest])
        self._remember(run_id, found)
        return found

    def _remember(self, run_id: str, found: list[Strength]) -> None:
        with self._remembering:
            self._tables[run_id] = (time.monotonic(), found)
            self._tables.move_to_end(run_id)
            while len(self._tables) > MOST_TABLES:
                self._tables.popitem(last=False)

    def _again(self, run_id: str) -> None:
        try:
            self._compared_anew(run_id)
        except Exception:  # nobody waits for it: whoever looks next has it tried again
            logger.exception("the policies of run %s could not be compared anew", run_id or "all")

    def sitting(self, annotator: str) -> Future[Sitting]:
        """A person's own figures."""

        def read(connection: Connection) -> Sitting:
            day_ago = self.database.clock() - 24 * 3600
            total, today = connection.execute(
                "SELECT count(*), count(CASE WHEN labelled_at > ? THEN 1 END) FROM labels WHERE annotator = ?",
                (day_ago, annotator),
            ).fetchone() or (0, 0)
            seconds = connection.execute(
                "SELECT duration_seconds FROM labels WHERE annotator = ? ORDER BY labelled_at DESC LIMIT 101",
                (annotator,),
            ).fetchall()
            ordered = sorted(float_of(s) for (s,) in seconds)
            return Sitting(int_of(total), int_of(today), ordered[len(ordered) // 2] if ordered else 0.0)

        return self.database.read(read)

    def _revise(self, transaction: Transaction, annotator: str, most: int) -> int:
        """Preferences of complete tasks that the person's labels took part in, made anew; returns how many."""
        pairs = complete_pairs_of(transaction.connection, annotator, most)
        for pair in pairs:
            votes = votes_of(transaction.connection, pair.task_id)
            transaction.append(pair.run_id, preference_of(pair, votes, self.crowd))
        return len(pairs)
