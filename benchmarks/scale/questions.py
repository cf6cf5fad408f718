"""The simulation held against real runs, and what it is asked then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.scale.costs import Costs
from benchmarks.scale.loop import simulate
from benchmarks.scale.plan import Outcome, Plan

TEAM = Plan(
    ahead=2,
    prompts=16,
    answers=2,
    tokens=64,
    heldout=32,
    labels=1,
    label_seconds=30.0,
    label_spread=0.5,
    labelers=1,
    iterations=200,
    one_machine=False,
)
"""Online DPO with people: 16 pairs an iteration, one comparison each. Half a minute a comparison, and its spread, are
assumptions."""
CURVES = {"replicas": (1, 2, 3, 4, 6, 8), "labelers": (1, 2, 4, 8, 12, 16, 24, 32), "ranks": (1, 2, 3, 4, 6, 8)}
MOST_STEPS = 12


def against(real: Mapping[str, Any], costs: Costs) -> list[dict[str, float]]:
    """`real`: what `benchmarks.pipeline` recorded on one machine. Each way of running it: real and simulated seconds an
    iteration, and by what part the latter is longer."""
    rows = []
    for ahead in (0, 1, 2):
        seconds = float(real[f"slow_ahead_{ahead}"]["seconds"])
        simulated = simulate(Plan(ahead=ahead), costs).seconds
        off = simulated / seconds - 1
        rows.append({"ahead": ahead, "real": seconds, "simulated": round(simulated, 1), "off": round(off, 3)})
    return rows


@dataclass(frozen=True, slots=True)
class Step:
    plan: Plan
    outcome: Outcome
    bottleneck: str
    """The part of which twice as many gain most; empty where none gains anything worth it."""


def grown(costs: Costs, start: Plan = TEAM, worth: float = 0.05) -> list[Step]:
    """Twice as many of the bottleneck, again and again, until an iteration gains less than `worth` of its time.

    The bottleneck is found by trying, not by who is busiest: parts that wait for each other may all be idle at times.
    """
    steps: list[Step] = []
    plan = start
    while len(steps) < MOST_STEPS:
        outcome = simulate(plan, costs)
        more = {part: replace(plan, **{part: 2 * getattr(plan, part)}) for part in CURVES}
        seconds = {part: simulate(each, costs).seconds for part, each in more.items()}
        best = min(seconds, key=lambda part: seconds[part])
        gains = seconds[best] <= (1 - worth) * outcome.seconds
        steps.append(Step(plan, outcome, best if gains else ""))
        if not gains:
            break
        plan = more[best]
    return steps


def curves(costs: Costs, around: Plan) -> dict[str, list[tuple[int, Outcome]]]:
    """One part after the other in other numbers, the rest as `around` has it."""
    return {
        part: [(n, simulate(replace(around, **{part: n}), costs)) for n in counts] for part, counts in CURVES.items()
    }


def told(step: Step) -> dict[str, Any]:
    plan, outcome = step.plan, step.outcome
    counts = {part: getattr(plan, part) for part in CURVES}
    busy = {part: round(share, 2) for part, share in outcome.busy.items()}
    rounded = {"seconds": round(outcome.seconds, 1), "policy_age": round(outcome.policy_age, 2)}
    return counts | rounded | {"bottleneck": step.bottleneck, "busy": busy}


def settings(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in asdict(plan).items() if name not in CURVES}
