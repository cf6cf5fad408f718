"""Rejection sampling: keep the good ones, imitate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.errors import InvalidConfig
from iterpo.response_sampling.selection import Selection, Sized
from iterpo.types import Group

KEEP = ("best", "above")


@dataclass(frozen=True)
class Rejection(Sized):
    """`best` keeps the best of each group (RAFT), `above` every distinct one over `threshold` (RFT, ReST).

    Equal token sequences are kept once: RFT counts distinct answers (arXiv:2308.01825).
    """

    name: ClassVar[str] = "rejection"
    provides: ClassVar[frozenset[str]] = frozenset({"completions"})
    least: ClassVar[int] = 1

    keep: str = "above"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep not in KEEP:
            raise InvalidConfig(f"Out of range: {self}.", "Use keep = best | above.")

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            usable = {c.token_ids: c for c in group.completions if c.completion_id in group.rewards}
            ranked = sorted(usable.values(), key=lambda c: -group.rewards[c.completion_id])
            if self.keep == "best":
                kept = ranked[:1]
            else:
                kept = [c for c in ranked if group.rewards[c.completion_id] > self.threshold]
            selection.dropped["rejected"] += len(group.completions) - len(kept)
            for completion in kept:
                selection.add(completion, group.rewards[completion.completion_id], index)
        return selection
