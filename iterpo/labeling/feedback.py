"""What a stream of feedback events says about each pair: preferences from labels and from rewards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

from iterpo.types import Completion, FeedbackEvent, Group, Label, Preference, Prompt


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt, and how likely the first is the better one."""

    prompt: Prompt
    first: Completion
    second: Completion
    preference: Preference
    source: str
    """`labels` (people) or `rewards` (the labeler's name follows after a colon)."""

    @property
    def chosen(self) -> Completion:
        return self.first if self.preference.p_first_wins > 0.5 else self.second

    @property
    def rejected(self) -> Completion:
        return self.second if self.preference.p_first_wins > 0.5 else self.first

    @property
    def tied(self) -> bool:
        return self.preference.p_first_wins == 0.5


@dataclass(frozen=True, slots=True)
class Ranking:
    """Completions of one prompt, the best first, no two alike."""

    group_id: str
    prompt: Prompt
    completions: tuple[Completion, ...]


def preferences_from_labels(labels: Iterable[Label]) -> list[Preference]:
    """One preference a pair: `p_first_wins` is the mean over its labels, `weight` their number, `strength` the mean of
    theirs.

    With that weight, the loss of the mean equals the sum of the labels' own. Skips and `both_bad` say nothing about
    the order and are left out. The annotators' quality is not used.
    """
    votes: dict[tuple[str, str, str], list[float]] = {}
    strengths: dict[tuple[str, str, str], list[float]] = {}
    for label in labels:
        p_first = label.p_first_wins
        if p_first is None:
            continue
        pair = (label.group_id, label.first_id, label.second_id)
        turned = (label.group_id, label.second_id, label.first_id)
        if turned in votes:
            pair, p_first = turned, 1.0 - p_first
        votes.setdefault(pair, []).append(p_first)
        strengths.setdefault(pair, []).append(float(label.strength or 1))
    return [
        Preference(*ids, _mean(p), weight=float(len(p)), strength=_mean(strengths[ids])) for ids, p in votes.items()
    ]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@dataclass(slots=True)
class Feedback:
    """Everything known about the groups of some events; `add` events in any order after their group."""

    groups: dict[str, Group] = field(default_factory=dict)
    completions: dict[str, tuple[Prompt, Completion]] = field(default_factory=dict)
    """completion_id -> the completion and the prompt that it answers."""
    rewards: dict[tuple[str, str], float] = field(default_factory=dict)
    """(labeler, completion_id) -> reward."""
    labels: list[Label] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[FeedbackEvent]) -> Feedback:
        feedback = cls()
        for event in events:
            feedback.add(event)
        return feedback

    def add(self, event: FeedbackEvent) -> None:
        """Abstentions and tasks say nothing about the order and leave no trace."""
        if event.group is not None:
            self.groups[event.group.group_id] = event.group
            self.completions |= {c.completion_id: (event.group.prompt, c) for c in event.group.completions}
        elif event.reward is not None:
            self.rewards[event.reward.labeler, event.reward.completion_id] = event.reward.value
        elif event.label is not None:
            self.labels.append(event.label)

    def label_pairs(self) -> Iterator[Pair]:
        """One a compared pair that is known; ties are among them (p_first_wins 0.5)."""
        for preference in preferences_from_labels(self.labels):
            group = self.groups.get(preference.group_id)
            if group is not None:
                _, first = self.completions[preference.first_id]
                _, second = self.completions[preference.second_id]
                yield Pair(group.prompt, first, second, preference, "labels")

    def reward_pairs(self, best_worst_only: bool = False) -> Iterator[Pair]:
        """Pairs within a group whose rewards of one labeler differ: all of them, or only the best with the worst."""
        for labeler in dict.fromkeys(name for name, _ in self.rewards):
            for group in self.groups.values():
                rewarded = [
                    (self.rewards[labeler, c.completion_id], c)
                    for c in group.completions
                    if (labeler, c.completion_id) in self.rewards
                ]
                yield from _reward_pairs(group, labeler, rewarded, best_worst_only)

    def rankings(self) -> Iterator[Ranking]:
        """Groups in the order of one labeler's rewards; of completions with equal rewards the first stands for all."""
        for labeler in dict.fromkeys(name for name, _ in self.rewards):
            for group in self.groups.values():
                scored: dict[float, Completion] = {}
                for completion in group.completions:
                    reward = self.rewards.get((labeler, completion.completion_id))
                    if reward is not None:
                        scored.setdefault(reward, completion)
                if len(scored) > 1:
                    yield Ranking(group.group_id, group.prompt, tuple(scored[r] for r in sorted(scored, reverse=True)))


def _reward_pairs(
    group: Group, labeler: str, rewarded: list[tuple[float, Completion]], best_worst_only: bool
) -> Iterator[Pair]:
    ranked = sorted(rewarded, key=lambda entry: entry[0], reverse=True)
    candidates = [(ranked[0], ranked[-1])] if best_worst_only and ranked else combinations(ranked, 2)
    for (high, better), (low, worse) in candidates:
        if high > low:
            preference = Preference(group.group_id, better.completion_id, worse.completion_id, p_first_wins=1.0)
            yield Pair(group.prompt, better, worse, preference, f"rewards:{labeler}")
