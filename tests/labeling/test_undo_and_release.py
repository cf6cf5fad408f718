"""Taking a label back, giving a task back, keeping it longer; and what leads decide about people."""

from __future__ import annotations

import pytest

from iterpo.errors import NotFound, WrongState
from iterpo.labeling.annotator import Vote
from iterpo.labeling.pairs import TaskPlan
from iterpo.store.standings import set_standing
from iterpo.store.tasks import count_tasks
from iterpo.types import AnnotatorState, FeedbackEvent, Outcome, Standing, TaskKind
from tests.conftest import Place
from tests.labeling.test_tasks import WAIT, People


def events(people: People, kind: str) -> list[FeedbackEvent]:
    return [e for e in people.database.events("", 0, 1000).result(WAIT) if e.kind == kind]


def undo(people: People, event_id: str, who: str = "ann", request_id: str = ""):
    return people.people.undo(who, event_id, request_id or people.fresh_id()).result(WAIT)


def test_a_label_taken_back_is_leased_again_in_the_same_order_and_counts_no_more(people: People) -> None:
    people.coin.swapped = True
    people.ask("a", "b")
    (lease,) = people.lease("ann")
    receipt = people.submit(lease)

    held, duplicate = undo(people, receipt.event_id)

    assert (held.lease.swapped, held.task_id, duplicate) == (True, lease.task.task_id, False)
    assert [e.retraction.label_id for e in events(people, "retraction")] == [receipt.event_id]
    assert people.lease("bob") == [], "its place is the same person's"
    assert people.submit(held.lease, Outcome.TIE).accepted
    assert len(events(people, "preference")) == 2
    assert events(people, "preference")[-1].preference.p_first_wins == 0.5


def test_an_undo_sent_twice_is_one_undo(people: People) -> None:
    people.ask("a", "b")
    (lease,) = people.lease("ann")
    receipt = people.submit(lease)
    first, _ = undo(people, receipt.event_id, request_id="same")
    again, duplicate = undo(people, receipt.event_id, request_id="same")
    assert (again.lease_id, duplicate) == (first.lease_id, True)
    people.submit(again.lease)
    assert undo(people, receipt.event_id, request_id="same") == (None, True)
    assert len(events(people, "retraction")) == 1


def test_an_undone_label_keeps_the_order_in_which_it_was_shown_whatever_lease_came_later(people: People) -> None:
    people.ask("a", "b")
    (first,) = people.lease("ann", seconds=60)
    people.clock.now += 61
    people.coin.swapped = True
    (second,) = people.lease("ann", seconds=60)
    receipt = people.submit(first)
    held, _ = undo(people, receipt.event_id)
    assert (first.swapped, second.swapped, held.lease.swapped) == (False, True, False)
    people.submit(held.lease, Outcome.FIRST)
    assert people.standing_labels()[-1].outcome is Outcome.FIRST


def test_only_a_label_of_one_s_own_that_is_not_too_old_can_be_taken_back(people: People) -> None:
    people.ask("a", "b")
    (lease,) = people.lease("ann")
    receipt = people.submit(lease)
    with pytest.raises(WrongState) as refused:
        undo(people, receipt.event_id, who="bob")
    assert refused.value.reason == "NOT_YOUR_LABEL"
    with pytest.raises(NotFound) as unknown:
        undo(people, "nothing")
    assert unknown.value.reason == "LABEL_UNKNOWN"
    people.clock.now += 101
    with pytest.raises(WrongState) as late:
        undo(people, receipt.event_id)
    assert late.value.reason == "TOO_LATE"
    assert len(people.labels()) == 1


def test_a_task_given_back_is_free_at_once_and_never_comes_back_to_the_same_person(people: People) -> None:
    people.ask("a", "b")
    (lease,) = people.lease("ann")
    assert people.people.release("ann", lease.lease_id, "broken").result(WAIT) == ""
    assert people.lease("ann") == []
    people.clock.now += 3600
    assert people.lease("ann") == []
    assert len(people.lease("bob")) == 1
    assert [(e.release.annotator, e.release.reason) for e in events(people, "release")] == [("ann", "broken")]
    assert people.submit(lease).refused_reason == "RELEASED"
    assert people.people.release("ann", lease.lease_id, "again").result(WAIT) == "LEASE_USED"
    assert people.people.release("bob", lease.lease_id, "not mine").result(WAIT) == "NOT_YOUR_LEASE"


def test_a_lease_is_extended_from_now_on_while_it_lives(people: People) -> None:
    people.ask("a", "b")
    (lease,) = people.lease("ann", seconds=60)
    people.clock.now += 59
    ends = people.people.extend("ann", lease.lease_id, 60.0).result(WAIT)
    assert ends == people.clock.now + 60
    people.clock.now += 59
    assert people.lease("bob") == []
    people.clock.now += 1
    assert people.people.extend("ann", lease.lease_id, 60.0).result(WAIT) == "LEASE_EXPIRED"
    assert len(people.lease("bob")) == 1


def test_a_shorter_lease_of_two_frees_its_place_first(place: Place) -> None:
    people = People(place("two.db"), TaskPlan(required_labels=2))
    people.ask("a", "b")
    people.lease("ann", seconds=100)
    people.lease("bob", seconds=10)
    assert people.lease("cem") == []
    people.clock.now += 10
    assert len(people.lease("cem", seconds=10)) == 1
    assert people.lease("dan") == []
    people.desk.close()
    people.database.close()


def exclude(people: People, who: str = "ann", state: AnnotatorState = AnnotatorState.EXCLUDED) -> int:
    return people.desk.leads.set_state(who, state, "spam", "lead", people.fresh_id()).result(WAIT)[0]


def test_somebody_taken_out_labels_no_more_and_his_preferences_are_made_anew(place: Place) -> None:
    people = People(place("two.db"), TaskPlan(required_labels=2))
    people.ask("a", "b")
    for who, outcome in (("ann", Outcome.FIRST), ("bob", Outcome.SECOND)):
        (lease,) = people.lease(who)
        people.submit(lease, outcome)
    before = events(people, "preference")[-1].preference
    people.ask("c", "d", group_id="g2")
    (held,) = people.lease("ann")

    assert exclude(people) == 1

    after = events(people, "preference")[-1].preference
    assert before.p_first_wins == 0.5
    assert after.p_first_wins < 0.2, "bob's vote alone is left"
    assert (before.weight, after.weight) == (2.0, 1.0)
    assert people.submit(held).refused_reason == "ANNOTATOR_EXCLUDED"
    with pytest.raises(WrongState) as refused:
        people.lease("ann")
    assert refused.value.reason == "ANNOTATOR_EXCLUDED"
    assert [(e.standing.annotator, e.standing.by) for e in events(people, "standing")] == [("ann", "lead")]

    assert exclude(people, state=AnnotatorState.OK) == 1
    assert people.lease("ann") == [], "he holds the task still"
    people.desk.close()
    people.database.close()


def test_states_outlive_a_restart(place: Place) -> None:
    people = People(place("feedback.db"))
    exclude(people)
    people.desk.close()
    people.database.close()
    again = People(place("feedback.db"))
    again.people.start()
    assert again.people.crowd.state("ann") is AnnotatorState.EXCLUDED
    again.desk.close()
    again.database.close()


def test_what_came_before_a_readmission_is_not_judged_after_the_figures_warned_and_a_restart(place: Place) -> None:
    people = People(place("feedback.db"))
    exclude(people)
    readmitted = people.clock.now = people.clock.now + 100.0
    exclude(people, state=AnnotatorState.OK)
    people.clock.now += 100.0
    warned = Standing("ann", AnnotatorState.WARNED, "right too rarely")
    people.database.write(lambda tx: set_standing(tx, warned)).result(WAIT)
    people.desk.close()
    people.database.close()

    again = People(place("feedback.db"))
    again.people.start()
    crowd = again.people.crowd
    assert crowd.state("ann") is AnnotatorState.WARNED
    for number, at in enumerate((readmitted - 1.0, readmitted + 1.0, readmitted + 2.0)):
        right = Outcome.FIRST
        crowd.see(Vote(f"gold{number}", "ann", right, False, 10.0, at, TaskKind.GOLD, right, f"v{number}"))
    crowd.refresh()
    assert crowd.profile("ann").judged == 2
    again.desk.close()
    again.database.close()


def test_the_queue_is_counted_with_what_is_held_and_gold(people: People) -> None:
    people.people.holds = lambda task: task.group_id == "g2"
    people.ask("a", "b", group_id="g1")
    people.ask("a", "b", group_id="g2")
    counts = people.database.read(lambda c: count_tasks(c, people.clock())).result(WAIT)
    assert (counts.open, counts.held, counts.gold) == (2, 1, 0)
    assert len(people.lease("ann")) == 1, "what is held back comes to nobody"
