"""The simulated loop (benchmarks/scale): its sums by hand, its laws, and that a wrong cost is found out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale.cores import Cores
from benchmarks.scale.costs import Costs
from benchmarks.scale.loop import simulate
from benchmarks.scale.plan import Plan
from benchmarks.scale.questions import against, grown

COSTS = Costs(
    call=1.0,
    prompt=0.0,
    step=0.1,
    sequence=0.01,
    update=2.0,
    trained_token=0.01,
    load=3.0,
    judged_answer=0.5,
    settle=1.0,
)
PLAN = Plan(prompts=2, answers=2, tokens=10, heldout=4, labels=2, label_seconds=5.0, labelers=2, iterations=8)
SAMPLING = 1.0 + 10 * (0.1 + 4 * 0.01)
LABELS = 2 * 2 * 5.0 / 2
UPDATE = 2.0 + 0.01 * 2 * 2 * 10
JUDGING = 3.0 + (1.0 + 10 * (0.1 + 4 * 0.01)) + 0.5 * 4 + 1.0


def finished(jobs: list[tuple[float, float]]) -> list[float]:
    """(begin, seconds of work) -> when each is done, on one machine."""
    clock = simpy.Environment()
    cores, ends = Cores(clock), [0.0] * len(jobs)

    def job(number: int, begin: float, work: float):
        yield clock.timeout(begin)
        yield cores.work(work)
        ends[number] = clock.now

    for number, (begin, work) in enumerate(jobs):
        clock.process(job(number, begin, work))
    clock.run()
    return ends


def test_two_that_share_a_machine_get_on_at_half_its_speed() -> None:
    assert finished([(0, 2.0)]) == [2.0]
    assert finished([(0, 1.0), (0, 1.0)]) == pytest.approx([2.0, 2.0])
    assert finished([(0, 2.0), (1, 0.5)]) == pytest.approx([2.5, 2.0])  # alone for 1 s, shared for 1 s, alone again


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_no_work_is_lost_or_made_by_sharing(jobs: list[tuple[float, float]]) -> None:
    """A machine that is never idle while there is work ends as one that does the jobs one after the other."""
    now = 0.0
    for begin, work in sorted(jobs):
        now = max(now, begin) + work
    assert max(finished(jobs)) == pytest.approx(now)


def test_one_thing_after_the_other_takes_the_sum_of_its_parts() -> None:
    assert simulate(PLAN, COSTS).seconds == pytest.approx(SAMPLING + LABELS + UPDATE + JUDGING)


def test_far_enough_ahead_only_the_slowest_part_counts() -> None:
    many = replace(PLAN, ahead=3, iterations=40, one_machine=False)
    labels = simulate(many, COSTS)
    assert labels.seconds == pytest.approx(LABELS, rel=0.02)
    assert labels.busy["labelers"] == pytest.approx(1.0, abs=0.02)
    crowd = simulate(replace(many, labelers=1000, label_seconds=0.0), COSTS)
    assert JUDGING <= crowd.seconds <= JUDGING + SAMPLING  # the next answers share the engine with the gate's


def test_answers_are_as_many_versions_old_as_the_run_is_ahead() -> None:
    ages = [simulate(replace(PLAN, ahead=ahead, iterations=60), COSTS).policy_age for ahead in (0, 1, 2)]
    assert ages == pytest.approx([0.0, 1.0, 2.0], abs=0.2)


def test_gradients_are_added_up_in_a_ring() -> None:
    """Two ranks send half of them twice: as many bytes as there are. One rank sends none."""
    one, two = (COSTS.update_of(100, ranks, 4e9, 1e9) for ranks in (1, 2))
    assert one == pytest.approx(2.0 + 1.0)
    assert two == pytest.approx(2.0 + 0.5 + 4.0)


@given(
    ahead=st.integers(0, 3),
    replicas=st.integers(1, 4),
    labelers=st.integers(1, 9),
    ranks=st.integers(1, 4),
    one_machine=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_nobody_works_more_than_all_of_his_time(**counts: int) -> None:
    plan = replace(PLAN, **counts)
    found = simulate(plan, COSTS)
    assert all(0 < share <= 1 + 1e-9 for share in found.busy.values())


def test_growing_stops_where_it_gains_nothing() -> None:
    path = grown(COSTS)
    assert all(after.outcome.seconds <= 0.95 * before.outcome.seconds for before, after in pairwise(path))
    assert [step.bottleneck for step in path][:3] == ["labelers"] * 3  # sixteen pairs of half a minute, one person
    assert path[-1].bottleneck == ""


def test_a_plan_with_nobody_to_do_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="needs one at least"):
        simulate(replace(PLAN, labelers=0), COSTS)


def test_a_cost_that_is_wrong_shows_against_real_runs() -> None:
    plans = {f"slow_ahead_{ahead}": {"seconds": simulate(Plan(ahead=ahead), COSTS).seconds} for ahead in (0, 1, 2)}
    assert all(abs(row["off"]) < 0.01 for row in against(plans, COSTS))
    assert any(abs(row["off"]) > 0.1 for row in against(plans, replace(COSTS, judged_answer=1.5)))
