"""People: tasks from groups, leases by the server's clock, labels swapped back, late labels with a place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iterpo.errors import Conflict, InvalidInput, NotFound
from iterpo.labeling.desk import LabelingDesk, PairRequest
from iterpo.labeling.pairs import TaskPlan
from iterpo.labeling.people import PeopleDesk, PeopleSettings, Receipt
from iterpo.store.database import open_database
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Mixture
from iterpo.store.tasks import count_tasks
from iterpo.types import Label, Lease, Outcome
from tests.conftest import Place
from tests.labeling.builders import group
from tests.labeling.fakes import MovableClock, RuleLabeler

WAIT = 20


class Coin(random.Random):
    """Decides which answer is shown first as the test says; all other draws are random's own."""

    swapped = False

    def random(self) -> float:
        return 0.0 if self.swapped else 0.999


class People:
    """A desk with a movable clock and a coin that the test holds; no gold tasks and no repeats unless asked for."""

    def __init__(self, path: Path | str, plan: TaskPlan | None = None, **settings: Any) -> None:
        self.clock, self.path = MovableClock(), path
        self.database = open_database(path, self.clock)
        self.coin = Coin(0)
        given = PeopleSettings(**{"mixture": Mixture(), **settings})
        self.people = PeopleDesk(self.database, settings=given, draw=self.coin)
        self.desk = LabelingDesk(
            self.database, {"rule": RuleLabeler(lambda t: 1.0)}, people=self.people, plan=plan or TaskPlan()
        )
        self._requests = 0

    def fresh_id(self) -> str:
        self._requests += 1
        return f"request-{self._requests}"

    def ask(self, *texts: str, group_id: str = "g1", required: int = 1) -> None:
        recorded = group(*texts, group_id=group_id)
        if required == 1:
            self.desk.record("run", "people", [recorded], self.fresh_id()).result(WAIT)
        else:
            self.desk.record("run", "rule", [recorded], self.fresh_id()).result(WAIT)
            pair = PairRequest(f"{group_id}-0", f"{group_id}-1", required_labels=required)
            self.desk.create_tasks("run", [pair], self.fresh_id()).result(WAIT)

    def lease(self, who: str, limit: int = 10, seconds: float = 60.0, **pool: Any) -> list[Lease]:
        return [held.lease for held in self.people.lease(Ask(who, limit, seconds, **pool)).result(WAIT)[0]]

    def submit(self, lease: Lease, outcome: Outcome = Outcome.FIRST, who: str = "", request_id: str = "") -> Receipt:
        label = Submission(lease.lease_id, outcome)
        given = [(request_id or self.fresh_id(), label)]
        (receipt,) = self.people.submit(who or lease.annotator, given).result(WAIT)
        return receipt

    def labels(self) -> list[Label]:
        return [e.label for e in self.database.events("", 0, 10_000).result(WAIT) if e.label]

    def standing_labels(self) -> list[Label]:
        """Without those that were taken back."""
        events = self.database.events("", 0, 10_000).result(WAIT)
        back = {e.retraction.label_id for e in events if e.retraction}
        return [e.label for e in events if e.label and e.label.label_id not in back]


@pytest.fixture
def people(place: Place) -> Iterator[People]:
    made = People(place("feedback.db"))
    yield made
    made.desk.close()
    made.database.close()


def test_a_group_for_people_becomes_tasks_of_disjoint_pairs(people: People) -> None:
    people.ask("a", "b", "c", "d", "e")

    tasks = [lease.task for lease in people.lease("ann")]

    assert [(t.first.text, t.second.text) for t in tasks] == [("a", "b"), ("c", "d")]
    assert [e.kind for e in people.database.events("", 0).result(WAIT)] == ["group", "task", "task"]


def test_a_group_of_one_cannot_be_compared(people: People) -> None:
    with pytest.raises(InvalidInput, match="at least 2") as refused:
        people.ask("alone")
    assert refused.value.reason == "GROUP_TOO_SMALL"


def test_a_group_that_is_in_a_request_twice_is_refused(people: People) -> None:
    with pytest.raises(InvalidInput, match="twice"):
        people.desk.record("run", "people", [group("a", "b"), group("c", "d")], "r1")
    assert people.database.events("", 0).result(WAIT) == []


@pytest.mark.parametrize(
    ("swapped", "pressed", "stored"),
    [
        (False, Outcome.FIRST, Outcome.FIRST),
        (True, Outcome.FIRST, Outcome.SECOND),
        (True, Outcome.SECOND, Outcome.FIRST),
        (True, Outcome.TIE, Outcome.TIE),
        (True, Outcome.SKIP, Outcome.SKIP),
    ],
)
def test_the_server_swaps_the_presented_outcome_back(
    people: People, swapped: bool, pressed: Outcome, stored: Outcome
) -> None:
    people.coin.swapped = swapped
    people.ask("a", "b")
    (lease,) = people.lease("ann")

    assert people.submit(lease, pressed).accepted
    assert lease.swapped is swapped
    assert [(label.outcome, label.presented_swapped) for label in people.labels()] == [(stored, swapped)]


def test_a_leased_task_is_with_one_person_until_the_lease_runs_out(people: People) -> None:
    people.ask("a", "b")
    assert len(people.lease("ann", seconds=60)) == 1
    people.clock.now += 59.9
    assert people.lease("bob") == []
    people.clock.now += 0.1
    assert len(people.lease("bob")) == 1, "a lease is over at its expiry, not after it"


def test_a_person_sees_a_task_once_unless_the_lease_ran_out_unused(people: People) -> None:
    people.ask("a", "b", required=3)
    (lease,) = people.lease("ann")
    assert people.lease("ann") == []
    people.clock.now += 61
    (again,) = people.lease("ann")
    assert people.submit(again).accepted
    people.clock.now += 61
    assert people.lease("ann") == []
    assert people.submit(lease).refused_reason == "ALREADY_LABELLED"


def test_a_late_label_is_accepted_while_there_is_room(people: People) -> None:
    people.ask("a", "b")
    (lease,) = people.lease("ann", seconds=60)
    people.clock.now += 3600
    assert people.submit(lease).accepted


def test_a_late_label_is_refused_when_another_took_the_place(people: People) -> None:
    people.ask("a", "b")
    (late,) = people.lease("ann", seconds=60)
    people.clock.now += 61
    (taken,) = people.lease("bob")
    assert people.submit(late).refused_reason == "TASK_COMPLETE", "bob's live lease holds the only place"
    assert people.submit(taken).accepted
    assert people.submit(late).refused_reason == "TASK_COMPLETE"
    assert [label.annotator for label in people.labels()] == ["bob"]


def test_leases_of_others_and_unknown_leases_are_refused(people: People) -> None:
    people.ask("a", "b")
    (lease,) = people.lease("ann")
    assert people.submit(lease, who="bob").refused_reason == "NOT_YOUR_LEASE"
    unknown = Lease("no-such-lease", lease.task, "ann", 0.0, False)
    assert people.submit(unknown).refused_reason == "LEASE_UNKNOWN"
    assert people.labels() == []


def test_a_label_is_counted_once_however_often_it_is_sent(people: People) -> None:
    people.ask("a", "b", required=2)
    (lease,) = people.lease("ann")

    first = people.submit(lease, request_id="same")
    again = people.submit(lease, request_id="same")

    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.event_id == first.event_id
    assert len(people.labels()) == 1
    with pytest.raises(Conflict) as reused:
        people.submit(lease, Outcome.SECOND, request_id="same")
    assert reused.value.reason == "REQUEST_ID_REUSED"


def test_a_refused_label_may_be_sent_again_and_is_decided_anew(people: People) -> None:
    people.ask("a", "b")
    (late,) = people.lease("ann", seconds=60)
    people.clock.now += 61
    people.lease("bob", seconds=60)
    assert people.submit(late, request_id="same").refused_reason == "TASK_COMPLETE"
    people.clock.now += 61  # bob went home
    assert people.submit(late, request_id="same").accepted


def test_recording_twice_makes_no_second_task_and_a_reused_completion_id_is_refused(people: People) -> None:
    recorded = group("a", "b")
    first = people.desk.record("run", "people", [recorded], "r1").result(WAIT)
    again = people.desk.record("run", "people", [recorded], "r1").result(WAIT)
    assert again.ids == first.ids
    assert again.duplicate
    assert len(people.lease("ann")) == 1
    with pytest.raises(Conflict) as reused:
        people.desk.record("run", "rule", [replace(recorded, group_id="another")], "r2").result(WAIT)
    assert reused.value.reason == "COMPLETION_ID_REUSED"


def test_a_group_id_that_was_used_is_refused_and_the_first_group_stays(people: People) -> None:
    """Whoever folds events by group would otherwise lose the first group without a word."""
    people.desk.record("run", "people", [group("a", "b")], "r1").result(WAIT)
    other = group("c", "d")
    other = replace(
        other, completions=tuple(replace(c, completion_id=f"new{c.completion_id}") for c in other.completions)
    )
    with pytest.raises(Conflict) as reused:
        people.desk.record("run", "people", [other], "r2").result(WAIT)
    assert reused.value.reason == "GROUP_ID_REUSED"
    stored = people.database.events("run", 0, limit=10).result(WAIT)
    assert [[c.text for c in e.group.completions] for e in stored if e.group] == [["a", "b"]]


def test_tasks_of_unknown_or_unrelated_completions_are_refused(people: People) -> None:
    people.ask("a", "b", group_id="g1")
    people.ask("c", "d", group_id="g2")
    with pytest.raises(NotFound):
        people.desk.create_tasks("run", [PairRequest("g1-0", "nobody")], "x1").result(WAIT)
    with pytest.raises(InvalidInput) as crossed:
        people.desk.create_tasks("run", [PairRequest("g1-0", "g2-0")], "x2").result(WAIT)
    assert crossed.value.reason == "PAIR_ACROSS_GROUPS"
    with pytest.raises(InvalidInput, match="itself"):
        people.desk.create_tasks("run", [PairRequest("g1-0", "g1-0")], "x3")


def test_tasks_are_counted_by_state(people: People) -> None:
    for index in range(3):
        people.ask("a", "b", group_id=f"g{index}")
    done, _ = people.lease("ann", limit=2, seconds=60)
    people.submit(done)
    counts = people.database.read(lambda c: count_tasks(c, people.clock())).result(WAIT)
    assert (counts.open, counts.leased, counts.complete, counts.expired_leases) == (1, 1, 1, 0)
    people.clock.now += 61
    counts = people.database.read(lambda c: count_tasks(c, people.clock())).result(WAIT)
    assert (counts.open, counts.leased, counts.complete, counts.expired_leases) == (2, 0, 1, 1)
