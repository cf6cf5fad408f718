"""Rejection sampling: keep the good ones, imitate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.selection import Draw, Selection, Sized
from iterpo.types import Completion, Group

KEEP = ("best", "above")


@dataclass(frozen=True)
class Rejection(Sized):
    """`best` keeps the best of each group (RAFT), `above` every distinct one over `threshold` (RFT, ReST).

    Equal token sequences are kept once: RFT counts distinct answers (arXiv:2308.01825). With `rise`, every pass over an
    iteration's batch keeps only what lies above a threshold that is higher by so much (ReST's improvement steps).
    """

    name: ClassVar[str] = "rejection"
    provides: ClassVar[frozenset[str]] = frozenset({"completions"})
    least: ClassVar[int] = 1

    keep: str = "above"
    threshold: float = 0.5
    rise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep not in KEEP or self.rise < 0:
            raise InvalidConfig(f"Out of range: {self}.", "Use keep = best | above and rise >= 0.")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            kept = self._kept(group, group.completions)
            selection.dropped["rejected"] += len(group.completions) - len(kept)
            for completion in kept:
                selection.add(completion, group.rewards[completion.completion_id], index)
        if self.rise:
            selection.passes = self._passes(selection.rewards)
        return selection

    def _kept(self, group: Group, completions: Sequence[Completion]) -> list[Completion]:
        usable = {c.token_ids: c for c in completions if c.completion_id in group.rewards}
        ranked = sorted(usable.values(), key=lambda c: -group.rewards[c.completion_id])
        if self.keep == "best":
            return ranked[:1]
        return [c for c in ranked if group.rewards[c.completion_id] > self.threshold]

    def _passes(self, rewards: Sequence[float]) -> list[list[int]]:
        """What each pass keeps, until nothing new is left out or nothing is left."""
        passes = [list(range(len(rewards)))]
        while True:
            line = self.threshold + len(passes) * self.rise
            above = [i for i, reward in enumerate(rewards) if reward > line]
            if not above:
                return passes
            passes.append(above)


@dataclass(frozen=True)
class Rationalise(Rejection):
    """Right answers; and where the policy found none, one that it finds when the reference answer is told (STaR,
    arXiv:2203.14465), learned as if it had not been told.

    The hint stands behind the prompt's last message; a prompt without a reference answer gets none.
    """

    name: ClassVar[str] = "rationalise"

    size: int = 1

    @property
    def draws(self) -> tuple[Draw, ...]:
        return Draw(self.size), Draw(1, hint=True)

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            own, told = group.completions[: self.size], group.completions[self.size :]
            kept = self._kept(group, own) or self._kept(group, told)
            selection.dropped["rejected"] += len(group.completions) - len(kept)
            for completion in kept:
                selection.add(completion, group.rewards[completion.completion_id], index)
        return selection
