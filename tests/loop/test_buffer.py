"""Feedback events folded into groups: what is complete, what waits, what came too late, and where to read on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iterpo.buffer import GroupBuffer
from iterpo.types import (
    Abstention,
    AnnotatorState,
    FeedbackEvent,
    Group,
    Label,
    Outcome,
    Preference,
    Release,
    Retraction,
    Reward,
    Standing,
    Task,
    TaskKind,
)
from tests.loop.fakes import RUN, FakeGenerator, FakePublisher, prompt


def group(size: int = 2) -> Group:
    from iterpo.types import SamplingSettings

    ((first, *rest),) = FakeGenerator(FakePublisher()).sample([prompt(0)], size, SamplingSettings())
    return Group(first.group_id, prompt(0), (first, *rest))


def event(cursor: int, **body) -> FeedbackEvent:
    return FeedbackEvent(cursor, f"e{cursor}", RUN, 0.0, **body)


def reward(cursor: int, completion_id: str, value: float = 1.0) -> FeedbackEvent:
    return event(cursor, reward=Reward(completion_id, value, "rule"))


def label(cursor: int, task: Task, outcome: Outcome, annotator: str) -> FeedbackEvent:
    ids = task.first.completion_id, task.second.completion_id
    return event(cursor, label=Label(f"l{cursor}", task.task_id, task.group_id, *ids, outcome, annotator))


def preference(cursor: int, task: Task, p: float, weight: float = 1.0) -> FeedbackEvent:
    ids = task.first.completion_id, task.second.completion_id
    return event(cursor, preference=Preference(task.group_id, *ids, p, weight, task_id=task.task_id))


def test_a_group_is_complete_once_every_completion_has_a_reward_or_an_abstention():
    buffer = GroupBuffer()
    buffer.absorb([event(1, group=group()), reward(2, "g0/0", 0.25)])
    assert (buffer.waiting, buffer.take()) == (1, ([], []))
    buffer.absorb([event(3, abstention=Abstention("g0/1", "rule", "TIMEOUT"))])
    ((taken,), events) = buffer.take()
    assert taken.rewards == {"g0/0": 0.25}
    assert events == [(1, "e1"), (2, "e2"), (3, "e3")]
    assert taken.event_ids == ("e1", "e2", "e3")
    assert buffer.take() == ([], [])


def test_a_group_of_people_waits_for_the_preference_of_each_comparison_and_takes_the_latest():
    made, buffer = group(), GroupBuffer()
    task = Task("t1", RUN, "g0", made.prompt, *made.completions, required_labels=2)
    buffer.absorb([event(1, group=made), event(2, task=task), label(3, task, Outcome.FIRST, "ann")])
    assert buffer.waiting == 1, "labels are no preference"
    buffer.absorb([preference(4, task, 0.9), preference(5, task, 0.75)])
    ((taken,), events) = buffer.take()
    assert [(p.first_id, p.second_id, p.p_first_wins) for p in taken.preferences] == [("g0/0", "g0/1", 0.75)]
    assert taken.rewards == {"g0/0": 0.75, "g0/1": 0.25}
    assert [cursor for cursor, _ in events] == [1, 2, 3, 4, 5], "the label was consumed with its group"


@pytest.mark.parametrize("kind", [TaskKind.GOLD, TaskKind.REPEAT, TaskKind.AUDIT])
def test_tasks_that_measure_annotators_keep_nobody_waiting(kind):
    made, buffer = group(), GroupBuffer()
    comparison = Task("t1", RUN, "g0", made.prompt, *made.completions)
    measuring = replace(comparison, task_id="t2", kind=kind)
    buffer.absorb([event(1, group=made), event(2, task=comparison), event(3, task=measuring)])
    buffer.absorb([preference(4, comparison, 0.9)])
    assert buffer.waiting == 0


def test_a_label_taken_back_leaves_its_group_waiting():
    made, buffer = group(), GroupBuffer()
    task = Task("t1", RUN, "g0", made.prompt, *made.completions)
    buffer.absorb([event(1, group=made), event(2, task=task), preference(3, task, 0.9)])
    buffer.absorb([event(4, retraction=Retraction("l1", "t1", "g0", "ann"))])
    assert buffer.waiting == 1


def test_a_preference_that_nobody_stands_behind_completes_its_group_and_is_none():
    made, buffer = group(), GroupBuffer()
    task = Task("t1", RUN, "g0", made.prompt, *made.completions)
    buffer.absorb([event(1, group=made), event(2, task=task), preference(3, task, 0.5, weight=0.0)])
    ((taken,), _) = buffer.take()
    assert (taken.preferences, taken.rewards) == ((), {})


def test_what_belongs_to_no_group_is_not_counted_as_late():
    buffer = GroupBuffer()
    buffer.absorb(
        [event(1, standing=Standing("ann", AnnotatorState.EXCLUDED)), event(2, release=Release("t", "ann", "?"))]
    )
    assert not buffer.late


def test_an_event_that_comes_after_its_group_was_taken_is_counted():
    buffer = GroupBuffer()
    buffer.absorb([event(1, group=group()), reward(2, "g0/0"), reward(3, "g0/1")])
    buffer.take()
    buffer.absorb([reward(4, "g0/1"), event(5, abstention=Abstention("g0/0", "other", "TIMEOUT"))])
    assert buffer.late == {"reward": 1, "abstention": 1}
    assert buffer.cursor == 5


def test_an_event_that_is_sent_again_changes_nothing():
    buffer = GroupBuffer()
    events = [event(1, group=group()), reward(2, "g0/0", 0.5), reward(3, "g0/1")]
    buffer.absorb(events)
    buffer.absorb([event(1, group=group()), reward(2, "g0/0", 0.9)])
    ((taken,), consumed) = buffer.take()
    assert taken.rewards["g0/0"] == 0.5
    assert len(consumed) == 3


def test_a_recorded_group_waits_even_before_its_event_was_read():
    buffer = GroupBuffer()
    buffer.expect([group()])
    assert buffer.waiting == 1
    assert not buffer.all_complete
    buffer.absorb([event(1, group=group()), reward(2, "g0/0"), reward(3, "g0/1")])
    assert buffer.all_complete


def test_reading_stops_as_soon_as_nothing_waits_any_more():
    buffer = GroupBuffer()
    events = [event(1, group=group()), reward(2, "g0/0"), reward(3, "g0/1"), reward(9, "x")]
    buffer.absorb(events, until=lambda: buffer.all_complete)
    assert buffer.cursor == 3


def test_the_cursor_to_resume_from_lies_before_the_oldest_group_that_no_committed_iteration_has():
    one, buffer = group(), GroupBuffer()
    other = Group("g1", prompt(1), ())
    buffer.absorb([event(4, group=one), event(5, group=other), reward(6, "g0/0")])
    assert buffer.resume_cursor == 3
    buffer.take()  # the group without completions is complete
    assert buffer.resume_cursor == 3
    buffer.absorb([reward(7, "g0/1")])
    _, consumed = buffer.take()
    assert buffer.resume_cursor == 3, "taken, but a crash now would have to find them again"
    buffer.commit([(5, "e5")])
    assert buffer.resume_cursor == 3
    buffer.commit(consumed)
    assert buffer.resume_cursor == 7


def test_the_oldest_complete_groups_are_taken_first_and_no_more_than_asked_for():
    buffer = GroupBuffer()
    buffer.absorb([event(n, group=Group(f"g{n}", prompt(n), ())) for n in (1, 2, 3)])
    assert (len(buffer), buffer.complete) == (3, 3)
    assert [g.group_id for g in buffer.take(2)[0]] == ["g1", "g2"]
    assert (len(buffer), buffer.complete) == (1, 1)


def test_what_the_ledger_knows_as_consumed_is_passed_over():
    events = [event(1, group=group()), reward(2, "g0/0"), reward(3, "g0/1")]
    buffer = GroupBuffer(0, ["e1", "e2", "e3"])
    buffer.absorb(events)
    assert buffer.take() == ([], [])
    assert buffer.cursor == 3
    assert not buffer.late
