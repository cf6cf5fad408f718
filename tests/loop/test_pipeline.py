"""Sampling, labeling, learning and publishing at the same time, told by what they leave behind."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iterpo import patience
from iterpo.errors import PolicyRejected, Unavailable
from iterpo.patience import RunStopped
from iterpo.policies import manifest
from iterpo.types import Group, Outcome, Reward, SamplingSettings
from tests.loop.fakes import RUN, SILENT, Crash, FakeGenerator, FakeLearner, FakePublisher, prompt
from tests.loop.run import Run, first_is_best
from tests.loop.test_crashes import CALLS, LABELS, WHEN, assert_each_event_was_used_once, late


def within(seconds: float, condition) -> bool:
    """Whether it came true in that time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def published(run: Run, version: int) -> FakeLearner:
    return FakeLearner.at(manifest.directory(run.folder / "policies", version))


def verdicts_wait_for_the_next_update(run: Run) -> None:
    """As if proving and judging took longer than learning: every update but the first is made on top of a candidate."""
    load, loads = run.publisher.load, []

    def slow(version, digest):
        loads.append(version)
        wanted = min(len(loads) + 1, run.config.iterations)
        assert within(10, lambda: run.learner.updates >= wanted), "the next update waits for the verdict"
        return load(version, digest)

    run.publisher.load = slow


def test_a_pipelines_iterations_commit_their_rows_in_order_and_each_version_learns_on(make_run):
    run = make_run(ahead=2, iterations=4)
    rows = run.finish()
    assert [(r.iteration, r.policy_version, r.promoted) for r in rows] == [(n, n, True) for n in (1, 2, 3, 4)]
    assert run.ledger.rows(RUN) == rows
    assert sorted(run.learner.weights) == sorted(c.completion_id for g in run.feedback.groups for c in g.completions)
    assert len(run.learner.weights) == 16, "no more was sampled than the run needed"
    assert_each_event_was_used_once(run)


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_sampling_runs_ahead_of_the_learner_as_far_as_it_may_and_no_farther(make_run, ahead):
    run = make_run(ahead=ahead, iterations=6, prompts=40)
    most, first = [], threading.Event()

    def update(selection):
        if not first.is_set():
            # Two groups are being learned; `ahead` times two more may be waiting, and then sampling holds.
            assert within(5, lambda: len(run.feedback.groups) == 2 + 2 * ahead)
            time.sleep(0.1)
            most.append(len(run.feedback.groups))
            first.set()
        return FakeLearner.update(run.learner, selection)

    loop = run.loop()
    run.learner.update = update
    rows = list(loop.iterations())
    assert most == [2 + 2 * ahead]
    assert rows[1].metrics["policy_age_max"] == 1.0, "it was sampled before the first version was learned"
    assert {"wait_rollouts_seconds", "wait_backpressure_seconds"} <= rows[0].metrics.keys()


def test_learning_goes_on_while_a_candidate_is_being_judged(make_run):
    run = make_run(ahead=1, iterations=4)
    verdicts_wait_for_the_next_update(run)
    assert [r.policy_version for r in run.finish()] == [1, 2, 3, 4]
    assert run.learner.updates == 4
    # The gate looked at each candidate's own weights, not at those that were being learned.
    assert run.learner.looked == [("kl", published(run, version).weights) for version in (1, 2, 3, 4)]


@pytest.mark.parametrize("reason", ["gate", "proof"])
def test_what_was_learned_on_top_of_a_refused_candidate_is_learned_once_more_from_below_it(make_run, reason):
    run = make_run(ahead=1, iterations=3)
    verdicts_wait_for_the_next_update(run)
    if reason == "gate":
        run.labeler.values = [0.5, 0.1, 0.6]  # serving, then the candidates
    else:
        run.publisher.bad[1] = PolicyRejected("The probe failed.", "Publish again.", "PROBE_DISAGREES")
    rows = run.finish()
    assert [(r.promoted, r.policy_version) for r in rows] == [(False, 0), (True, 2), (True, 3)]
    assert run.learner.updates == 4, "the second iteration's, on top of the refused one and from below it"
    refused = {c.completion_id for g in run.feedback.groups[:2] for c in g.completions}
    assert not refused & set(run.learner.weights)
    assert len(run.learner.weights) == len(set(run.learner.weights)) == 8
    # Version 2's own weights, and the checkpoint's, are without it, too.
    assert not refused & set(published(run, 2).weights)
    assert FakeLearner.at(run.folder / "checkpoints" / "000003").weights == run.learner.weights
    assert sorted(run.ledger.consumed(RUN)) == sorted(e.event_id for e in run.feedback.events)


def test_a_verdict_that_is_there_before_the_next_groups_is_obeyed_first(make_run):
    """Labels may take hours: the row of what serves already does not wait for them, and nothing is built on what was
    refused."""
    run = make_run(ahead=1, iterations=3, judge=lambda c: first_is_best(c) if committed() or first(c) else SILENT)
    run.labeler.values = [0.5, 0.1, 0.6]

    def first(completion) -> bool:
        return completion.group_id in ("g0", "g1")

    def committed() -> bool:
        return bool(run.ledger.rows(RUN))

    rows = run.finish()
    assert [r.promoted for r in rows] == [False, True, True]
    assert run.learner.updates == 3, "no update was made twice"


def test_a_promotion_just_before_a_stop_gets_its_row(make_run):
    run = make_run(ahead=1, iterations=3, judge=lambda c: first_is_best(c) if c.group_id in ("g0", "g1") else SILENT)
    rows = run.loop().iterations()
    (row,) = [next(rows)]
    assert (row.policy_version, run.publisher.serving) == (1, 1)
    run.control.stop()
    with pytest.raises(RunStopped):
        next(rows)
    assert [r.policy_version for r in run.ledger.rows(RUN)] == [1]


def test_what_goes_wrong_in_publishing_is_said_while_labels_are_awaited(make_run):
    run = make_run(ahead=1, iterations=3, judge=lambda c: first_is_best(c) if c.group_id in ("g0", "g1") else SILENT)
    run.faults.planned = {("load", 1, "before"): ValueError("load broke")}
    with pytest.raises(ValueError, match="load broke"):
        run.finish()


def test_the_checkpoint_of_a_row_holds_its_version_and_not_what_is_being_learned_already(make_run):
    run = make_run(ahead=1, iterations=4)
    verdicts_wait_for_the_next_update(run)
    rows = run.loop().iterations()
    next(rows)
    next(rows)
    assert run.ledger.get(RUN).checkpoint == "000002"
    kept = FakeLearner.at(run.folder / "checkpoints" / "000002").weights
    assert kept == published(run, 2).weights
    assert len(kept) == 8 < len(run.learner.weights), "the third update was under way"
    rows.close()


def test_people_are_asked_where_the_standing_policy_and_not_the_one_being_learned_contradicts(make_run):
    run = make_run(algorithm="online_dpo", labeler="people", ahead=1, iterations=4, prompts=40)
    verdicts_wait_for_the_next_update(run)
    stream = run.feedback.stream

    def labelled(run_id, cursor, idle_seconds):
        known = {e.label.task_id for e in run.feedback.events if e.label is not None}
        for task in [e.task for e in run.feedback.events if e.task is not None and e.task.task_id not in known]:
            run.feedback.answer(task, Outcome.FIRST)
        yield from stream(run_id, cursor, idle_seconds)

    run.feedback.stream = labelled
    run.finish()
    standing = [[], *(published(run, version).weights for version in (1, 2, 3, 4))]
    asked = [weights for name, weights in run.learner.looked if name == "log_ratios"]
    assert asked
    assert all(weights in standing for weights in asked)


def test_given_answers_are_each_learned_once_a_pass_whatever_is_judged_meanwhile(make_run):
    learned = {}
    for ahead in (0, 1):
        run = make_run(algorithm="sft", response_sampling={}, ahead=ahead, iterations=4, prompts=8)
        if ahead:
            verdicts_wait_for_the_next_update(run)
        run.finish()
        learned[ahead] = run.learner.weights
        assert run.ledger.get(RUN).progress.drawn == 8
        shutil.rmtree(run.folder / "policies")
        (run.folder / "learner.db").unlink()
    assert learned[0] == learned[1]
    assert len(set(learned[1])) == 8


def test_a_run_beside_what_serves_is_a_pipeline_too(make_run):
    run = make_run(beside=True, ahead=2, iterations=4)
    assert [r.promoted for r in run.finish()] == [True] * 4
    assert (run.publisher.serving, run.publisher.run_heads) == (0, {RUN: 4})


def test_a_pipeline_waits_for_a_canary_that_users_refuse_and_goes_back(make_run, monkeypatch):
    monkeypatch.setattr("iterpo.deliver.CANARY_PERIOD_SECONDS", 0.001)
    run = make_run(ahead=1, iterations=3)
    run.publisher.canaries = {1: (3, False)}
    rows = run.finish()
    assert [(r.promoted, r.policy_version) for r in rows] == [(False, 0), (True, 2), (True, 3)]
    assert len(run.learner.weights) == 8


def test_what_an_applications_users_said_takes_no_place_and_comes_along(make_run):
    """Texts without log-probs: nothing for a policy gradient, which drops and counts them; pairs learn from them."""
    for algorithm, learned in (("grpo", 0), ("online_dpo", 12)):
        run = make_run(algorithm=algorithm, ahead=1, iterations=3, max_policy_age=9)
        for n in range(6):
            thumbs = [replace(c, logprobs=(), group_id=f"g90{n}", completion_id=f"u{n}/{i}") for i, c in said()]
            run.feedback.append(group=Group(f"g90{n}", prompt(n), tuple(thumbs)))
            for i, c in enumerate(thumbs):
                run.feedback.append(reward=Reward(c.completion_id, float(not i), "user"))
        rows = run.finish()
        own = [name for name in run.learner.weights if not name.startswith("u")]
        assert (len(own), len(run.learner.weights) - len(own)) == (12, learned)
        assert all(row.promoted for row in rows)
        shutil.rmtree(run.folder / "policies")
        (run.folder / "learner.db").unlink()


def said():
    """Two answers, and their places."""
    ((*pair,),) = FakeGenerator(FakePublisher()).sample([prompt(0)], 2, SamplingSettings())
    return list(enumerate(pair))


def test_groups_that_nobody_answers_hold_no_place_and_open_no_more_than_their_own(make_run):
    ahead, size = 3, 4
    run = make_run(
        prompts_per_iteration=size,
        ahead=ahead,
        iterations=6,
        prompts=200,
        feedback_timeout_seconds=3,
        judge=lambda c: first_is_best(c) if int(c.group_id[1:]) % 6 == 0 else SILENT,
    )
    run.finish()
    learned = len(run.learner.weights) // 2
    answered = sum(int(g.group_id[1:]) % 6 == 0 for g in run.feedback.groups)
    assert answered - learned <= ahead * size
    # Each deadline gives up what was out when its wait began: never more than the bound at once.
    assert len(run.feedback.groups) <= (1 + run.clock.now / 3) * ahead * size


def test_a_pool_of_fewer_prompts_than_an_iteration_wants_is_asked_once_each(make_run):
    run = make_run(prompts_per_iteration=4, prompts=3, ahead=2, iterations=3)
    run.finish()
    assert run.clock.now < 100, "no iteration waited for a fourth prompt until the deadline"
    assert len(run.learner.weights) == 3 * 3 * 2


@pytest.mark.parametrize("slow_verdicts", [False, True])
@pytest.mark.parametrize("ahead", [1, 2])
def test_answers_are_as_old_as_sampling_is_ahead_and_one_more_above_a_candidate(make_run, ahead, slow_verdicts):
    """What services.learner.runs.parse allows rests on this."""
    run = make_run(ahead=ahead, iterations=8, prompts=200, max_policy_age=99)
    if slow_verdicts:
        verdicts_wait_for_the_next_update(run)
    loop = run.loop()
    update = run.learner.update

    def as_far_ahead_as_may_be(selection):
        recorded = 2 * min(8, run.learner.updates + 1 + ahead)
        assert within(5, lambda: len(run.feedback.groups) == recorded)
        return update(selection)

    run.learner.update = as_far_ahead_as_may_be
    rows = list(loop.iterations())
    assert max(row.metrics["policy_age_max"] for row in rows) == ahead + slow_verdicts


def test_age_is_counted_when_groups_are_used_and_too_old_ones_are_dropped_and_replaced(make_run):
    """Eight groups are sampled from the base before the first update: at the third one they are two versions old."""
    run = make_run(ahead=4, iterations=4, max_policy_age=1, prompts=40)
    all_out = threading.Event()

    def waits(selection):
        if not all_out.is_set():
            assert within(5, lambda: len(run.feedback.groups) == 8)
            all_out.set()
        return FakeLearner.update(run.learner, selection)

    loop = run.loop()
    run.learner.update = waits
    rows = list(loop.iterations())
    assert all(r.metrics["policy_age_max"] <= 1.0 for r in rows)
    dropped = sum(r.metrics.get("dropped_policy_age", 0.0) for r in rows)
    assert dropped > 0
    assert len(run.learner.weights) == 16, "every iteration learned from two groups that were young enough"
    groups = len(run.ledger.consumed(RUN)) / 3  # of a group: its event, and two rewards
    assert len(run.learner.weights) + dropped == 2 * groups


def test_pairs_of_any_age_are_used_by_a_pipeline(make_run):
    run = make_run(algorithm="online_dpo", ahead=4, iterations=4, max_policy_age=0, prompts=40)
    rows = run.finish()
    assert all("dropped_policy_age" not in r.metrics for r in rows)
    assert len(run.learner.weights) == 16


def test_a_group_whose_labels_come_late_joins_a_later_iteration(make_run):
    run = make_run(
        ahead=1,
        iterations=4,
        prompts=40,
        max_policy_age=9,
        feedback_timeout_seconds=2,
        judge=lambda c: SILENT if c.group_id == "g0" and run.publisher.serving < 2 else first_is_best(c),
    )
    run.finish()
    assert_each_event_was_used_once(run)
    assert "g0/0" in run.learner.weights
    assert run.learner.weights.index("g0/0") > 0, "the first iteration went on without it"


def test_groups_that_teach_nothing_are_refilled_in_a_pipeline(make_run):
    run = make_run(
        judge=lambda c: 1.0 if c.group_id in ("g0", "g1") else first_is_best(c),
        algorithm="dapo",
        response_sampling={"size": 2, "refill": 3},
        ahead=1,
        iterations=1,
    )
    (row,) = run.finish()
    assert row.metrics["dropped_uniform_group"] == 4.0
    assert len(run.learner.weights) == 4


@pytest.mark.parametrize("call", ["sample", "record", "stream", "update", "load"])
def test_what_ends_one_loop_ends_the_run_with_its_reason(make_run, call):
    run = make_run(ahead=2)
    run.faults.planned = {(call, 2, "before"): ValueError(f"{call} broke")}
    with pytest.raises(ValueError, match=f"{call} broke"):
        run.finish()
    loops = {"sampling", "labeling", "publishing"}
    assert within(5, lambda: not loops & {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("call", ["sample", "record", "stream", "score", "versions", "load", "promote"])
def test_every_loop_waits_for_a_process_that_is_away_says_so_and_goes_on(make_run, call):
    run = make_run(ahead=1)
    away = Unavailable("Nobody is there.", "Wait.")
    run.faults.planned = {(call, 2, "before"): away, (call, 3, "after"): away}
    assert [r.promoted for r in run.finish()] == [True] * 3
    assert [text for text, _ in run.statuses if "Nobody is there." in text]


def test_a_stop_ends_all_loops_and_a_resumed_pipeline_goes_on_where_it_was(make_run):
    run = make_run(ahead=2, iterations=4)
    rows = run.loop().iterations()
    next(rows)
    run.control.stop()
    with pytest.raises(RunStopped):
        list(rows)
    done = run.ledger.get(RUN).progress.iteration
    assert 1 <= done < 4
    assert [r.iteration for r in run.finish()] == list(range(done + 1, 5))
    assert_each_event_was_used_once(run)


def test_a_paused_pipeline_holds_all_loops_until_it_is_resumed(make_run):
    run = make_run(ahead=1, iterations=6, prompts=40)
    rows = run.loop().iterations()
    next(rows)
    run.control.pause()
    rest: list = []
    worker = threading.Thread(target=lambda: rest.extend(rows), daemon=True)
    worker.start()
    time.sleep(0.3)
    before = len(run.faults.calls)
    time.sleep(0.3)
    assert (len(run.faults.calls), rest) == (before, [])
    run.control.resume()
    worker.join(20)
    assert [r.iteration for r in rest] == [2, 3, 4, 5, 6]


def test_what_the_loops_do_is_told_by_name(make_run):
    run = make_run(ahead=1)
    run.finish()
    texts = " ".join(text for text, _ in run.statuses)
    for name in ("sampling: ", "labeling: ", "learning: updating on 4 completions", "publishing: proving version 2"):
        assert name in texts


def break_a_reading_that_has_something_to_read(run: Run, when: str) -> None:
    """Which one that is, is a matter of timing."""
    strike, struck = run.faults.strike, []

    def once(method: str, at: str) -> None:
        if (method, at) == ("stream", when) and len(run.feedback.groups) > 2 and not struck:
            struck.append(True)
            raise Crash
        strike(method, at)

    run.faults.strike = once


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("call", CALLS)
def test_a_pipelines_feedback_is_used_neither_skipped_nor_repeated_after_a_crash(make_run, call, when):
    run = make_run(ahead=2, iterations=4, prompts=40)
    if call == "stream":
        break_a_reading_that_has_something_to_read(run, when)
    else:
        run.faults.planned = {(call, 3, when): Crash()}
    assert run.finish_despite_crashes() == 1
    assert_each_event_was_used_once(run)
    assert [r.iteration for r in run.ledger.rows(RUN)] == [1, 2, 3, 4]
    # What had been recorded was not sampled again: nobody labels the same prompt twice because the learner died.
    assert len({g.prompt.prompt_id for g in run.feedback.groups}) == len(run.feedback.groups) == 8


FAULTS = st.dictionaries(
    st.tuples(st.just(""), st.integers(1, 90), st.sampled_from(WHEN)), st.sampled_from([Crash, Unavailable]), max_size=6
)


@given(
    faults=FAULTS,
    labels=LABELS,
    heldout=st.lists(st.sampled_from([0.5, 0.5, 0.1]), min_size=1, max_size=8),
    algorithm=st.sampled_from(["grpo", "dapo", "online_dpo"]),
    size=st.integers(1, 3),
    ahead=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_under_any_history_of_a_pipeline_each_event_is_used_once(faults, labels, heldout, algorithm, size, ahead):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        run = Run(
            Path(folder),
            judge=lambda c: judged(c),
            algorithm=algorithm,
            iterations=4,
            prompts_per_iteration=size,
            feedback_timeout_seconds=3,
            max_policy_age=1000,
            ahead=ahead,
        )

        judged = late(labels, run.clock)
        for module in ("iterate", "rollouts", "pipeline"):
            patch.setattr(f"iterpo.{module}.time", run.clock)
        patch.setattr(patience, "FIRST_DELAY_SECONDS", 0.0)
        run.labeler.values = list(heldout)
        run.faults.planned = {key: kind("Struck.") if kind is Unavailable else Crash() for key, kind in faults.items()}
        run.finish_despite_crashes()
        assert_consumed_once(run)
        assert [r.iteration for r in run.ledger.rows(RUN)] == [1, 2, 3, 4]
        run.ledger.close()


def assert_consumed_once(run: Run) -> None:
    """Of refused iterations nothing stays in the weights; nothing is there twice; nothing stored is lost."""
    pending = run.rebuilt_buffer()
    pending.absorb(run.feedback.events)
    consumed = set(run.ledger.consumed(RUN))
    waiting = {g.group_id for g in run.feedback.groups} & set(pending._pending)
    of_group = {c.completion_id: g.group_id for g in run.feedback.groups for c in g.completions}
    for event in run.feedback.events:
        group_id = event.group.group_id if event.group else of_group[(event.reward or event.abstention).completion_id]
        assert (event.event_id in consumed) != (group_id in waiting)
    assert len(run.learner.weights) == len(set(run.learner.weights))
