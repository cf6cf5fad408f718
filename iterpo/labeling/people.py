"""`PeopleDesk`: what annotators do, as library calls: lease, label, undo, give back.

Everything that changes something returns a future that is done after the commit. A label and the preference that it
completes are stored in one transaction, so whoever reads events never sees the one without the other.
"""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from iterpo.errors import Conflict, WrongState
from iterpo.labeling.crowd import FIXED, Crowd
from iterpo.labeling.followed_votes import FollowedVotes
from iterpo.labeling.guidelines import Guideline, Guidelines
from iterpo.labeling.task_selection import SELECTIONS
from iterpo.labeling.voting import preference_of, seen_by_crowd
from iterpo.store.connection import Connection
from iterpo.store.database import FeedbackDatabase
from iterpo.store.labels import Accepted, Submission, label_directly, recent_votes, submit_label, undo_label, votes_of
from iterpo.store.leases import Ask, Held, Mixture, Refusal, extend_lease, lease_tasks, live_leases, release_task
from iterpo.store.standings import read_standings
from iterpo.store.tasks import Figures, add_task, guideline_of_lease, open_for_machines, open_tasks, rank_anew
from iterpo.store.transaction import Transaction, payload
from iterpo.types import AnnotatorState, Outcome, Task, TaskKind

T = TypeVar("T")
U = TypeVar("U")
Received = tuple["Receipt", Accepted | None]

REMEMBERED_VOTES = 20_000
"""How many of the latest labels annotators are judged by after a restart."""


@dataclass(frozen=True, slots=True)
class PeopleSettings:
    lease_seconds: float = 300.0
    undo_seconds: float = 900.0
    task_selection: str = "oldest"
    mixture: Mixture = field(default_factory=Mixture)
    second_opinion: str = ""
    """The machine annotator that also labels some of people's pairs; empty: none."""
    second_opinion_share: float = 0.1


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one submitted label."""

    request_id: str
    event_id: str
    """Empty when refused."""
    refused_reason: str
    """Empty when accepted; otherwise a Refusal's reason."""
    duplicate: bool

    @property
    def accepted(self) -> bool:
        return not self.refused_reason


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of a stream: what became of the labels, and the tasks that came for them."""

    receipts: list[Receipt]
    leases: list[Held]
    open_tasks: int | None
    """Set when fewer tasks came than were asked for."""


class PeopleDesk:
    """Made when the database is open; `start` takes up what an earlier process knew about the annotators."""

    def __init__(
        self,
        database: FeedbackDatabase,
        crowd: Crowd | None = None,
        guidelines: Guidelines | None = None,
        settings: PeopleSettings | None = None,
        draw: random.Random | None = None,
    ) -> None:
        self.database = database
        self.crowd = crowd or Crowd()
        self.guidelines = guidelines or Guidelines()
        self.settings = settings or PeopleSettings()
        self._followed = FollowedVotes(database, self.crowd)
        self._draw = draw or random.Random(secrets.randbits(64))
        self.urgency = SELECTIONS[self.settings.task_selection]
        self.holds: Callable[[Task], bool] = lambda _task: False
        """Whether a new task waits for the reward model's opinion first; set by whoever asks it."""

    def start(self) -> None:
        """Remember the annotators; blocks until it is done."""
        self._followed.begin()
        for standing, readmitted in self.database.read(read_standings).result():
            self.crowd.set_state(standing.annotator, standing.state, standing.reason, readmitted)
        for vote in self.database.read(lambda connection: recent_votes(connection, REMEMBERED_VOTES)).result():
            self.crowd.see(seen_by_crowd(vote))
        self.crowd.refresh()

    def close(self) -> None:
        self._followed.close()

    def rank_anew(self) -> None:
        """The open tasks, by what the configuration says now; blocks until it is done."""
        ranked = partial(rank_anew, urgency=self.urgency)
        last = self.database.write(ranked).result()
        while last:
            last = self.database.write(partial(ranked, after=last)).result()

    def ask(self, transaction: Transaction, task: Task) -> None:
        """A new task, for people at once or held back for the reward model."""
        add_task(transaction, task, self.urgency(Figures(task.uncertainty, 0, 0.5)), held=self.holds(task))
        opinion = self.settings.second_opinion
        asked = opinion and task.kind is TaskKind.COMPARISON and not task.only_for
        if asked and self._draw.random() < self.settings.second_opinion_share:
            audit = replace(task, task_id=uuid.uuid4().hex, kind=TaskKind.AUDIT, only_for=opinion, required_labels=1)
            add_task(transaction, audit)

    def lease(self, ask: Ask, resume: bool = False) -> Future[tuple[list[Held], int]]:
        """Leases for this person, and how many tasks still need labels, leased or not. `resume`: those that he holds
        already come first.

        WrongState ANNOTATOR_EXCLUDED arrives through the future.
        """

        def act(transaction: Transaction) -> tuple[list[Held], int]:
            held = self._taken_up(transaction, ask) if resume else []
            new = self._leases(transaction, replace(ask, limit=ask.limit - len(held)))
            return held + new, open_tasks(transaction.connection, ask.run_id)

        return self.database.write(act)

    def resume(self, annotator: str) -> Future[list[Held]]:
        """What the person holds at the moment, oldest first."""
        return self.database.write(lambda tx: live_leases(tx, annotator))

    def extend(self, annotator: str, lease_id: str, seconds: float = 0.0) -> Future[float | str]:
        """The lease's new end, `seconds` (0: the default) from now on, or why it cannot be extended."""
        return self.database.write(
            lambda tx: extend_lease(tx, annotator, lease_id, seconds or self.settings.lease_seconds)
        )

    def release(self, annotator: str, lease_id: str, reason: str) -> Future[str]:
        """Give a task back; "" or why that cannot be."""
        return self.database.write(lambda tx: release_task(tx, annotator, lease_id, reason))

    def submit(self, annotator: str, labels: Sequence[tuple[str, Submission]]) -> Future[list[Receipt]]:
        """Store (request id, label) pairs in one transaction: a Conflict on one of them stores none."""

        def act(transaction: Transaction) -> list[Received]:
            return [self._receive(transaction, annotator, request_id, label) for request_id, label in labels]

        done = self.noted(self.database.write(act), _accepted)
        return then(done, lambda received: [receipt for receipt, _ in received])

    def turn(self, annotator: str, labels: Sequence[tuple[str, Submission]], ask: Ask | None) -> Future[Turn]:
        """A stream's round in one transaction: labels, each for itself (a reused request id refuses only its own),
        then leases for `ask`."""

        def act(transaction: Transaction) -> tuple[list[Received], list[Held], int | None]:
            received = [self._receive_alone(transaction, annotator, *label) for label in labels]
            leases = self._leases(transaction, ask) if ask else []
            short = ask is not None and len(leases) < ask.limit
            return received, leases, open_tasks(transaction.connection, ask.run_id) if ask and short else None

        done = self.noted(self.database.write(act), lambda result: _accepted(result[0]))
        return then(done, lambda result: Turn([receipt for receipt, _ in result[0]], result[1], result[2]))

    def undo(self, annotator: str, event_id: str, request_id: str) -> Future[tuple[Held | None, bool]]:
        """Take an own label back; its task, leased again (None when a repeated request finds it labelled anew), and
        whether the request is a repeated one. NotFound and WrongState arrive through the future."""

        def act(transaction: Transaction) -> tuple[Held | None, bool]:
            fresh: list[Held] = []

            def once() -> list[str]:
                oldest = transaction.now - self.settings.undo_seconds
                fresh.append(undo_label(transaction, annotator, event_id, oldest, self.settings.lease_seconds))
                return [fresh[0].lease_id]

            answer = transaction.once(request_id, payload("undo", annotator, event_id), once)
            if fresh:
                return fresh[0], False
            again = [held for held in live_leases(transaction, annotator) if held.lease_id == answer.ids[0]]
            return (again[0] if again else None), True

        done = self.database.write(act)
        done.add_done_callback(lambda future: None if future.exception() else self.crowd.forget(event_id))
        return done

    def give_up(self, machine: Callable[[str], bool], reason: str) -> Future[int]:
        """Skip the open tasks of machines that will not label them, so that nobody waits for them; how many."""

        def orphans(connection: Connection) -> list[tuple[str, str]]:
            return [each for each in open_for_machines(connection) if machine(each[1])]

        def act(transaction: Transaction) -> int:
            found = orphans(transaction.connection)
            for task_id, name in found:
                self.conclude(transaction, label_directly(transaction, task_id, name, Outcome.SKIP, reason, 0.0))
            return len(found)

        # Asked every second by a machine that was taken out: nothing is written where nothing is to be done.
        return self.database.write(act) if self.database.read(orphans).result() else at_once(0)

    def guideline(self, name_or_text: str) -> Guideline:
        return self.guidelines[name_or_text]

    def _leases(self, transaction: Transaction, ask: Ask) -> list[Held]:
        state = self.crowd.state(ask.annotator)
        if state is AnnotatorState.EXCLUDED:
            raise WrongState(f"{ask.annotator} was taken out and may not label.", "Ask the lead.", "ANNOTATOR_EXCLUDED")
        if state is AnnotatorState.QUARANTINED:
            ask = replace(ask, only_measured=True)
        mixture = self.settings.mixture
        if mixture.gold_share:
            mixture = replace(mixture, gold_share=max(mixture.gold_share, self.crowd.doubt(ask.annotator)))
        return lease_tasks(transaction, ask, mixture, self._draw, self.guidelines.version)

    def _taken_up(self, transaction: Transaction, ask: Ask) -> list[Held]:
        """What the person holds of what is asked for, its time begun anew. Who is in quarantine begins afresh."""
        if self.crowd.state(ask.annotator) in FIXED:
            return []
        wanted = [
            held
            for held in live_leases(transaction, ask.annotator)
            if ask.run_id in ("", held.lease.task.run_id) and ask.guideline in ("", held.guideline)
        ]
        ends = [(held, extend_lease(transaction, ask.annotator, held.lease_id, ask.seconds)) for held in wanted]
        return [replace(held, expires_at=end) for held, end in ends if not isinstance(end, str)][: ask.limit]

    def _receive(self, transaction: Transaction, annotator: str, request_id: str, label: Submission) -> Received:
        """Refusals leave no trace under the request id: the same label may be sent again and be decided anew."""
        outcomes: list[Accepted | Refusal] = []

        def act() -> list[str]:
            outcomes.append(self._decide(transaction, annotator, label))
            return [o.label.label_id for o in outcomes if isinstance(o, Accepted)]

        answer = transaction.once(request_id, payload("label", annotator, repr(label)), act)
        refused = "".join(o.reason for o in outcomes if isinstance(o, Refusal))
        if refused:
            transaction.forget(request_id)
        accepted = next((o for o in outcomes if isinstance(o, Accepted)), None)
        return Receipt(request_id, "".join(answer.ids), refused, answer.duplicate), accepted

    def _receive_alone(self, transaction: Transaction, annotator: str, request_id: str, label: Submission) -> Received:
        try:
            return self._receive(transaction, annotator, request_id, label)
        except Conflict as error:
            return Receipt(request_id, "", error.reason, False), None

    def _decide(self, transaction: Transaction, annotator: str, label: Submission) -> Accepted | Refusal:
        if self.crowd.state(annotator) is AnnotatorState.EXCLUDED:
            return Refusal("ANNOTATOR_EXCLUDED")
        if label.presented_aspects and not self._known_aspects(transaction, label):
            return Refusal("UNKNOWN_ASPECT")
        outcome = submit_label(transaction, annotator, label, lambda kind: self._weigh(annotator, kind), self.urgency)
        if isinstance(outcome, Accepted):
            self.conclude(transaction, outcome)
        return outcome

    def _weigh(self, annotator: str, kind: TaskKind) -> float:
        """Only what decides something counts towards a person's influence."""
        return self.crowd.vote_weight(annotator) if kind is TaskKind.COMPARISON else self.crowd.weight(annotator)

    def conclude(self, transaction: Transaction, accepted: Accepted) -> None:
        """A complete comparison becomes a preference, in the label's own transaction."""
        if accepted.complete and accepted.label.kind is TaskKind.COMPARISON:
            alone = accepted.alone
            votes = [accepted.vote] if alone else votes_of(transaction.connection, accepted.label.task_id)
            transaction.append(accepted.pair.run_id, preference_of(accepted.pair, votes, self.crowd))

    def _known_aspects(self, transaction: Transaction, label: Submission) -> bool:
        guideline = guideline_of_lease(transaction.connection, label.lease_id)
        return label.presented_aspects.keys() <= set(self.guidelines[guideline].aspects)

    def noted(self, done: Future[T], accepted: Callable[[T], Iterable[Accepted]]) -> Future[T]:
        """The same future; once it is committed, the crowd is told of its labels."""

        def tell(future: Future[T]) -> None:
            if future.exception() is None:
                for each in accepted(future.result()):
                    self.crowd.see(seen_by_crowd(each.vote))

        done.add_done_callback(tell)
        return done


def _accepted(received: Iterable[Received]) -> list[Accepted]:
    return [accepted for _, accepted in received if accepted is not None]


def at_once(result: T) -> Future[T]:
    made: Future[T] = Future()
    made.set_result(result)
    return made


def then(done: Future[T], change: Callable[[T], U]) -> Future[U]:
    """A future of the changed result, or of the same error."""
    changed: Future[U] = Future()
    changed.set_running_or_notify_cancel()

    def settle(future: Future[T]) -> None:
        error = future.exception()
        if error is not None:
            changed.set_exception(error)
            return
        try:
            changed.set_result(change(future.result()))
        except BaseException as wrong:  # noqa: BLE001 - whoever waits must hear of it, not the store's thread
            changed.set_exception(wrong)

    done.add_done_callback(settle)
    return changed
