"""Feedback read back, as groups to learn from: which of them are usable, which too old, what is remembered of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from iterpo import tracing
from iterpo.algorithms import Algorithm
from iterpo.buffer import GroupBuffer, is_sampled
from iterpo.patience import Control
from iterpo.ports import World
from iterpo.response_sampling import own
from iterpo.run_config import RunConfig
from iterpo.types import Completion, Group, Progress, Seen

IDLE_SECONDS = 1.0


@dataclass
class Collected:
    """Of one iteration."""

    progress: Progress
    """With the prompts drawn, and what an adaptive sampler remembers of them."""
    groups: list[Group] = field(default_factory=list)
    consumed: list[tuple[int, str]] = field(default_factory=list)
    """(cursor, event id) of everything that the groups were made of, and of those that were dropped."""
    replayed: list[Group] = field(default_factory=list)
    """Earlier groups, to be trained on once more; they consume nothing."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Completions, by reason."""
    waits: dict[str, float] = field(default_factory=dict)
    """Seconds: `rollouts`, that the learner waited for this; `backpressure`, that sampling waited for the learner since
    the last one; in a pipeline also `verdict`, that the learner waited for the candidate's."""
    ages: dict[str, float] = field(default_factory=dict)
    """`mean` and `max`: versions between sampling and use, of the groups that are used."""

    @property
    def traces(self) -> list[str]:
        """That its groups were sampled in, the oldest first; an empty one alone when none was (an application's
        answers come without)."""
        return list(dict.fromkeys(group.trace for group in self.groups if group.trace)) or [""]


class Intake:
    def __init__(
        self, run_id: str, config: RunConfig, algorithm: Algorithm, world: World, buffer: GroupBuffer, control: Control
    ) -> None:
        self._run_id, self._config, self._algorithm, self._world = run_id, config, algorithm, world
        self.control, self.buffer = control, buffer
        self._memory: list[Group] = []

    def read(self, idle_seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Events into the buffer, until nothing came for so long, or `until` says so."""

        def read() -> None:
            events = self._world.feedback.stream(self._run_id, self.buffer.cursor, idle_seconds)
            self.buffer.absorb(events, until)

        self.control.patiently("collecting feedback", read)

    def take(self, found: Collected, most: int | None = None) -> None:
        """Complete groups out of the buffer, of the sampled ones `most` at most. What they were made of is consumed,
        usable or not."""
        fresh, events = self.buffer.take(most)
        for group in fresh:
            if group.recorded_at is not None and group.labelled_at is not None:
                tracing.told("label", group.trace, group.recorded_at, group.labelled_at, group=group.group_id)
        groups = [g for g in fresh if usable(self._algorithm, g)]
        found.dropped["no_logprobs"] += _completions(fresh) - _completions(groups)
        found.groups += [self._world.learner.tokenised(g) for g in groups]
        found.consumed += events
        if self._algorithm.prompt_sampling.remembers:
            at = found.progress
            seen = {g.prompt.prompt_id: look(g, self._own(g), at.iteration + 1) for g in fresh}
            found.progress = replace(at, seen={**at.seen, **seen})

    def useful(self, groups: Sequence[Group]) -> int:
        """How many of them have something to learn from."""
        return len(set(self._algorithm.response_sampling.select(groups, self._config.seed).groups))

    def drop_old(self, found: Collected, version: int) -> None:
        """Before they are used for an update of `version`. Too old for a policy gradient is still good for a pair
        (invariant 8); age counts label lag."""
        oldest = self._config.max_policy_age if on_policy(self._algorithm) else math.inf
        aged = [(g, self._age(g, version)) for g in found.groups]
        young = [g for g, age in aged if age <= oldest]
        found.dropped["policy_age"] += _completions(found.groups) - _completions(young)
        found.groups = young
        if ages := [age for _, age in aged if age <= oldest]:
            found.ages = {"mean": sum(ages) / len(ages), "max": float(max(ages))}

    def _age(self, group: Group, version: int) -> int:
        return version - min((c.policy_version for c in self._own(group)), default=version)

    def replay(self, found: Collected) -> None:
        """Earlier groups join this iteration; the fresh ones are remembered for later ones."""
        replay, at = self._algorithm.replay, found.progress
        if replay.groups:
            found.replayed = replay.draw(self._memory, at.version, f"{self._config.seed}/{at.iteration}")
            self._memory = replay.young([*self._memory, *found.groups], at.version)

    def remember(self, at: Progress) -> None:
        """After a restart: read from the feedback store once more what earlier iterations consumed, for replay."""
        if not self._algorithm.replay.groups or not at.iteration:
            return

        def read() -> list[Group]:
            past = GroupBuffer()
            events = self._world.feedback.stream(self._run_id, 0, IDLE_SECONDS)
            past.absorb(takewhile(lambda event: event.cursor <= at.cursor, events))
            return self._algorithm.replay.young(past.take()[0], at.version)

        self._memory = self.control.patiently("reading earlier groups again", read)

    def _own(self, group: Group) -> tuple[Completion, ...]:
        return own(self._algorithm.response_sampling, group)


def on_policy(algorithm: Algorithm) -> bool:
    coefficient = algorithm.gradient_coefficient
    return bool(getattr(coefficient, "on_policy", "rewards" in coefficient.needs))


def usable(algorithm: Algorithm, group: Group) -> bool:
    """A policy gradient needs the log-probs that an answer was drawn with; an application's users send texts."""
    return not on_policy(algorithm) or is_sampled(group)


def _completions(groups: Sequence[Group]) -> int:
    return sum(len(g.completions) for g in groups)


def look(group: Group, sampled: Sequence[Completion], iteration: int) -> Seen:
    """What an adaptive prompt sampler remembers of a group: of the answers that the policy sampled."""
    rewards = [group.rewards[c.completion_id] for c in sampled if c.completion_id in group.rewards]
    mean = sum(rewards) / len(rewards) if rewards else None
    spread = None
    if mean is not None and len(rewards) > 1:
        spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    logprobs = [t for c in sampled for t in c.logprobs]
    return Seen(mean, spread, -sum(logprobs) / max(1, len(logprobs)), iteration)
