"""The loop on one screen, told by what it leaves behind: rows, weights, who serves, what was consumed."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest

from iterpo.errors import PolicyRejected, Unavailable, WrongState
from iterpo.learner.ledger import _dump
from iterpo.patience import RunStopped
from iterpo.types import Example, Outcome, Progress
from tests.loop.fakes import RUN, SILENT, FakeLearner, prompt
from tests.loop.run import first_is_best

AWAY = Unavailable("Nobody is there.", "Wait.")


def test_iterations_commit_their_rows_in_order_and_each_version_learns_on(make_run):
    run = make_run()
    rows = run.finish()
    assert [(r.iteration, r.policy_version, r.promoted, r.proved) for r in rows] == [
        (1, 1, True, True),
        (2, 2, True, True),
        (3, 3, True, True),
    ]
    assert run.ledger.rows(RUN) == rows
    assert run.publisher.serving == 3
    # Two prompts of two completions an iteration, every one trained on once.
    assert run.learner.weights == [c.completion_id for g in run.feedback.groups for c in g.completions]
    assert len(run.learner.weights) == 12


def test_what_was_consumed_is_in_the_ledger_with_the_row(make_run):
    run = make_run(iterations=1)
    run.finish()
    # Two groups and their four rewards.
    assert run.ledger.consumed(RUN) == [e.event_id for e in run.feedback.events]
    assert len(run.feedback.events) == 6
    assert run.ledger.get(RUN).progress.cursor == 6


def test_the_checkpoint_that_the_ledger_names_holds_the_weights(make_run):
    run = make_run(iterations=2)
    run.finish()
    record = run.ledger.get(RUN)
    assert record.checkpoint == "000002"
    kept = FakeLearner()
    kept.load(run.folder / "checkpoints" / record.checkpoint)
    assert kept.weights == run.learner.weights != []


def test_samples_come_from_the_version_that_serves(make_run):
    run = make_run()
    run.finish()
    assert [g.completions[0].policy_version for g in run.feedback.groups] == [0, 0, 1, 1, 2, 2]


def test_a_refused_candidate_gives_the_learner_its_weights_back_and_never_serves(make_run):
    run = make_run(iterations=2)
    run.labeler.values = [0.5, 0.1, 0.6]  # serving, first candidate, second candidate
    refused, promoted = run.finish()
    assert (refused.promoted, refused.proved, refused.policy_version) == (False, True, 0)
    assert "below gate.min_heldout_gain" in refused.decision.reasons[0]
    assert (promoted.promoted, promoted.policy_version) == (True, 2)
    assert run.publisher.history == ["load 1", "reject 1", "load 2", "promote 2"]
    second_half = [c.completion_id for g in run.feedback.groups[2:] for c in g.completions]
    assert run.learner.weights == second_half


def test_the_run_waits_for_a_canary_and_goes_on_from_it_when_it_passes(make_run, monkeypatch):
    monkeypatch.setattr("iterpo.deliver.CANARY_PERIOD_SECONDS", 0.001)
    run = make_run(iterations=2)
    run.publisher.canaries = {1: (3, True)}
    rows = run.finish()
    assert [(r.policy_version, r.promoted) for r in rows] == [(1, True), (2, True)]
    assert sum(text == "version 1 is the canary" for text, waiting in run.statuses if waiting) == 3


def test_a_canary_that_users_refuse_gives_the_learner_its_weights_back(make_run, monkeypatch):
    monkeypatch.setattr("iterpo.deliver.CANARY_PERIOD_SECONDS", 0.001)
    run = make_run(iterations=2)
    run.publisher.canaries = {1: (2, False)}
    first, second = run.finish()
    assert (first.promoted, first.policy_version, first.decision.reasons) == (False, 0, ("users like it less",))
    assert (second.promoted, second.policy_version) == (True, 2)
    later = [c.completion_id for g in run.feedback.groups[2:] for c in g.completions]
    assert run.learner.weights == later  # nothing of the first iteration's is left


def test_a_version_that_the_replicas_do_not_prove_is_a_refused_candidate_and_the_run_goes_on(make_run):
    run = make_run(iterations=2)
    promote, missed = run.publisher.promote, []

    def without_quorum(version, decision, request_id, run):
        if version == 1:
            missed.append(version)
            raise WrongState("Two replicas have not proved it.", "Look at them.", "QUORUM_MISSED")
        return promote(version, decision, request_id, run)

    run.publisher.promote = without_quorum
    first, second = run.finish()
    assert (first.promoted, first.decision.reasons) == (False, ("QUORUM_MISSED: Two replicas have not proved it.",))
    assert (second.promoted, run.publisher.history.count("reject 1"), missed) == (True, 1, [1])


def test_without_a_refusal_the_first_half_would_be_in_the_weights(make_run):
    """Negative control of the test above."""
    run = make_run(iterations=2)
    run.finish()
    assert len(run.learner.weights) == 8


def test_a_version_that_a_proof_rejects_is_a_recorded_refusal_and_the_run_goes_on(make_run):
    run = make_run(iterations=2)
    run.publisher.bad[1] = PolicyRejected("The probe failed.", "Publish again.", "PROBE_DISAGREES")
    rows = run.finish()
    assert [(r.promoted, r.proved) for r in rows] == [(False, False), (True, True)]
    assert rows[0].decision.reasons == ("PROBE_DISAGREES: The probe failed.",)
    assert run.ledger.rows(RUN)[0].decision == rows[0].decision
    assert run.publisher.serving == 2
    assert len(run.learner.weights) == 4


def test_a_candidate_whose_gradient_is_no_number_is_refused_before_any_engine_loads_it(make_run, monkeypatch):
    run = make_run(iterations=2)
    loop = run.loop()
    update, norms = run.learner.update, iter([math.nan, 1.0])
    monkeypatch.setattr(run.learner, "update", lambda selection: {**update(selection), "grad_norm": next(norms)})
    rows = list(loop.iterations())
    assert [(r.promoted, r.proved) for r in rows] == [(False, False), (True, True)]
    assert rows[0].decision.reasons == ("update_grad_norm is nan, not a finite number",)
    assert run.publisher.known == {0, 2}
    assert len(run.learner.weights) == 4


def test_how_long_labels_took_to_serve_is_told_of_what_was_promoted(make_run):
    """The fakes' events are of second 0."""
    run = make_run(iterations=2)
    run.publisher.bad[1] = PolicyRejected("The probe failed.", "Publish again.", "PROBE_DISAGREES")
    refused, promoted = run.finish()
    assert "label_to_served_seconds" not in refused.metrics
    assert promoted.metrics["label_to_served_seconds"] == run.clock.now > 0


def test_a_row_says_how_long_sampling_and_judging_took_and_judging_is_of_proved_candidates_alone(make_run, monkeypatch):
    """Sampling takes 2 s a call, held-out answers 3 s, their KL 4 s."""
    run = make_run(iterations=2)
    run.publisher.bad[2] = PolicyRejected("The probe failed.", "Publish again.", "PROBE_DISAGREES")
    loop = run.loop()
    sample, kl = run.generator.sample, run.learner.kl

    def slow_sample(prompts, n, settings, policy="serving"):
        run.clock.now += 3 if settings.temperature == 0 else 2
        return sample(prompts, n, settings, policy)

    def slow_kl(completions, state=None):
        run.clock.now += 4
        return kl(completions, state)

    monkeypatch.setattr(run.generator, "sample", slow_sample)
    monkeypatch.setattr(run.learner, "kl", slow_kl)
    proved, rejected = loop.iterations()
    assert (proved.metrics["sampling_seconds"], proved.metrics["judging_seconds"]) == (2.0, 7.0)
    assert rejected.metrics["sampling_seconds"] == 2.0
    assert "judging_seconds" not in rejected.metrics


def test_what_an_iteration_was_trained_on_is_kept(make_run):
    run = make_run(iterations=2)
    run.finish()
    first, second = (run.kept[number]["weights"] for number in (1, 2))
    assert (len(first), len(second)) == (4, 8)


def test_nothing_to_learn_from_is_no_new_version(make_run):
    run = make_run(judge=lambda completion: 1.0, iterations=1)
    (row,) = run.finish()
    assert (row.promoted, row.decision, row.policy_version) == (False, None, 0)
    assert {name: n for name, n in row.metrics.items() if not name.startswith(("wait_", "policy_age", "sampling"))} == {
        "dropped_uniform_group": 4.0,
        "sampled_tokens": 8.0,
    }
    assert run.publisher.history == []
    assert len(run.ledger.consumed(RUN)) == 6
    assert run.kept == {}


def test_a_completion_whose_labeler_abstained_is_left_out_and_counted(make_run):
    run = make_run(
        judge=lambda c: None if c.text == "2" else float(c.text == "0"), response_sampling={"size": 3}, iterations=1
    )
    (row,) = run.finish()
    assert row.metrics["dropped_abstained"] == 2.0
    assert [name[-1] for name in run.learner.weights] == ["0", "1", "0", "1"]
    assert row.train_reward == 0.5


def test_refilling_draws_new_prompts_for_groups_that_teach_nothing(make_run):
    """DAPO's dynamic sampling: the first two groups are uniform."""
    run = make_run(
        judge=lambda c: 1.0 if c.group_id in ("g0", "g1") else first_is_best(c),
        algorithm="dapo",
        response_sampling={"size": 2, "refill": 3},
        iterations=1,
    )
    (row,) = run.finish()
    assert [len(asked) for asked in run.generator.asked] == [2, 2]
    assert row.metrics["dropped_uniform_group"] == 4.0
    assert len(run.learner.weights) == 4
    # All four groups of two answers of two tokens were sampled, whatever they taught.
    assert row.metrics["sampled_tokens"] == 16.0


def too_old(make_run, algorithm):
    """The first group gets its rewards three iterations late."""
    run = make_run(
        algorithm=algorithm,
        iterations=4,
        max_policy_age=1,
        feedback_timeout_seconds=2,
        judge=lambda c: SILENT if c.group_id == "g0" and run.publisher.serving < 3 else first_is_best(c),
    )
    return run, run.finish()


def test_policy_gradient_groups_that_are_too_old_are_dropped_and_counted(make_run):
    run, rows = too_old(make_run, "grpo")
    assert [r.metrics.get("dropped_policy_age", 0.0) for r in rows] == [0.0, 0.0, 0.0, 2.0]
    assert not {"g0/0", "g0/1"} & set(run.learner.weights)
    # Dropped is consumed: it is not met again.
    assert len(run.ledger.consumed(RUN)) == len(run.feedback.events)


def test_pairs_are_used_at_any_age(make_run):
    run, rows = too_old(make_run, "online_dpo")
    assert all("dropped_policy_age" not in r.metrics for r in rows)
    assert {"g0/0", "g0/1"} <= set(run.learner.weights)


def test_what_people_said_makes_the_preference(make_run):
    run = make_run(algorithm="online_dpo", labeler="people", iterations=1, feedback_timeout_seconds=5)
    stream = run.feedback.stream

    def labelled(run_id, cursor, idle_seconds):
        tasks = [e.task for e in run.feedback.events if e.task is not None]
        known = {e.label.task_id for e in run.feedback.events if e.label is not None}
        for task, outcome in zip(tasks, (Outcome.SECOND, Outcome.TIE), strict=False):
            if task.task_id not in known:
                run.feedback.answer(task, outcome)
        yield from stream(run_id, cursor, idle_seconds)

    run.feedback.stream = labelled
    (row,) = run.finish()
    assert run.learner.weights == ["g0/1", "g0/0"], "the chosen one comes first"
    assert row.metrics["dropped_tied_pair"] == 2.0
    assert len(run.ledger.consumed(RUN)) == 8  # two groups, two tasks, two labels, two preferences


def test_an_iteration_whose_labels_do_not_come_goes_on_without_them(make_run):
    run = make_run(iterations=1, judge=lambda c: SILENT if c.group_id == "g0" else first_is_best(c))
    run.finish()
    assert run.learner.weights == ["g1/0", "g1/1"]
    assert ("waiting for feedback on 1 groups", True) in run.statuses
    # The silent group is neither consumed nor behind the cursor from which a resumed run reads.
    assert run.ledger.get(RUN).progress.cursor == 0
    assert "e1" not in run.ledger.consumed(RUN)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["sample", "record", "stream", "score", "versions", "load", "promote"])
def test_the_loop_waits_for_a_process_that_is_away_says_so_and_goes_on(make_run, call, when):
    run = make_run(iterations=1)
    run.faults.planned = {(call, 1, when): AWAY, (call, 2, "before"): AWAY}
    (row,) = run.finish()
    assert row.promoted
    assert len(run.learner.weights) == 4
    assert [text for text, waiting in run.statuses if waiting and "Nobody is there." in text]
    assert len(run.feedback.groups) == 2


def test_a_run_that_waits_for_another_process_can_be_stopped(make_run):
    run = make_run()
    loop = run.loop()
    run.faults.planned = {("sample", n, "before"): AWAY for n in range(1, 1000)}
    run.control.status = lambda text, waiting: run.control.stop()
    with pytest.raises(RunStopped):
        next(loop.iterations())


def test_a_run_stops_between_iterations_and_resumes_where_it_was(make_run):
    run = make_run()
    iterations = run.loop().iterations()
    next(iterations)
    run.control.stop()
    with pytest.raises(RunStopped):
        next(iterations)
    assert run.ledger.get(RUN).progress.iteration == 1
    assert [r.iteration for r in run.finish()] == [2, 3]
    assert len(run.learner.weights) == len(set(run.learner.weights)) == 12


def test_a_paused_run_holds_until_it_is_resumed(make_run):
    run = make_run(iterations=2)
    loop, rows = run.loop(), []
    iterations = loop.iterations()
    rows.append(next(iterations))
    run.control.pause()
    worker = threading.Thread(target=lambda: rows.extend(iterations), daemon=True)
    worker.start()
    worker.join(0.1)
    assert worker.is_alive()
    assert len(rows) == 1
    run.control.resume()
    worker.join(20)
    assert [r.iteration for r in rows] == [1, 2]


def test_a_paused_run_can_be_stopped(make_run):
    run = make_run()
    iterations = run.loop().iterations()
    next(iterations)
    run.control.pause()
    run.control.stop()
    with pytest.raises(RunStopped):
        next(iterations)


def forgetful(run, times):
    """Inference restarts `times` times between a load and the judging of what was loaded."""
    load = run.publisher.load

    def loses(version, digest):
        nonlocal times
        policy = load(version, digest)
        if times:
            times -= 1
            run.publisher.restart()
        return policy

    run.publisher.load = loses


def test_a_candidate_that_inference_lost_before_its_promotion_is_loaded_and_proved_again(make_run):
    run = make_run(iterations=1)
    forgetful(run, 2)
    (row,) = run.finish()
    assert run.publisher.history == ["load 1", "load 1", "load 1", "promote 1"]
    assert (row.promoted, row.policy_version) == (True, 1)


def test_a_candidate_that_is_lost_every_time_ends_the_run_with_the_reason(make_run):
    run = make_run(iterations=1)
    forgetful(run, 3)
    with pytest.raises(WrongState, match="not loaded"):
        run.finish()
    assert run.publisher.serving == 0


def test_a_version_number_is_never_used_twice_even_when_inference_knows_more_than_the_disk(make_run):
    run = make_run(iterations=1)
    run.publisher.known = {0, 7}
    (row,) = run.finish()
    assert row.policy_version == 8


def test_what_an_adaptive_sampler_remembers_is_saved_with_the_checkpoint(make_run):
    """Prompt p0 always goes half right, the others all wrong: once seen, the others are held back."""

    def judge(completion) -> float:
        return 1.0 if completion.prompt_id == "p0" and completion.text == "0" else 0.0

    run = make_run(prompt_sampling={"name": "reward_filter"}, judge=judge, prompts=3, iterations=4)
    rows = run.loop().iterations()
    for _ in range(2):
        next(rows)
    progress = run.ledger.get(RUN).progress
    assert {name: seen.reward for name, seen in progress.seen.items()} == {"p0": 0.5, "p1": 0.0, "p2": 0.0}
    assert progress.seen["p0"].spread == 0.5
    assert progress.seen["p0"].entropy == 0.5
    # Another process goes on from there: p0 first, and only then those held back longest.
    next(run.loop().iterations())
    assert run.generator.asked[-1][0] == "p0"


def test_a_sampler_that_remembers_nothing_saves_nothing(make_run):
    run = make_run(iterations=1)
    run.finish()
    assert run.ledger.get(RUN).progress.seen == {}


def test_a_groups_completions_follow_the_samplers_draws(make_run):
    """ReMax: a sample and the greedy answer; XPO would ask the base. One group, in that order, rewards for both."""
    run = make_run(
        algorithm="remax", response_sampling={}, kl={"beta": 0.0}, iterations=1, judge=lambda c: float(len(c.group_id))
    )
    run.finish()
    for group in run.feedback.groups:
        assert [c.temperature for c in group.completions] == [1.0, 0.0]
        assert {c.group_id for c in group.completions} == {group.group_id}


def test_a_run_that_plays_against_its_reference_keeps_the_age_of_its_own_answers(make_run):
    """XPO and A*-PO draw from the base, which is version 0 for ever: that makes no group too old."""
    for algorithm in ("astar_po",):
        run = make_run(
            algorithm=algorithm,
            response_sampling={"size": 1},
            iterations=4,
            max_policy_age=1,
            judge=lambda c: float(c.policy_version > 0),
        )
        rows = run.finish()
        assert [g.completions[1].policy_version for g in run.feedback.groups] == [0] * 8
        assert "dropped_policy_age" not in {name for row in rows for name in row.metrics}
        assert rows[-1].train_reward == 1.0  # the base's own answers, all of reward 0, are not counted


def test_earlier_groups_are_trained_on_once_more_up_to_their_age(make_run):
    run = make_run(iterations=4, replay={"groups": 1, "max_age": 1})
    run.finish()
    counts = {g.group_id: run.learner.weights.count(g.completions[0].completion_id) for g in run.feedback.groups}
    assert sum(counts.values()) == 8 + 3  # eight fresh groups, and one old one in each iteration but the first
    # Versions 0 and 1 may be replayed while version 1 is trained on top of them, and so on; nothing older.
    assert run.ledger.consumed(RUN) == [e.event_id for e in run.feedback.events]  # replaying consumes nothing twice
    assert len(set(run.ledger.consumed(RUN))) == len(run.feedback.events)


def test_a_resumed_run_replays_what_the_uninterrupted_one_would_have(make_run, tmp_path):
    whole = make_run(iterations=3, replay={"groups": 2, "max_age": 5})
    rows = whole.loop().iterations()
    next(rows)
    next(rows)
    loop = whole.loop()  # another process goes on from the checkpoint
    next(loop.iterations())
    old = [c for c in whole.learner.weights if whole.learner.weights.count(c) > 1]
    assert len(set(old)) >= 4
    assert [g.group_id for g in loop.source._intake._memory][:4] == [g.group_id for g in whole.feedback.groups][:4]


def test_only_the_pair_that_is_worth_a_label_is_recorded(make_run):
    """APL by the policy's own log-ratios (the fake's: the text as a number), a duel by two judges' scores."""
    run = make_run(algorithm="apl", prompt_sampling={"name": "uniform"}, response_sampling={"size": 4}, iterations=1)
    run.finish()
    assert [[c.text for c in g.completions] for g in run.feedback.groups] == [["0", "3"]] * 2
    assert {c.rpartition("/")[2] for c in run.learner.weights} == {"0", "3"}


def test_a_duel_asks_its_judges_and_records_two_answers(make_run):
    duel = {"name": "dueling", "size": 4, "ensemble": "one, two"}
    run = make_run(algorithm="online_dpo", response_sampling=duel, iterations=1)
    run.finish()
    assert {"one", "two"} <= set(run.labeler.asked)
    assert [len(g.completions) for g in run.feedback.groups] == [2, 2]


def test_a_rival_from_the_mixture_is_drawn_by_the_learner_at_the_version_that_serves(make_run):
    run = make_run(algorithm="nash_md", response_sampling={}, iterations=2)
    run.finish()
    assert [[c.text for c in g.completions] for g in run.feedback.groups] == [["0", "rival"]] * 4
    assert [g.completions[1].policy_version for g in run.feedback.groups] == [0, 0, 1, 1]
    assert all(g.completions[1].group_id == g.group_id for g in run.feedback.groups)


def test_an_answer_that_knew_the_hint_is_learned_under_the_prompt_without_it(make_run):
    run = make_run(algorithm="star", response_sampling={"size": 1}, iterations=1)
    asked: list[str] = []
    sample = run.generator.sample

    def tells(prompts, n, settings, policy="serving"):
        asked.extend(p.text for p in prompts)
        answers = sample(prompts, n, settings, policy)
        pairs = zip(prompts, answers, strict=True)
        return [[replace(c, prompt_token_ids=tuple(p.text.encode())) for c in group] for p, group in pairs]

    run.generator.sample = tells
    told = replace(prompt(0), reference_answer="42")
    run.ledger._db.execute("UPDATE runs SET examples = ?", (_dump([Example(told)]),))
    run.finish()
    assert any("The answer is 42." in text for text in asked)
    (recorded,) = run.feedback.groups
    plain, hinted = recorded.completions
    assert plain.prompt_token_ids == hinted.prompt_token_ids == tuple(b"Question 0?")
    assert recorded.prompt == told


def test_a_run_beside_what_serves_moves_its_own_version_alone(make_run):
    run = make_run(beside=True)
    rows = run.finish()
    assert [r.promoted for r in rows] == [True, True, True]
    assert (run.publisher.serving, run.publisher.run_heads) == (0, {RUN: 3})
    assert [g.completions[0].policy_version for g in run.feedback.groups] == [0, 0, 1, 1, 2, 2]
    assert "promote 3" not in run.publisher.history


def test_a_run_beside_does_not_mind_what_serves_nor_a_canary(make_run):
    run = make_run(beside=True)
    run.publisher.serving = 77
    run.publisher.known.add(77)
    run.publisher.run_heads[RUN] = 0
    run.begin = lambda: Progress(version=0)
    run.publisher.canaries[78] = (1_000_000, True)
    run.publisher.known.add(78)
    run.publisher.history.append("promote 78")
    assert [r.policy_version for r in run.finish()] == [79, 80, 81]
    assert (run.publisher.serving, run.publisher.run_heads) == (77, {RUN: 81})


def test_a_refused_candidate_of_a_run_beside_leaves_its_version(make_run):
    run = make_run(beside=True, gate={"labeler": "rule"}, iterations=2)
    run.labeler.values = [0.5, 0.9, 0.1]
    rows = run.finish()
    assert [r.promoted for r in rows] == [True, False]
    assert run.publisher.run_heads == {RUN: 1}
    assert "reject 2" in run.publisher.history


def test_a_run_beside_whose_version_somebody_retired_ends_and_says_why(make_run):
    run = make_run(beside=True)
    iterations = run.loop().iterations()
    next(iterations)
    run.publisher.run_heads.clear()
    run.publisher.resolve = lambda policy: 0
    with pytest.raises(WrongState, match="Start a new run") as stopped:
        list(iterations)
    assert stopped.value.reason == "RUN_HEAD_GONE"
