"""Whole groups with their rewards: what policy gradients with a group baseline learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.selection import Selection, Sized
from iterpo.types import Completion, Group

TRUNCATED = ("keep", "drop")
UNIFORM = ("drop", "keep")


@dataclass(frozen=True)
class GroupSampler(Sized):
    """All completions of a prompt that have a reward.

    Groups whose rewards are all equal teach nothing and are dropped and counted, before any average is taken
    (DAPO's dynamic sampling draws more prompts in their place, see `refill`). Completions whose labeler abstained are
    left out; a group with fewer than two left has no baseline and is dropped, unless `uniform` is `keep`.
    """

    name: ClassVar[str] = "group"
    provides: ClassVar[frozenset[str]] = frozenset({"completions", "rewards"})
    least: ClassVar[int] = 1

    truncated: str = "keep"
    """`keep` trains on completions cut at the token limit, with whatever reward they got; `drop` leaves them out."""
    uniform: str = "drop"
    """`keep` trains on groups of equal rewards and on groups of one: for methods whose baseline is not the group's."""
    refill: int = 0
    """DAPO: how many times an iteration may draw new prompts to replace groups that teach nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            (self.size == 1 and self.uniform == "drop")
            or self.refill < 0
            or self.truncated not in TRUNCATED
            or self.uniform not in UNIFORM
        ):
            raise InvalidConfig(
                f"Out of range: {self}.",
                "Use size >= 2 (1 with uniform = keep), refill >= 0, truncated = keep | drop, uniform = drop | keep.",
            )

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            usable = rewarded(selection, group)
            if self.truncated == "drop":
                kept = [c for c in usable if not c.truncated]
                selection.dropped["truncated"] += len(usable) - len(kept)
                usable = kept
            rewards = {group.rewards[c.completion_id] for c in usable}
            if len(rewards) < 2 and self.uniform == "drop":
                selection.dropped["uniform_group"] += len(usable)
                continue
            for completion in usable:
                selection.add(completion, group.rewards[completion.completion_id], index)
        return selection


def rewarded(selection: Selection, group: Group) -> list[Completion]:
    """The completions that have a reward; those whose labeler abstained are counted."""
    usable = [c for c in group.completions if c.completion_id in group.rewards]
    selection.dropped["abstained"] += len(group.completions) - len(usable)
    return usable
