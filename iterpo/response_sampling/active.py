"""Many answers, one pair: which two of a group are worth a label. The choice is made before anybody is asked, so the
labels of the others are saved; `narrow` makes it, from evidence that costs no label.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar, Protocol, runtime_checkable

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.group import rewarded
from iterpo.response_sampling.pair import PAIRS_WITH_REWARDS, add_labelled, add_ordered
from iterpo.response_sampling.selection import Selection, Sized
from iterpo.types import Completion, Group

Evidence = Mapping[str, Sequence[float]]
"""completion_id -> numbers: one log-ratio, or one score a judge."""


@runtime_checkable
class Narrowing(Protocol):
    """A response sampler that has only some of the drawn answers labelled."""

    @property
    def judges(self) -> tuple[str, ...]:
        """Labelers whose scores are the evidence; none: the policy's own log-ratios to the base."""
        ...

    def narrow(self, group: Group, evidence: Evidence, seed: int) -> Group:
        """The group with the answers that are worth a label."""
        ...


@dataclass(frozen=True)
class _OnePair(Sized):
    """What is left of a group is its pair; labels or rewards order it."""

    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS

    size: int = 4

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if add_labelled(selection, group, index):
                continue
            usable = rewarded(selection, group)
            if len(usable) != 2:
                selection.dropped["no_pair"] += len(usable)
                continue
            add_ordered(selection, group, index, usable[0], usable[1])
        return selection


@dataclass(frozen=True)
class ActivePair(_OnePair):
    """The two answers whose implicit rewards are farthest apart: the largest |D_i - D_j| (APL, arXiv:2402.08114).

    D is the summed log-ratio of policy and base, measured by the learner.
    """

    name: ClassVar[str] = "active_pair"

    @property
    def judges(self) -> tuple[str, ...]:
        return ()

    def narrow(self, group: Group, evidence: Evidence, seed: int) -> Group:
        def apart(pair: tuple[Completion, ...]) -> float:
            first, second = (evidence[c.completion_id][0] for c in pair)
            return abs(first - second)

        return replace(group, completions=max(combinations(group.completions, 2), key=apart))


@dataclass(frozen=True)
class Dueling(_OnePair):
    """The favourites of two judges drawn at random: double Thompson sampling over an ensemble of reward models
    (arXiv:2411.01493), which puts labels where the models disagree.

    `ensemble` names labelers, separated by commas. Up to `tries` draws look for two different favourites; another
    answer at random stands in when all judges agree.
    """

    name: ClassVar[str] = "dueling"

    size: int = 8
    ensemble: str = ""
    tries: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tries < 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use tries >= 1.")

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.ensemble.split(",") if name.strip())

    def narrow(self, group: Group, evidence: Evidence, seed: int) -> Group:
        draw = random.Random(f"{seed}/{group.group_id}")

        def favourite() -> Completion:
            judge = draw.randrange(len(self.judges))
            return max(group.completions, key=lambda c: evidence[c.completion_id][judge])

        first = favourite()
        others = (favourite() for _ in range(self.tries))
        rest = [c for c in group.completions if c is not first]
        second = next((c for c in others if c is not first), draw.choice(rest))
        return replace(group, completions=(first, second))
