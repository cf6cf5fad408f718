"""The simulation held against real runs, and what it is asked then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from benchmarks.scale.costs import Costs
from benchmarks.scale.loop import simulate
from benchmarks.scale.plan import Outcome, Plan

TEAM = Plan(
    ahead=2, prompts=16, answers=2, tokens=64, heldout=32, labels=1, label_seconds=30.0, labelers=1, one_machine=False
)
"""Online DPO with people: 16 pairs an iteration, one comparison each. Half a minute a comparison is an assumption."""
GROW = {"engine": "replicas", "labelers": "labelers", "learner": "ranks"}
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


def grown(costs: Costs, start: Plan = TEAM, worth: float = 0.05) -> list[tuple[Plan, Outcome]]:
    """Twice as many of whatever is the bottleneck, again and again, until an iteration gains less than `worth`."""
    plan = start
    path = [(plan, simulate(plan, costs))]
    for _ in range(MOST_STEPS):
        part = GROW[path[-1][1].bottleneck]
        plan = replace(plan, **{part: 2 * getattr(plan, part)})
        path.append((plan, simulate(plan, costs)))
        if path[-1][1].seconds > (1 - worth) * path[-2][1].seconds:
            break
    return path


def curves(costs: Costs, around: Plan) -> dict[str, list[tuple[int, Outcome]]]:
    """One part after the other in other numbers, the rest as `around` has it."""
    return {
        part: [(n, simulate(replace(around, **{part: n}), costs)) for n in counts] for part, counts in CURVES.items()
    }


def told(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    counts = {part: getattr(plan, part) for part in CURVES}
    busy = {part: round(share, 2) for part, share in outcome.busy.items()}
    rounded = {"seconds": round(outcome.seconds, 1), "policy_age": round(outcome.policy_age, 2)}
    return counts | rounded | {"bottleneck": outcome.bottleneck, "busy": busy}


def settings(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in asdict(plan).items() if name not in CURVES}
