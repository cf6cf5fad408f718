"""Feedback is used once and only once, wherever the learner dies and whoever is away (invariants 3 and 9)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iterpo import iterate, patience
from iterpo.errors import Unavailable
from tests.loop.fakes import RUN, SILENT, Clock, Crash
from tests.loop.run import Run, first_is_best

WHEN = ("before", "after")
CALLS = ("sample", "record", "stream", "update", "publish", "load", "score", "promote", "save", "commit")


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("call", CALLS)
def test_feedback_of_a_crashed_attempt_is_used_neither_skipped_nor_repeated(make_run, call, when, beside):
    run = make_run(beside=beside)
    in_second_iteration = {"score": 3, "stream": 4}.get(call, 2)
    run.faults.planned = {(call, in_second_iteration, when): Crash()}
    assert run.finish_despite_crashes() == 1
    assert_each_event_was_used_once(run)
    assert [r.iteration for r in run.ledger.rows(RUN)] == [1, 2, 3]
    assert (run.publisher.run_heads.get(RUN, 0) > 0, run.publisher.serving > 0) == (beside, not beside)
    # What had been recorded was not sampled again: nobody labels the same prompt twice because the learner died.
    assert len(run.feedback.groups) == 6


def test_a_buffer_that_forgets_what_was_consumed_would_be_noticed(make_run):
    """Negative control: without the ledger's list, the silent group drags consumed events of others with it."""
    run = make_run(iterations=2, judge=lambda c: SILENT if c.group_id == "g0" else first_is_best(c))
    run.ledger.consumed = lambda run_id, after=0: []
    next(run.loop().iterations())
    with pytest.raises(Exception, match=r"UNIQUE constraint failed: consumed\.event_id"):
        run.finish()


@pytest.mark.parametrize("call", ["save", "commit"])
def test_a_crash_after_the_first_promotion_does_not_begin_at_the_candidate_that_it_promoted(make_run, call):
    """A new run begins at whatever serves. Were it to begin anew, its first feedback would be trained on twice."""
    run = make_run(iterations=1)
    run.faults.planned = {(call, 1, "before"): Crash()}
    assert run.finish_despite_crashes() == 1
    assert run.publisher.history == ["load 1", "promote 1", "load 2", "promote 2"]
    assert_each_event_was_used_once(run)


def test_a_crash_while_labels_are_awaited_keeps_the_groups_waiting(make_run):
    run = make_run(iterations=2, judge=lambda c: SILENT if run.clock.now < 100 else first_is_best(c))
    run.faults.planned = {("stream", 5, "before"): Crash()}
    assert run.finish_despite_crashes() == 1
    assert_each_event_was_used_once(run)
    assert len(run.feedback.groups) == 4


# Any history: crashes and absences at any calls, labels that come late, groups that teach nothing.

FAULTS = st.dictionaries(
    st.tuples(st.just(""), st.integers(1, 90), st.sampled_from(WHEN)),
    st.sampled_from([Crash, Unavailable]),
    max_size=8,
)
LABELS = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.0, 1.0, 6.0, 100.0]), st.booleans()), min_size=1, max_size=12)
"""For the groups in order, again and again: seconds until they are labelled, and whether their rewards differ."""


def late(labels, clock: Clock):
    """A judge by LABELS."""
    births: dict[str, float] = {}

    def judged(completion):
        number = int(completion.group_id.removeprefix("g"))
        seconds, differ = labels[number % len(labels)]
        if clock.now < births.setdefault(completion.group_id, clock.now) + seconds:
            return SILENT
        return first_is_best(completion) if differ else 1.0

    return judged


@given(faults=FAULTS, labels=LABELS, algorithm=st.sampled_from(["grpo", "dapo", "online_dpo"]), size=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_under_any_history_each_event_is_used_once(faults, labels, algorithm, size):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        run = Run(
            Path(folder),
            judge=lambda c: judged(c),
            algorithm=algorithm,
            iterations=4,
            prompts_per_iteration=size,
            feedback_timeout_seconds=3,
            max_policy_age=1000,
        )

        judged = late(labels, run.clock)
        patch.setattr(iterate, "time", run.clock)
        patch.setattr(patience, "FIRST_DELAY_SECONDS", 0.0)
        run.faults.planned = {key: kind("Struck.") if kind is Unavailable else Crash() for key, kind in faults.items()}
        run.finish_despite_crashes()
        assert_each_event_was_used_once(run)
        assert [r.iteration for r in run.ledger.rows(RUN)] == [1, 2, 3, 4]
        run.ledger.close()


def assert_each_event_was_used_once(run: Run) -> None:
    """By ids: stored = consumed + still pending, and trained on = consumed groups that teach something, once each."""
    consumed, pending = run.ledger.consumed(RUN), run.rebuilt_buffer()
    pending.absorb(run.feedback.events)
    waiting = {g.group_id for g in run.feedback.groups} & set(pending._pending)
    of_group = {c.completion_id: g.group_id for g in run.feedback.groups for c in g.completions}
    not_consumed = set()
    for event in run.feedback.events:
        group_id = event.group.group_id if event.group else of_group[(event.reward or event.abstention).completion_id]
        if group_id in waiting:
            not_consumed.add(event.event_id)
    assert sorted(consumed) == sorted({e.event_id for e in run.feedback.events} - not_consumed)
    assert not pending.late

    rewards = {e.reward.completion_id: e.reward.value for e in run.feedback.events if e.reward is not None}
    useful = []
    for group in run.feedback.groups:
        ids = [c.completion_id for c in group.completions]
        if group.group_id not in waiting and len({rewards[i] for i in ids}) == 2:
            useful += ids
    assert sorted(run.learner.weights) == sorted(useful)
