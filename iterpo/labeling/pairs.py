"""Which completions of a group people are asked to compare, and how many people each pair needs."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from iterpo.errors import InvalidInput
from iterpo.types import Completion, Group, Task, TaskKind

MAX_REQUIRED_LABELS = 1000
IMPLICIT_BETA = 0.1
"""DPO's published beta: the policy's implicit reward is beta times its log-ratio to the base (arXiv:2305.18290)."""

Pairing = Callable[[Sequence[Completion]], list[tuple[Completion, Completion]]]


def disjoint(ordered: Sequence[Completion]) -> list[tuple[Completion, Completion]]:
    """First with second, third with fourth, and so on; the last of an odd number is compared with nobody."""
    return [(ordered[index], ordered[index + 1]) for index in range(0, len(ordered) - 1, 2)]


def ring(ordered: Sequence[Completion]) -> list[tuple[Completion, Completion]]:
    """Each with the next, the last with the first: every completion is compared twice."""
    if len(ordered) == 2:
        return [(ordered[0], ordered[1])]
    return [(completion, ordered[(index + 1) % len(ordered)]) for index, completion in enumerate(ordered)]


def every(ordered: Sequence[Completion]) -> list[tuple[Completion, Completion]]:
    """Each with each."""
    return list(combinations(ordered, 2))


PAIRINGS: Mapping[str, Pairing] = {"disjoint": disjoint, "ring": ring, "all": every}


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """How a run's groups become tasks."""

    required_labels: float = 1.0
    pairs: str = "disjoint"
    guideline: str = ""
    language: str = ""


def comparison_tasks(
    run_id: str,
    group: Group,
    plan: TaskPlan | None = None,
    only_for: str = "",
    implicit_rewards: Mapping[str, float] | None = None,
) -> list[Task]:
    """One task a pair, with fresh task ids; a machine's own (`only_for`) need its one label.

    `implicit_rewards`: completion_id -> summed log-ratio of the policy to the base, nats. Raises InvalidInput
    GROUP_TOO_SMALL for a group of one.
    """
    plan = plan or TaskPlan()
    if len(group.completions) < 2:
        raise InvalidInput(
            f"Group {group.group_id!r} has one completion; people compare two.",
            "Sample at least 2 completions a prompt for the labeler `people`.",
            "GROUP_TOO_SMALL",
        )
    tasks = []
    for first, second in PAIRINGS[plan.pairs](group.completions):
        task_id = uuid.uuid4().hex
        p_policy = policy_prefers(first, second, implicit_rewards or {})
        task = Task(
            task_id,
            run_id,
            group.group_id,
            group.prompt,
            first,
            second,
            plan.guideline,
            1 if only_for else whole_labels(plan.required_labels, task_id),
            TaskKind.COMPARISON,
            only_for=only_for,
            language=plan.language,
            uncertainty=1.0 if p_policy is None else unsureness(p_policy),
            p_policy=p_policy,
        )
        tasks.append(task)
    return tasks


def policy_prefers(first: Completion, second: Completion, implicit_rewards: Mapping[str, float]) -> float | None:
    """The policy's own p_first_wins by its implicit reward; None when it was not asked, or is still the base."""
    rewards = [implicit_rewards.get(completion.completion_id) for completion in (first, second)]
    if rewards[0] is None or rewards[1] is None or rewards[0] == rewards[1] == 0:
        return None
    margin = max(-50.0, min(50.0, IMPLICIT_BETA * (rewards[0] - rewards[1])))
    return 1 / (1 + math.exp(-margin))


def unsureness(p_first_wins: float) -> float:
    """1 at a coin's toss, 0 when certain."""
    return 1 - abs(2 * p_first_wins - 1)


def whole_labels(required: float, task_id: str) -> int:
    """A fractional number of labels as a whole one, the next larger for as large a share of the tasks as the fraction
    says: 1.4 is 2 for two tasks of five. The task's id decides, so the same task always needs the same."""
    whole, fraction = int(required), required - int(required)
    lot = int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:4], "big") / 2**32
    return whole + (lot < fraction)
