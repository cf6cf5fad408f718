"""Fixed data: completions that were written before the run began. Inference is asked for none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from iterpo.response_sampling.pair import PAIRS, add_labelled
from iterpo.response_sampling.selection import Draw, Selection
from iterpo.types import Group


@dataclass(frozen=True)
class OfflinePairs:
    """Chosen/rejected pairs of a file, as preferences of their groups."""

    name: ClassVar[str] = "offline_pairs"
    provides: ClassVar[frozenset[str]] = PAIRS
    offline: ClassVar[bool] = True

    @property
    def draws(self) -> tuple[Draw, ...]:
        return ()

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            if not add_labelled(selection, group, index):
                selection.dropped["no_pair"] += len(group.completions)
        return selection


@dataclass(frozen=True)
class OfflineCompletions:
    """Demonstrations of a file: every completion of every group."""

    name: ClassVar[str] = "offline_completions"
    provides: ClassVar[frozenset[str]] = frozenset({"completions"})
    offline: ClassVar[bool] = True

    @property
    def draws(self) -> tuple[Draw, ...]:
        return ()

    def select(self, groups: Sequence[Group], seed: int) -> Selection:
        selection = Selection()
        for index, group in enumerate(groups):
            for completion in group.completions:
                selection.add(completion, 0.0, index)
        return selection
