"""Which completions of a group people are asked to compare."""

from __future__ import annotations

import uuid

from iterpo.errors import InvalidInput
from iterpo.types import Completion, Group, Task

MAX_REQUIRED_LABELS = 1000


def disjoint_pairs(group: Group) -> list[tuple[Completion, Completion]]:
    """First with second, third with fourth, and so on; the last of an odd number is compared with nobody.

    Raises InvalidInput GROUP_TOO_SMALL for a group of one.
    """
    if len(group.completions) < 2:
        raise InvalidInput(
            f"Group {group.group_id!r} has one completion; people compare two.",
            "Sample at least 2 completions a prompt for the labeler `people`.",
            "GROUP_TOO_SMALL",
        )
    ordered = group.completions
    return [(ordered[index], ordered[index + 1]) for index in range(0, len(ordered) - 1, 2)]


def comparison_tasks(run_id: str, group: Group, guideline: str = "", required_labels: int = 1) -> list[Task]:
    """One task a disjoint pair, with fresh task ids."""
    return [
        Task(uuid.uuid4().hex, run_id, group.group_id, group.prompt, first, second, guideline, required_labels)
        for first, second in disjoint_pairs(group)
    ]
