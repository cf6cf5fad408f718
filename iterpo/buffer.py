"""Feedback events folded into groups: what is complete, what still waits, and where to read on after a crash.

A group is complete once every completion has a reward or an abstention, or, when people judge it, once every one of
its comparisons has a preference. Labels themselves are not looked at: what they are worth is in the preferences.
`resume_cursor` lies before the oldest event of every group that no committed iteration was trained on: reading from
there, minus the events that the ledger knows as consumed, rebuilds this buffer exactly (invariant 3).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from iterpo.labeling.feedback import rewards_from_preferences
from iterpo.types import FeedbackEvent, Group, Preference, TaskKind


@dataclass
class _Pending:
    group: Group
    first_cursor: int
    events: list[tuple[int, str]]
    recorded_at: float
    rewards: dict[str, float] = field(default_factory=dict)
    abstained: set[str] = field(default_factory=set)
    comparisons: set[str] = field(default_factory=set)
    preferences: dict[str, Preference] = field(default_factory=dict)
    """task_id -> what its labels say together, the latest."""
    labelled_at: float | None = None

    def __post_init__(self) -> None:
        self.sampled = is_sampled(self.group)

    @property
    def complete(self) -> bool:
        if self.comparisons:
            return self.comparisons <= self.preferences.keys()
        return len(self.rewards.keys() | self.abstained) == len(self.group.completions)

    def finished(self) -> Group:
        """A preference that says nothing about the order (skips, untrusted votes) is none; people's pairs give each
        answer a reward where no labeler did."""
        return replace(
            self.group,
            rewards=self.rewards or rewards_from_preferences(self.preferences.values()),
            preferences=tuple(p for p in self.preferences.values() if p.weight > 0),
            event_ids=tuple(event_id for _, event_id in self.events),
            recorded_at=self.recorded_at,
            labelled_at=self.labelled_at,
        )


def is_sampled(group: Group) -> bool:
    """By a run; an application's answers and imported ones come as texts."""
    return all(c.logprobs for c in group.completions)


def _teaches(event: FeedbackEvent) -> bool:
    """Whether a learner would have used the event. Standings and releases belong to no group; gold tasks, repeats and
    second opinions measure people."""
    about = event.task or event.label
    if about is not None:
        return about.kind is TaskKind.COMPARISON
    return event.standing is None and event.release is None


class GroupBuffer:
    """Safe to use from the loops of a pipeline; one of them reads events."""

    def __init__(self, cursor: int = 0, consumed: Collection[str] = ()) -> None:
        self.cursor = cursor
        self._lock = threading.RLock()
        self._consumed = set(consumed)
        self._pending: dict[str, _Pending] = {}
        self._complete: dict[str, _Pending] = {}
        """Those of them that are complete: asked for after every event, by thousands."""
        self._group_of: dict[str, str] = {}
        self._expected: dict[str, str] = {}
        """Group -> its prompt."""
        self._taken: set[int] = set()
        """Where the groups begin that were taken and not committed yet."""
        self._late: Counter[str] = Counter()

    def expect(self, groups: Iterable[Group]) -> None:
        """Groups that are being recorded, and whose events will therefore come: they count as waiting until then."""
        with self._lock:
            self._expected |= {g.group_id: g.prompt.prompt_id for g in groups if g.group_id not in self._pending}

    def absorb(self, events: Iterable[FeedbackEvent], until: Callable[[], bool] = lambda: False) -> None:
        """Take events in; stop reading as soon as `until` says so."""
        for event in events:
            if event.cursor > self.cursor:
                with self._lock:
                    self.cursor = event.cursor
                    if event.event_id not in self._consumed:
                        self._fold(event)
            if until():
                return

    def _fold(self, event: FeedbackEvent) -> None:
        if event.group is not None:
            pending = _Pending(event.group, event.cursor, [], event.created_at)
            self._pending[event.group.group_id] = pending
            self._expected.pop(event.group.group_id, None)
            self._group_of |= {c.completion_id: event.group.group_id for c in event.group.completions}
        else:
            found = self._pending.get(self._owner(event))
            if found is None:
                if _teaches(event):
                    self._late[event.kind] += 1
                return
            pending = found
        pending.events.append((event.cursor, event.event_id))
        if event.reward or event.abstention or event.preference:
            pending.labelled_at = event.created_at
        if event.reward is not None:
            pending.rewards[event.reward.completion_id] = event.reward.value
        elif event.abstention is not None:
            pending.abstained.add(event.abstention.completion_id)
        elif event.task is not None and event.task.kind is TaskKind.COMPARISON:
            pending.comparisons.add(event.task.task_id)
        elif event.preference is not None:
            pending.preferences[event.preference.task_id] = event.preference
        elif event.retraction is not None:
            pending.preferences.pop(event.retraction.task_id, None)
        name = pending.group.group_id
        if pending.complete:
            self._complete[name] = pending
        else:
            self._complete.pop(name, None)

    def _owner(self, event: FeedbackEvent) -> str:
        named = event.task or event.label or event.preference or event.retraction
        if named is not None:
            return named.group_id
        scored = event.reward or event.abstention
        return self._group_of.get(scored.completion_id, "") if scored else ""

    @property
    def all_complete(self) -> bool:
        return not self.waiting

    @property
    def any_complete(self) -> bool:
        with self._lock:
            return bool(self._complete)

    @property
    def complete(self) -> int:
        """Sampled groups that could be taken now."""
        with self._lock:
            return sum(p.sampled for p in self._complete.values())

    @property
    def late(self) -> Counter[str]:
        """Events whose group was taken before they came, by kind, since the process began: counted in every row."""
        with self._lock:
            return self._late.copy()

    def waiting_since(self, cursor: int) -> int:
        """Sampled groups that lack feedback, and began at that cursor or before."""
        with self._lock:
            old = [p for p in self._pending.values() if p.first_cursor <= cursor]
            return sum(p.sampled and not p.complete for p in old)

    @property
    def waiting(self) -> int:
        """Groups that lack feedback, or that were recorded and have not been read back yet."""
        with self._lock:
            return len(self._expected) + len(self._pending) - len(self._complete)

    def __len__(self) -> int:
        """Sampled groups in the buffer, complete or not, and those recorded and not read back yet."""
        with self._lock:
            return len(self._expected) + sum(p.sampled for p in self._pending.values())

    @property
    def prompt_ids(self) -> set[str]:
        """Prompts of all sampled groups in the buffer, complete or not, and of those that are being recorded."""
        with self._lock:
            sampled = {p.group.prompt.prompt_id for p in self._pending.values() if p.sampled}
            return sampled | set(self._expected.values())

    @property
    def resume_cursor(self) -> int:
        with self._lock:
            begins = [p.first_cursor for p in self._pending.values()] + [*self._taken]
            return min((cursor - 1 for cursor in begins), default=self.cursor)

    def take(self, most: int | None = None) -> tuple[list[Group], list[tuple[int, str]]]:
        """Remove the complete groups, of the sampled ones the `most` oldest; returns them and the (cursor, event id) of
        everything they were made of."""
        with self._lock:
            complete = [p for name, p in self._pending.items() if name in self._complete]
            left = {p.first_cursor for p in [p for p in complete if p.sampled][most:]} if most is not None else set()
            ready = [p for p in complete if p.first_cursor not in left]
            for pending in ready:
                self._taken.add(pending.first_cursor)
                del self._pending[pending.group.group_id], self._complete[pending.group.group_id]
                for completion in pending.group.completions:
                    del self._group_of[completion.completion_id]
        return [p.finished() for p in ready], [event for p in ready for event in p.events]

    def commit(self, consumed: Iterable[tuple[int, str]]) -> None:
        """What `take` gave is trained on for good."""
        with self._lock:
            self._taken -= {cursor for cursor, _ in consumed}
