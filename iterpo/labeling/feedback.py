"""What a stream of feedback events says about each pair: preferences from labels and from rewards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from iterpo.errors import InvalidInput
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
    p_policy: float | None = None
    """The policy's own p_first_wins when people were asked, by its implicit reward."""

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


def check_preferences(pairs: Sequence[Pair]) -> None:
    """Raises InvalidInput NO_PREFERENCES when there is nothing to learn from."""
    if all(pair.tied for pair in pairs):
        raise InvalidInput(
            f"There is no preference to learn from: {f'all of {len(pairs)} pairs are ties' if pairs else 'no pairs'}.",
            "Collect labels, or rewards that differ within a group, first.",
            "NO_PREFERENCES",
        )


def rewards_from_preferences(preferences: Iterable[Preference]) -> dict[str, float]:
    """completion_id -> mean share of its comparisons that it wins, in [0, 1], by weight: what people's pairs say to a
    method that wants a reward for each answer of a group.

    A tie is half a win for both. A pair found bad on both sides is a win for neither: with b = p_both_bad, the first
    wins (1 - b) p and the second (1 - b) (1 - p), and the pair's weight is that of all votes, weight / (1 - b).
    """
    won: dict[str, float] = {}
    weights: dict[str, float] = {}
    for preference in preferences:
        good = 1 - preference.p_both_bad
        weight = preference.weight / good if preference.weight > 0 and good > 0 else float(preference.p_both_bad > 0)
        sides = (preference.first_id, preference.p_first_wins), (preference.second_id, 1 - preference.p_first_wins)
        for completion_id, p in sides if weight else ():
            won[completion_id] = won.get(completion_id, 0.0) + weight * good * p
            weights[completion_id] = weights.get(completion_id, 0.0) + weight
    return {completion_id: won[completion_id] / weights[completion_id] for completion_id in won}


@dataclass(slots=True)
class Feedback:
    """Everything known about the groups of some events; `add` events in any order after their group."""

    groups: dict[str, Group] = field(default_factory=dict)
    completions: dict[str, tuple[Prompt, Completion]] = field(default_factory=dict)
    """completion_id -> the completion and the prompt that it answers."""
    rewards: dict[tuple[str, str], float] = field(default_factory=dict)
    """(labeler, completion_id) -> reward."""
    labels: dict[str, Label] = field(default_factory=dict)
    """label_id -> label, those that were not taken back."""
    preferences: dict[str, Preference] = field(default_factory=dict)
    """task_id -> what its labels say together, the latest."""
    p_policy: dict[str, float] = field(default_factory=dict)
    """task_id -> the policy's own p_first_wins."""

    @classmethod
    def of(cls, events: Iterable[FeedbackEvent]) -> Feedback:
        feedback = cls()
        for event in events:
            feedback.add(event)
        return feedback

    def add(self, event: FeedbackEvent) -> None:
        """What says nothing about the order (abstentions, tasks, releases, standings) leaves no trace."""
        if event.group is not None:
            self.groups[event.group.group_id] = event.group
            self.completions |= {c.completion_id: (event.group.prompt, c) for c in event.group.completions}
        elif event.reward is not None:
            self.rewards[event.reward.labeler, event.reward.completion_id] = event.reward.value
        elif event.task is not None and event.task.p_policy is not None:
            self.p_policy[event.task.task_id] = event.task.p_policy
        elif event.label is not None:
            self.labels[event.label.label_id] = event.label
        elif event.retraction is not None:
            self.labels.pop(event.retraction.label_id, None)
            self.preferences.pop(event.retraction.task_id, None)
        elif event.preference is not None:
            self.preferences[event.preference.task_id] = event.preference

    def label_pairs(self, by_people: bool = False) -> Iterator[Pair]:
        """One a compared pair that is known and says something about the order; ties are among them (p_first_wins
        0.5). `by_people`: only pairs that a person labelled; a machine must not learn from itself."""
        asked = {label.task_id for label in self.labels.values() if "/" not in label.annotator}
        for preference in self.preferences.values():
            group = self.groups.get(preference.group_id)
            if group is not None and preference.weight > 0 and (not by_people or preference.task_id in asked):
                _, first = self.completions[preference.first_id]
                _, second = self.completions[preference.second_id]
                yield Pair(group.prompt, first, second, preference, "labels", self.p_policy.get(preference.task_id))

    def both_bad(self) -> Iterator[tuple[Prompt, Completion]]:
        """Answers of pairs that most votes found bad on both sides."""
        for preference in self.preferences.values():
            if preference.p_both_bad > 0.5 and preference.group_id in self.groups:
                yield from (self.completions[each] for each in (preference.first_id, preference.second_id))

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
