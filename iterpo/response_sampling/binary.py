"""Answers that are good or bad by themselves: what KTO learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.response_sampling.group import rewarded
from iterpo.response_sampling.selection import Selection, Sized
from iterpo.types import Group


@dataclass(frozen=True)
class Binary(Sized):
    """Every rewarded answer, desirable above `threshold` and undesirable otherwise; `relative` compares with the
    group's mean instead, and leaves out answers that equal it. Where people compared, an answer is desirable when it
    wins more than half of its comparisons and undesirable when it wins less; both answers of a pair that was found bad
    on both sides win nothing."""

    name: ClassVar[str] = "binary"
    provides: ClassVar[frozenset[str]] = frozenset({"completions", "rewards", "roles"})
    least: ClassVar[int] = 1

    size: int = 4
    threshold: float = 0.5
    relative: bool = False

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            usable = rewarded(selection, group)
            rewards = [group.rewards[c.completion_id] for c in usable]
            line = self._line(group, rewards)
            for completion, reward in zip(usable, rewards, strict=True):
                if reward == line and (self.relative or group.preferences):
                    selection.dropped["average"] += 1
                    continue
                selection.add(completion, reward, index, role=1 if reward > line else -1)
        return selection

    def _line(self, group: Group, rewards: Sequence[float]) -> float:
        if group.preferences:
            return 0.5
        return sum(rewards) / max(1, len(rewards)) if self.relative else self.threshold
