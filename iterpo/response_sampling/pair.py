"""Pairs from a group: by rewards, or by what people said."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.selection import Selection
from iterpo.types import Completion, Group

PAIRS = frozenset({"completions", "pairs"})


def add_labelled(selection: Selection, group: Group, index: int) -> bool:
    """Add the pairs that people compared; True when there were any labels (ties included, which are dropped)."""
    by_id = {c.completion_id: c for c in group.completions}
    for preference in group.preferences:
        first, second = by_id[preference.first_id], by_id[preference.second_id]
        p = preference.p_first_wins
        if p == 0.5:
            selection.dropped["tied_pair"] += 2
        elif p > 0.5:
            selection.add_pair(first, second, index, p, preference.weight)
        else:
            selection.add_pair(second, first, index, 1 - p, preference.weight)
    return bool(group.preferences)


def rewarded(selection: Selection, group: Group) -> list[Completion]:
    """The completions that have a reward; those whose labeler abstained are counted."""
    usable = [c for c in group.completions if c.completion_id in group.rewards]
    selection.dropped["abstained"] += len(group.completions) - len(usable)
    return usable


def add_ordered(selection: Selection, group: Group, index: int, a: Completion, b: Completion) -> None:
    """Add a pair in the order of its rewards; equal rewards are dropped and counted."""
    reward_a, reward_b = group.rewards[a.completion_id], group.rewards[b.completion_id]
    if reward_a == reward_b:
        selection.dropped["tied_pair"] += 2
        return
    chosen, rejected = (a, b) if reward_a > reward_b else (b, a)
    selection.add_pair(chosen, rejected, index, 1.0, 1.0)


@dataclass(frozen=True)
class BestWorst:
    """The highest- against the lowest-rewarded completion of each group (Online-RLHF's max_min, ties dropped)."""

    name: ClassVar[str] = "best_worst"
    provides: ClassVar[frozenset[str]] = PAIRS
    offline: ClassVar[bool] = False

    size: int = 8

    def __post_init__(self) -> None:
        if self.size < 2:
            raise InvalidConfig(f"A pair cannot come from {self.size} completion(s).", "Use size >= 2.")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if add_labelled(selection, group, index):
                continue
            usable = rewarded(selection, group)
            if len(usable) < 2:
                selection.dropped["no_pair"] += len(usable)
                continue
            best = max(usable, key=lambda c: group.rewards[c.completion_id])
            worst = min(usable, key=lambda c: group.rewards[c.completion_id])
            add_ordered(selection, group, index, best, worst)
        return selection


@dataclass(frozen=True)
class RandomPair:
    """Disjoint random pairs of each group; a group of two is the pair of OAIF (arXiv:2402.04792)."""

    name: ClassVar[str] = "random_pair"
    provides: ClassVar[frozenset[str]] = PAIRS
    offline: ClassVar[bool] = False

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 2:
            raise InvalidConfig(f"A pair cannot come from {self.size} completion(s).", "Use size >= 2.")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if add_labelled(selection, group, index):
                continue
            usable = rewarded(selection, group)
            random.Random(f"{seed}/{group.group_id}").shuffle(usable)
            selection.dropped["no_pair"] += len(usable) % 2
            for a, b in zip(usable[0::2], usable[1::2], strict=False):
                add_ordered(selection, group, index, a, b)
        return selection
