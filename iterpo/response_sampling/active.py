"""The pair of a group about which the policy itself is most decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.group import rewarded
from iterpo.response_sampling.pair import PAIRS_WITH_REWARDS, add_labelled, add_ordered
from iterpo.response_sampling.selection import Draw, Selection
from iterpo.types import Completion, Group


@dataclass(frozen=True)
class ActivePair:
    """The two answers whose implicit rewards are farthest apart: the largest |D_i - D_j| (APL, arXiv:2402.08114).

    D is the summed log-ratio of policy and base, measured by the learner when the group is complete; then labels order
    the pair. Not implemented: asking for the label of that pair alone.
    """

    name: ClassVar[str] = "active_pair"
    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS
    offline: ClassVar[bool] = False
    looks_at_log_ratios: ClassVar[bool] = True

    size: int = 4

    def __post_init__(self) -> None:
        if self.size < 2:
            raise InvalidConfig(f"A pair cannot come from {self.size} completion(s).", "Use size >= 2.")

    @property
    def draws(self) -> tuple[Draw, ...]:
        return (Draw(self.size),)

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if add_labelled(selection, group, index):
                continue
            usable = rewarded(selection, group)
            if len(usable) < 2:
                selection.dropped["no_pair"] += len(usable)
                continue
            add_ordered(selection, group, index, *self._farthest(group, usable))
        return selection

    @staticmethod
    def _farthest(group: Group, usable: list[Completion]) -> tuple[Completion, Completion]:
        def apart(pair: tuple[Completion, Completion]) -> float:
            first, second = (group.log_ratios.get(c.completion_id, 0.0) for c in pair)
            return abs(first - second)

        return max(combinations(usable, 2), key=apart)
