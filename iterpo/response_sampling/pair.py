"""Pairs from a group: by rewards, or by what people said."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.group import rewarded
from iterpo.response_sampling.order import MOST, pairwise_posterior
from iterpo.response_sampling.selection import Draw, Selection, Sized
from iterpo.types import Completion, Group

PAIRS = frozenset({"completions", "pairs", "roles"})
PAIRS_WITH_REWARDS = PAIRS | {"rewards"}
RIVALS = ("worst", "random", "second")
UNDECIDED = 1e-9
"""What differs by less than this differs by rounding."""


def add_labelled(selection: Selection, group: Group, index: int, rivals: Collection[str] = ()) -> bool:
    """Add the pairs that people compared; True when there were any labels (ties included, which are dropped). `rivals`
    are ids of completions that the reference drew."""
    by_id = {c.completion_id: c for c in group.completions}
    for preference in group.preferences:
        first, second = by_id[preference.first_id], by_id[preference.second_id]
        p = preference.p_first_wins
        if p == 0.5:
            selection.dropped["tied_pair"] += 2
            continue
        pair, p_chosen = ((first, second), p) if p > 0.5 else ((second, first), 1 - p)
        origin = (pair[0].completion_id in rivals, pair[1].completion_id in rivals)
        strength = preference.strength
        selection.add_pair(*pair, index, p_chosen, preference.weight, strength, from_reference=origin)
    return bool(group.preferences)


def ranked(group: Group) -> bool:
    """Whether people compared every answer more than once, so that their comparisons order the answers."""
    times = Counter(name for p in group.preferences for name in (p.first_id, p.second_id))
    return bool(times) and all(times[c.completion_id] > 1 for c in group.completions)


def add_ordered(
    selection: Selection,
    group: Group,
    index: int,
    a: Completion,
    b: Completion,
    from_reference: tuple[bool, bool] = (False, False),
) -> None:
    """Add a pair in the order of its rewards; equal rewards are dropped and counted. The strength of the preference is
    the difference of the rewards."""
    reward_a, reward_b = group.rewards[a.completion_id], group.rewards[b.completion_id]
    if reward_a == reward_b:
        selection.dropped["tied_pair"] += 2
        return
    pair, rewards, origin = (a, b), (reward_a, reward_b), from_reference
    if reward_b > reward_a:
        pair, rewards, origin = (b, a), (reward_b, reward_a), (from_reference[1], from_reference[0])
    strength = rewards[0] - rewards[1]
    selection.add_pair(*pair, index, strength=strength, rewards=rewards, from_reference=origin)


@dataclass(frozen=True)
class BestWorst(Sized):
    """The highest-rewarded completion of each group against another one (Online-RLHF, ties dropped).

    `rival`: `worst` (max_min), `random` (max_random) or `second` (max_max). `length_penalty` is taken off the reward
    for every token before answers are compared (max_min_p). A pair whose rewards differ by less than `min_margin` is
    dropped and counted: DNO learns from large margins only (arXiv:2404.03715).

    What people compared is used pair by pair. Where every answer was compared more than once (`labeling.pairs` ring or
    all), all comparisons of a group together order its answers (iterpo/response_sampling/order.py): an answer's reward
    is the share of the others that it is expected to be better than, the best meets the worst as above, and how sure
    the preference is follows from the posterior over orders. Of more than twelve answers, the six that won the largest
    share of their comparisons and the six that won the smallest are ordered.
    """

    name: ClassVar[str] = "best_worst"
    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS

    rival: str = "worst"
    length_penalty: float = 0.0
    min_margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rival not in RIVALS or self.length_penalty < 0 or self.min_margin < 0:
            raise InvalidConfig(
                f"Out of range: {self}.",
                f"Use rival = {' | '.join(RIVALS)}, length_penalty and min_margin >= 0.",
            )

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            draw = random.Random(f"{seed}/{group.group_id}")
            if ranked(group):
                self._add_from_people(selection, group, index, draw)
                continue
            if add_labelled(selection, group, index):
                continue
            usable = rewarded(selection, group)
            if len(usable) < 2:
                selection.dropped["no_pair"] += len(usable)
                continue
            scores = {c.completion_id: self._score(group.rewards[c.completion_id], c) for c in usable}
            best, rival = self._pick(usable, scores, draw)
            if 0 < scores[best.completion_id] - scores[rival.completion_id] < self.min_margin:
                selection.dropped["small_margin"] += 2
                continue
            add_ordered(selection, replace(group, rewards=scores), index, best, rival)
        return selection

    def _add_from_people(self, selection: Selection, group: Group, index: int, draw: random.Random) -> None:
        usable = sorted(group.completions, key=lambda c: -group.rewards.get(c.completion_id, 0.5))
        usable = usable[: MOST // 2] + usable[MOST // 2 :][-MOST // 2 :]
        better = pairwise_posterior([c.completion_id for c in usable], group.preferences)
        places = {name: sum(others.values()) / len(others) for name, others in better.items()}
        scores = {c.completion_id: self._score(places[c.completion_id], c) for c in usable}
        best, rival = self._pick(usable, scores, draw)
        p = better[best.completion_id][rival.completion_id]
        margin = scores[best.completion_id] - scores[rival.completion_id]
        if min(margin, abs(p - 0.5)) < UNDECIDED:
            selection.dropped["tied_pair"] += 2
        elif margin < self.min_margin:
            selection.dropped["small_margin"] += 2
        else:
            # With a length penalty the scores say which is better, the comparisons how sure that is.
            pair = (best, rival) if p > 0.5 or self.length_penalty else (rival, best)
            selection.add_pair(*pair, index, max(p, 1 - p))

    def _score(self, reward: float, completion: Completion) -> float:
        return reward - self.length_penalty * len(completion.token_ids)

    def _pick(
        self, usable: list[Completion], scores: Mapping[str, float], draw: random.Random
    ) -> tuple[Completion, Completion]:
        ranked = sorted(usable, key=lambda c: -scores[c.completion_id])
        rivals = {"worst": ranked[-1], "second": ranked[1], "random": draw.choice(ranked[1:])}
        return ranked[0], rivals[self.rival]


@dataclass(frozen=True)
class RandomPair(Sized):
    """Disjoint random pairs of each group; a group of two is the pair of OAIF (arXiv:2402.04792)."""

    name: ClassVar[str] = "random_pair"
    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS

    size: int = 2

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


@dataclass(frozen=True)
class RightWrong(Sized):
    """Right against wrong answers, as many pairs as there are of the rarer kind (Iterative RPO, arXiv:2404.19733).

    Right is a reward above `threshold`. Answers left without a partner are counted.
    """

    name: ClassVar[str] = "right_wrong"
    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS

    threshold: float = 0.5

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if add_labelled(selection, group, index):
                continue
            usable = rewarded(selection, group)
            random.Random(f"{seed}/{group.group_id}").shuffle(usable)
            right = [c for c in usable if group.rewards[c.completion_id] > self.threshold]
            wrong = [c for c in usable if group.rewards[c.completion_id] <= self.threshold]
            selection.dropped["no_pair"] += abs(len(right) - len(wrong))
            for good, bad in zip(right, wrong, strict=False):
                add_ordered(selection, group, index, good, bad)
        return selection


@dataclass(frozen=True)
class OneFromEach:
    """One answer of the policy against one of the reference, which is the base (XPO, arXiv:2405.21046)."""

    name: ClassVar[str] = "one_from_each"
    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS | {"origins"}
    offline: ClassVar[bool] = False

    @property
    def draws(self) -> tuple[Draw, ...]:
        return Draw(1), Draw(1, "base")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if add_labelled(selection, group, index, rivals=[c.completion_id for c in group.completions[1:]]):
                continue
            usable = rewarded(selection, group)
            if len(usable) < 2:
                selection.dropped["no_pair"] += len(usable)
                continue
            own, rival = usable
            add_ordered(selection, group, index, own, rival, from_reference=(False, True))
        return selection


@dataclass(frozen=True)
class GeometricRival(OneFromEach):
    """One answer of the policy against one of the geometric mixture of policy and base (Nash-MD, arXiv:2312.00886).

    The mixture is taken token by token, `share` being the base's exponent (published 0.5); the learner draws it.
    """

    name: ClassVar[str] = "geometric_rival"

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidConfig(f"Out of range: {self}.", "Use 0 <= share <= 1.")

    @property
    def draws(self) -> tuple[Draw, ...]:
        return Draw(1), Draw(1, "mixture", share=self.share)


@dataclass(frozen=True)
class Mixture(Sized):
    """Groups drawn partly from the policy and partly from the reference, then disjoint random pairs of them all.

    `share` of the `size` answers, rounded, come from the base.
    """

    name: ClassVar[str] = "mixture"
    provides: ClassVar[frozenset[str]] = PAIRS_WITH_REWARDS | {"origins"}

    size: int = 4
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1 or not 0 < self._reference < self.size:
            raise InvalidConfig(
                f"Out of range: {self}.", "Use size >= 2 and a share that leaves answers on both sides."
            )

    @property
    def _reference(self) -> int:
        return round(self.share * self.size)

    @property
    def draws(self) -> tuple[Draw, ...]:
        return Draw(self.size - self._reference), Draw(self._reference, "base")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            own = {c.completion_id for c in group.completions[: self.size - self._reference]}
            if add_labelled(selection, group, index, {c.completion_id for c in group.completions} - own):
                continue
            usable = rewarded(selection, group)
            random.Random(f"{seed}/{group.group_id}").shuffle(usable)
            selection.dropped["no_pair"] += len(usable) % 2
            for a, b in zip(usable[0::2], usable[1::2], strict=False):
                origin = a.completion_id not in own, b.completion_id not in own
                add_ordered(selection, group, index, a, b, origin)
        return selection
