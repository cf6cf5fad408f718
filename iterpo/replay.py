"""Training again on what an earlier run was trained on: with the newest preferences, and without somebody's labels.

Taking an annotator out (`SetAnnotatorState`) makes the preferences that his labels took part in anew, without them;
they follow the old ones in the feedback store. A replay starts from the version before the first one that his labels
touched, takes the groups of every iteration since, in order, each with its newest preferences, and delivers the result
as one candidate, through proof and gate like any other.

Not repeated: sampling. The answers are those that the touched policies gave, so for a policy gradient they are
off-policy (its importance ratios are computed against the log-probs that were recorded); for pairs that does not
matter. The optimiser starts afresh.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from iterpo.buffer import GroupBuffer
from iterpo.intake import Collected
from iterpo.types import FeedbackEvent, Group, Progress


class Replay:
    """Groups that are there already: one list an iteration."""

    def __init__(self, iterations: Sequence[Sequence[Group]]) -> None:
        self._iterations = iterations

    def collect(self, at: Progress) -> Collected:
        """Consumes nothing: the events were consumed by the run that is repeated."""
        return Collected(at, groups=list(self._iterations[at.iteration]))

    def remember(self, at: Progress) -> None:
        """Nothing: every iteration is at hand."""

    def sampled(self) -> tuple[int, float]:
        """Nothing is sampled."""
        return 0, 0.0


def groups_again(
    events: Iterable[FeedbackEvent], consumed: Mapping[str, int], first: int, last: int, without: Collection[str]
) -> list[list[Group]]:
    """The groups of the iterations `first` to `last`, each with what its events say by now.

    `consumed`: event id -> iteration of the run that consumed it. `without`: annotators whose thumbs are left out;
    their labels are left out of the preferences already.
    """
    iteration_of: dict[str, int] = {}
    buffer = GroupBuffer()
    for event in events:
        if event.group is not None and first <= consumed.get(event.event_id, 0) <= last:
            iteration_of[event.group.group_id] = consumed[event.event_id]
        if event.reward is not None and event.reward.user in without:
            continue
        buffer.absorb([event])
    found: list[list[Group]] = [[] for _ in range(first, last + 1)]
    for group in buffer.take()[0]:
        if group.group_id in iteration_of:
            found[iteration_of[group.group_id] - first].append(replace(group, event_ids=()))
    return found
