"""Which task comes next, to whom, and with what probability; gold tasks and repeats in between."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iterpo.labeling.application import ApplicationDesk, Edited
from iterpo.labeling.desk import PairRequest
from iterpo.labeling.pairs import TaskPlan, every, policy_prefers, ring, unsureness, whole_labels
from iterpo.labeling.task_selection import SELECTIONS
from iterpo.store.leases import Ask, Mixture
from iterpo.store.tasks import Figures
from iterpo.types import AnnotatorState, Lease, Outcome, TaskKind
from tests.conftest import Place
from tests.labeling.builders import completion, group
from tests.labeling.test_crowd import vote
from tests.labeling.test_tasks import WAIT, People

Make = Callable[..., People]


@pytest.fixture
def make(place: Place) -> Iterator[Make]:
    made: list[People] = []

    def build(plan: TaskPlan | None = None, **settings: Any) -> People:
        made.append(People(place(f"{len(made)}.db"), plan, **settings))
        return made[-1]

    yield build
    for people in made:
        people.desk.close()
        people.database.close()


def record(people: People, *names: str) -> None:
    for name in names:
        people.desk.record("run", "rule", [group("a", "b", group_id=name)], people.fresh_id()).result(WAIT)


def create(people: People, name: str, **task: Any) -> str:
    request = PairRequest(f"{name}-0", f"{name}-1", **task)
    return people.desk.create_tasks("run", [request], people.fresh_id()).result(WAIT).ids[0]


def groups_of(leases: list[Lease]) -> list[str]:
    return [lease.task.group_id for lease in leases]


def test_higher_priorities_come_first_then_the_oldest(make: Make) -> None:
    people = make()
    record(people, "g1", "g2", "g3")
    create(people, "g1")
    create(people, "g2", priority=5)
    create(people, "g3", priority=5)
    assert groups_of(people.lease("ann")) == ["g2", "g3", "g1"]


def test_pools_are_by_guideline_and_language(make: Make) -> None:
    people = make()
    record(people, "g1", "g2", "g3")
    create(people, "g1", guideline="kind", language="en")
    create(people, "g2", guideline="kind", language="de")
    create(people, "g3", guideline="true")
    assert groups_of(people.lease("ann", guideline="kind", languages=("de",))) == ["g2"]
    assert groups_of(people.lease("bob", languages=("en",))) == ["g1", "g3"], "a task without a language is everybody's"
    assert groups_of(people.lease("cem", guideline="unheard of")) == []


def test_nobody_compares_a_text_of_his_own(make: Make) -> None:
    people = make()
    people.ask("a", "b", group_id="g1")
    served = group("served", group_id="app")
    edited = ApplicationDesk(people.people).submit("run", "ann", Edited("app-0", "better"), served, "e1").result(WAIT)
    stored = people.database.events("", 0, 100).result(WAIT)
    (own,) = [e.group for e in stored if e.event_id == edited.ids[0] and e.group]
    pair = PairRequest(own.completions[0].completion_id, own.completions[1].completion_id, required_labels=2)
    people.desk.create_tasks("run", [pair], "t").result(WAIT)
    assert groups_of(people.lease("ann")) == ["g1"]
    assert own.group_id in groups_of(people.lease("bob")) or groups_of(people.lease("cem")) == [own.group_id]


def test_a_pair_asked_for_twice_comes_to_a_person_once(make: Make) -> None:
    people = make()
    record(people, "g1")
    create(people, "g1")
    people.desk.create_tasks("run", [PairRequest("g1-1", "g1-0")], "turned").result(WAIT)
    (first,) = people.lease("ann")
    assert people.submit(first).accepted
    assert people.lease("ann") == []
    assert len(people.lease("bob")) == 1


def test_uncertain_tasks_come_first_when_that_is_the_policy(make: Make) -> None:
    people = make(task_selection="uncertainty")
    record(people, "g1", "g2", "g3")
    create(people, "g1", uncertainty=0.2)
    create(people, "g2", uncertainty=0.9)
    create(people, "g3", uncertainty=0.5)
    assert groups_of(people.lease("ann")) == ["g2", "g3", "g1"]


def test_disputed_tasks_come_first_when_that_is_the_policy(make: Make) -> None:
    people = make(task_selection="disagreement")
    record(people, "g1", "g2")
    for name in ("g1", "g2"):
        create(people, name, required_labels=3)
    for who, on_g2 in (("ann", Outcome.FIRST), ("bob", Outcome.SECOND)):
        for lease in people.lease(who):
            people.submit(lease, Outcome.FIRST if lease.task.group_id == "g1" else on_g2)
    assert groups_of(people.lease("cem")) == ["g2", "g1"]


def test_every_task_gets_its_first_label_before_any_gets_its_second(make: Make) -> None:
    people = make(TaskPlan(required_labels=2), task_selection="least_labelled")
    people.ask("a", "b", group_id="g1")
    people.ask("a", "b", group_id="g2")
    (lease,) = people.lease("ann", limit=1)
    people.submit(lease)
    assert groups_of(people.lease("bob", limit=1)) == ["g2"]


def test_the_urgencies_are_as_documented() -> None:
    undisputed, split, fresh = Figures(0.3, 4, 1.0), Figures(0.3, 2, 0.5), Figures(0.3, 0, 0.5)
    assert [SELECTIONS["oldest"](f) for f in (undisputed, split)] == [0.0, 0.0]
    assert [SELECTIONS["least_labelled"](f) for f in (undisputed, split)] == [-4.0, -2.0]
    assert SELECTIONS["uncertainty"](split) == 0.3
    assert [SELECTIONS["disagreement"](f) for f in (undisputed, split, fresh)] == [0.0, 1.0, 0.5]


def test_a_random_share_is_drawn_with_the_propensity_that_labels_record(make: Make) -> None:
    """Of 4 tasks, share 0.4: the most urgent with 0.6 + 0.4/4 = 0.7, every other with 0.1. Each label says its own."""
    counts: Counter[str] = Counter()
    propensities: dict[str, set[float]] = {}
    for seed in range(300):
        people = make(mixture=Mixture(random_share=0.4)) if seed == 0 else people  # noqa: F821 - made in the first turn
        if seed == 0:
            for name in ("g1", "g2", "g3", "g4"):
                people.ask("a", "b", group_id=name)
        people.people._draw = random.Random(seed)
        ((held,), _) = people.people.lease(Ask(f"p{seed}", 1, 60.0)).result(WAIT)
        counts[held.lease.task.group_id] += 1
        propensities.setdefault(held.lease.task.group_id, set()).add(round(held.propensity, 9))
        people.clock.now += 61
    assert propensities == {"g1": {0.7}, "g2": {0.1}, "g3": {0.1}, "g4": {0.1}}
    # 300 draws: 210 expected for g1, standard deviation 7.9; four of those are allowed.
    assert abs(counts["g1"] - 210) < 32


def test_a_label_carries_its_propensity_its_sides_and_its_times(make: Make) -> None:
    people = make(mixture=Mixture(random_share=1.0))
    people.ask("a", "b", "c", "d")
    people.clock.now = 1000.0
    lease, *_ = people.lease("ann")
    people.clock.now = 1030.0
    people.submit(lease)
    (label,) = people.labels()
    assert (label.propensity, label.presented_at) == (0.5, 1000.0)
    assert (label.first_side.policy_digest, label.first_side.temperature) == ("base", 1.0)
    (event,) = [e for e in people.database.events("", 0, 100).result(WAIT) if e.label]
    assert event.created_at == 1030.0


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_fractional_overlap_is_that_on_average(share: float) -> None:
    """The whole number for a task is its id's: 1 + share labels over 10,000 tasks, within four standard deviations."""
    labels = [whole_labels(1 + share, f"task-{i}") for i in range(10_000)]
    assert abs(sum(labels) / 10_000 - (1 + share)) <= 4 * (share * (1 - share) / 10_000) ** 0.5
    assert labels == [whole_labels(1 + share, f"task-{i}") for i in range(10_000)]


def test_rings_compare_each_answer_twice_and_all_pairs_each_with_each() -> None:
    answers = [completion(text, text) for text in "abcd"]
    assert [(a.text, b.text) for a, b in ring(answers)] == [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
    assert [(a.text, b.text) for a, b in ring(answers[:2])] == [("a", "b")], "a pair is no ring of two"
    assert len(every(answers)) == 6


def test_the_policy_s_own_preference_is_the_logistic_of_its_implicit_reward() -> None:
    """beta 0.1 times a difference of 20 nats is 2: 1 / (1 + e^-2) = 0.8808."""
    a, b = completion("a", "a"), completion("b", "b")
    assert policy_prefers(a, b, {"a": 15.0, "b": -5.0}) == pytest.approx(0.8808, abs=1e-4)
    assert policy_prefers(a, b, {"a": 15.0}) is None
    assert policy_prefers(a, b, {"a": 0.0, "b": 0.0}) is None, "the base prefers nothing"
    assert (unsureness(0.5), unsureness(1.0), unsureness(0.25)) == (1.0, 0.0, 0.5)


def gold(people: People, name: str, right: Outcome = Outcome.FIRST) -> None:
    record(people, name)
    create(people, name, gold=right)


def test_gold_tasks_are_mixed_in_and_look_like_any_other(make: Make) -> None:
    people = make(mixture=Mixture(gold_share=1.0))
    gold(people, "known")
    people.ask("a", "b", group_id="g1")
    first, second = sorted(people.lease("ann"), key=lambda lease: -len(lease.task.group_id))
    assert groups_of([first, second]) == ["known", "g1"], "once the gold tasks are used up, comparisons follow"
    assert (first.task.kind, first.task.gold) == (second.task.kind, second.task.gold) == (TaskKind.COMPARISON, None)


def test_each_place_of_a_lease_is_drawn_for_itself_and_gold_stands_anywhere(make: Make) -> None:
    """Share 0.5 of 40 places: 20 gold tasks expected, standard deviation 3.2; not all of them first."""
    people = make(mixture=Mixture(gold_share=0.5))
    for number in range(40):
        gold(people, f"known{number}")
        people.ask("a", "b", group_id=f"g{number}")
    people.people._draw = random.Random(1)
    is_gold = [lease.task.group_id.startswith("known") for lease in people.lease("ann", limit=40)]
    assert 8 <= sum(is_gold) <= 32
    assert any(is_gold[20:])
    assert not all(is_gold[: sum(is_gold)])


@pytest.mark.parametrize(("answer", "least", "most"), [(Outcome.FIRST, 0, 12), (Outcome.SECOND, 38, 40)])
def test_whom_the_crowd_doubts_is_tested_more_often(make: Make, answer: Outcome, least: int, most: int) -> None:
    """After ten gold tasks: all right, 10 % of 40 places; all wrong, as many as the doubt says, more than 99 %."""
    people = make(mixture=Mixture(gold_share=0.1))
    for number in range(60):
        gold(people, f"known{number}")
        record(people, f"g{number}")
        create(people, f"g{number}")
    seen = [vote(f"earlier{n}", "ann", answer, gold=Outcome.FIRST) for n in range(10)]
    for each in seen:
        people.people.crowd.see(each)
    people.people.crowd.refresh()
    names = groups_of(people.lease("ann", limit=40))
    assert least <= sum(name.startswith("known") for name in names) <= most
    off = make(mixture=Mixture(gold_share=0.0))
    gold(off, "known")
    for each in seen:
        off.people.crowd.see(each)
    off.people.crowd.refresh()
    assert groups_of(off.lease("ann")) == [], "who wants no gold gets none"


def test_a_gold_label_measures_and_makes_no_preference(make: Make) -> None:
    people = make(mixture=Mixture(gold_share=1.0))
    gold(people, "known")
    (lease,) = people.lease("ann")
    assert people.submit(lease).accepted
    assert [label.kind for label in people.labels()] == [TaskKind.GOLD]
    assert not [e for e in people.database.events("", 0, 100).result(WAIT) if e.preference]
    assert people.people.crowd.profile("ann").gold.total == 1
    assert people.lease("ann") == [], "nobody gets a gold task twice"
    assert len(people.lease("bob")) == 1, "and everybody gets it"


def test_a_repeat_comes_after_a_while_to_the_same_person_and_measures_only(make: Make) -> None:
    people = make(mixture=Mixture(repeat_share=1.0, repeat_after=2))
    for number in range(4):
        people.ask("a", "b", group_id=f"g{number}")
    seen = []
    for _ in range(4):
        (lease,) = people.lease("ann", limit=1)
        seen.append(lease.task.group_id)
        people.submit(lease, Outcome.FIRST)
    assert seen == ["g0", "g1", "g2", "g0"], "with two labels in between, the third last comes again"
    assert [label.kind for label in people.labels()][-1] is TaskKind.REPEAT
    consistency = people.people.crowd.profile("ann").self_consistency
    assert (consistency.right, consistency.total) == (1, 1)
    preferences = [e.preference for e in people.database.events("", 0, 100).result(WAIT) if e.preference]
    assert len(preferences) == 3


def test_somebody_in_quarantine_gets_nothing_but_what_measures_him(make: Make) -> None:
    people = make()
    people.ask("a", "b", group_id="g1")
    gold(people, "known")
    people.people.crowd.set_state("ann", AnnotatorState.QUARANTINED, "odd")
    assert groups_of(people.lease("ann")) == ["known"]


def test_a_pair_asked_for_twice_keeps_its_first_place_in_the_queue(make: Make) -> None:
    """a|b, then another pair, then a|b again: the second asking must not push the pair behind."""
    people = make()
    record(people, "g1", "g2")
    create(people, "g1")
    create(people, "g2")
    people.desk.create_tasks("run", [PairRequest("g1-1", "g1-0")], "turned").result(WAIT)
    assert groups_of(people.lease("ann")) == ["g1", "g2"]
