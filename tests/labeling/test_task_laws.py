"""The law of tasks under any history, and under people who race: never more labels than required, nobody twice on one
task, nothing acknowledged lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from iterpo.store.labels import Submission
from iterpo.store.leases import Ask
from iterpo.types import Lease, Outcome
from tests.conftest import Place
from tests.labeling.test_tasks import People

WAIT = 20
NAMES = ("ann", "bob", "cem")
DAWDLE = st.sampled_from([0.0, 0.0, 10.0, 60.0])
"""Seconds that pass before a step: as long as a lease lasts, or nothing."""


class TaskMachine(RuleBasedStateMachine):
    """Random people lease, submit, send again, dawdle, restart the server; the law is checked after every step."""

    def __init__(self, place: Callable[[], Path | str]) -> None:
        super().__init__()
        self.people = People(place())
        self.leases: list[Lease] = []
        self.acknowledged: set[str] = set()
        self.required: dict[str, int] = {}
        self.used: set[str] = set()
        """Leases that were labelled or given back: they hold no place."""
        self.taken_back: set[str] = set()
        self.given_back: set[tuple[str, str]] = set()

    @initialize(required=st.lists(st.integers(1, 2), min_size=1, max_size=2))
    def ask(self, required: list[int]) -> None:
        for index, labels in enumerate(required):
            self.people.ask("a", "b", group_id=f"g{index}", required=labels)
            self.required[f"g{index}"] = labels

    @rule(who=st.sampled_from(NAMES), limit=st.integers(1, 3), seconds=st.sampled_from([10.0, 60.0]), dawdle=DAWDLE)
    def lease(self, who: str, limit: int, seconds: float, dawdle: float) -> None:
        self.people.clock.now += dawdle
        mine = [lease for lease in self.leases if lease.annotator == who and lease.lease_id not in self.used]
        live = {lease.task.task_id for lease in mine if self._is_live(lease)}
        done = {label.task_id for label in self.people.standing_labels() if label.annotator == who}
        broken = {task for name, task in self.given_back if name == who}
        new = self.people.lease(who, limit, seconds)
        assert len({lease.task.task_id for lease in new}) == len(new)
        assert not {lease.task.task_id for lease in new} & (live | done | broken), "a task came twice to one person"
        self.leases += new

    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)), sent=st.integers(1, 2), dawdle=DAWDLE)
    def submit(self, data: st.DataObject, outcome: Outcome, sent: int, dawdle: float) -> None:
        self.people.clock.now += dawdle
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        was_live, request_id = self._is_live(lease) and lease.lease_id not in self.used, self.people.fresh_id()
        known = {(label.task_id, label.annotator) for label in self.people.standing_labels()}
        receipts = [self.people.submit(lease, outcome, request_id=request_id) for _ in range(sent)]
        if receipts[0].refused_reason == "RELEASED":
            assert (lease.annotator, lease.task.task_id) in self.given_back
        elif (lease.task.task_id, lease.annotator) in known:
            assert receipts[0].refused_reason == "ALREADY_LABELLED"
        elif was_live:
            assert receipts[0].accepted, "a live lease is a promise"
        if receipts[0].accepted:
            same = [other for other in self.leases if other.task.task_id == lease.task.task_id]
            self.used |= {other.lease_id for other in same if other.annotator == lease.annotator}
        self.acknowledged |= {receipt.event_id for receipt in receipts if receipt.accepted}

    @rule(data=st.data(), dawdle=DAWDLE)
    def take_back(self, data: st.DataObject, dawdle: float) -> None:
        """Undo one of the labels: its place is the same person's again, by a new lease."""
        self.people.clock.now += dawdle
        labels = self.people.standing_labels()
        if not labels:
            return
        label = data.draw(st.sampled_from(labels))
        held, duplicate = self.people.people.undo(label.annotator, label.label_id, self.people.fresh_id()).result(WAIT)
        assert not duplicate
        self.leases.append(held.lease)
        self.taken_back.add(label.label_id)

    @rule(data=st.data(), seconds=st.sampled_from([10.0, 60.0]), dawdle=DAWDLE)
    def extend(self, data: st.DataObject, seconds: float, dawdle: float) -> None:
        self.people.clock.now += dawdle
        if not self.leases:
            return
        place = data.draw(st.integers(0, len(self.leases) - 1))
        lease = self.leases[place]
        was_live = self._is_live(lease) and lease.lease_id not in self.used
        ends = self.people.people.extend(lease.annotator, lease.lease_id, seconds).result(WAIT)
        assert isinstance(ends, float) == was_live
        if isinstance(ends, float):
            self.leases[place] = replace(lease, expires_at=ends)

    @rule(data=st.data(), dawdle=DAWDLE)
    def give_back(self, data: st.DataObject, dawdle: float) -> None:
        self.people.clock.now += dawdle
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        refused = self.people.people.release(lease.annotator, lease.lease_id, "broken").result(WAIT)
        assert bool(refused) == (lease.lease_id in self.used)
        self.used.add(lease.lease_id)
        self.given_back.add((lease.annotator, lease.task.task_id))

    @rule()
    def restart(self) -> None:
        now, requests = self.people.clock.now, self.people._requests
        path = self.people.path
        self.people.desk.close()
        self.people.database.close()
        self.people = People(path)
        self.people.clock.now, self.people._requests = now, requests

    @invariant()
    def the_law_holds(self) -> None:
        labels = self.people.standing_labels()
        per_task = Counter(label.group_id for label in labels)
        live = Counter(
            lease.task.group_id for lease in self.leases if self._is_live(lease) and lease.lease_id not in self.used
        )
        assert all(per_task[g] + live[g] <= required for g, required in self.required.items()), "over-collection"
        assert len({(label.task_id, label.annotator) for label in labels}) == len(labels), "a person labelled twice"
        events = self.people.database.events("", 0, 10_000).result(WAIT)
        assert self.acknowledged == {e.event_id for e in events if e.label}, "acknowledged is not what is stored"
        assert self.acknowledged - self.taken_back == {label.label_id for label in labels}

    @invariant()
    def no_lease_blocks_after_its_expiry(self) -> None:
        """A stranger gets every task that has a place beside its labels and its live leases, and no other."""
        labels = Counter(label.group_id for label in self.people.standing_labels())
        live = Counter(
            lease.task.group_id for lease in self.leases if self._is_live(lease) and lease.lease_id not in self.used
        )
        free = {g for g, required in self.required.items() if labels[g] + live[g] < required}
        found = self.people.lease("stranger", 10, 0.0)  # ends the moment it begins
        assert {lease.task.group_id for lease in found} == free

    def _is_live(self, lease: Lease) -> bool:
        return lease.expires_at > self.people.clock.now

    def teardown(self) -> None:
        self.people.desk.close()
        self.people.database.close()


def test_the_law_of_tasks_holds_after_every_step(place: Place) -> None:
    numbers = count()
    examples = 60 if isinstance(place("feedback.db"), Path) else 20  # opening a database takes a tenth of a second
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: TaskMachine(lambda: place(f"{next(numbers)}.db")),
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, derandomize=True),
    )


def test_racing_people_neither_overfill_a_task_nor_lose_a_label(place: Place) -> None:
    people = People(place("feedback.db"))
    for index in range(6):
        people.ask("a", "b", group_id=f"g{index}", required=2)
    acknowledged: list[str] = []
    start = threading.Barrier(8)

    def race(name: str) -> None:
        start.wait(WAIT)
        for turn in range(6):
            for lease in people.people.lease(Ask(name, 2, 60.0)).result(WAIT)[0]:
                label = (f"{name}-{turn}-{lease.lease_id}", Submission(lease.lease_id, Outcome.FIRST))
                # Sent twice, as a client does that lost the answer.
                receipts = [people.people.submit(name, [label]).result(WAIT)[0] for _ in range(2)]
                assert receipts[0].event_id == receipts[1].event_id
                acknowledged.extend({receipt.event_id for receipt in receipts if receipt.accepted})

    threads = [threading.Thread(target=race, args=(f"person-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    labels = people.labels()
    people.desk.close()
    people.database.close()

    assert Counter(label.group_id for label in labels) == {f"g{index}": 2 for index in range(6)}
    assert len({(label.task_id, label.annotator) for label in labels}) == 12
    assert len(acknowledged) == 12
