"""Feedback events folded into groups: what is complete, what waits, what came too late, and where to read on."""

from __future__ import annotations

from iterpo.buffer import GroupBuffer
from iterpo.types import Abstention, FeedbackEvent, Group, Label, Outcome, Reward, Task
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


def test_a_group_of_people_waits_for_all_labels_of_all_its_tasks_and_averages_them():
    made, buffer = group(), GroupBuffer()
    task = Task("t1", RUN, "g0", made.prompt, *made.completions, required_labels=2)
    buffer.absorb([event(1, group=made), event(2, task=task), label(3, task, Outcome.FIRST, "ann")])
    assert buffer.waiting == 1
    buffer.absorb([label(4, task, Outcome.TIE, "bob")])
    ((taken,), _) = buffer.take()
    (preference,) = taken.preferences
    assert (preference.first_id, preference.second_id, preference.p_first_wins) == ("g0/0", "g0/1", 0.75)


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
    buffer.absorb([event(1, group=group()), reward(2, "g0/0"), reward(3, "g0/1"), reward(9, "x")], until_complete=True)
    assert buffer.cursor == 3


def test_the_cursor_to_resume_from_lies_before_the_oldest_group_that_waits():
    one, buffer = group(), GroupBuffer()
    other = Group("g1", prompt(1), ())
    buffer.absorb([event(4, group=one), event(5, group=other), reward(6, "g0/0")])
    assert buffer.resume_cursor == 3
    buffer.take()  # the group without completions is complete
    assert buffer.resume_cursor == 3
    buffer.absorb([reward(7, "g0/1")])
    buffer.take()
    assert buffer.resume_cursor == 7


def test_what_the_ledger_knows_as_consumed_is_passed_over():
    events = [event(1, group=group()), reward(2, "g0/0"), reward(3, "g0/1")]
    buffer = GroupBuffer(0, ["e1", "e2", "e3"])
    buffer.absorb(events)
    assert buffer.take() == ([], [])
    assert buffer.cursor == 3
    assert not buffer.late
