"""The first half of an iteration: draw prompts, have them answered, have the answers judged, read the feedback back.

Where the run stands (`Progress`) comes in and goes out: nothing here outlives an iteration but groups kept for replay.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from iterpo.algorithms import Algorithm
from iterpo.buffer import GroupBuffer
from iterpo.patience import Control
from iterpo.ports import World
from iterpo.prompt_sampling import Standing
from iterpo.response_sampling import Draw, Narrowing, own
from iterpo.run_config import RunConfig
from iterpo.types import BASE_VERSION, Completion, Example, Group, Progress, Prompt, SamplingSettings, Seen

IDLE_SECONDS = 1.0
PEOPLE = "people"
"""The labeler that asks people (iterpo/labeling/catalog.py)."""


@dataclass
class Collected:
    """Of one iteration."""

    progress: Progress
    """With the prompts drawn, and what an adaptive sampler remembers of them."""
    groups: list[Group] = field(default_factory=list)
    consumed: list[tuple[int, str]] = field(default_factory=list)
    """(cursor, event id) of everything that the groups were made of."""
    replayed: list[Group] = field(default_factory=list)
    """Earlier groups, to be trained on once more; they consume nothing."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Completions, by reason."""


class Collector:
    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        algorithm: Algorithm,
        examples: Sequence[Example],
        world: World,
        buffer: GroupBuffer,
        control: Control,
    ) -> None:
        self._run_id, self._config, self._algorithm, self._world = run_id, config, algorithm, world
        self._examples, self._buffer, self._control = examples, buffer, control
        self._memory: list[Group] = []
        self._tokens, self._sampling_seconds = 0, 0.0

    def collect(self, at: Progress) -> Collected:
        """Groups with their feedback: as many prompts as the algorithm wants, refilled where it says so."""
        found, sampler = Collected(at), self._algorithm.response_sampling
        for _ in range(1 + getattr(sampler, "refill", 0)):
            useful = sampler.select(found.groups, self._config.seed).groups
            wanted = self._algorithm.prompts_per_iteration - len(set(useful))
            if wanted <= 0:
                break
            self._draw(wanted, found)
        self._replay(found)
        return found

    def remember(self, at: Progress) -> None:
        """After a restart: read from the feedback store once more what earlier iterations consumed, for replay."""
        if not self._algorithm.replay.groups or not at.iteration:
            return

        def read() -> list[Group]:
            past = GroupBuffer()
            events = self._world.feedback.stream(self._run_id, 0, IDLE_SECONDS)
            past.absorb(takewhile(lambda event: event.cursor <= at.cursor, events))
            return self._algorithm.replay.young(past.take()[0], at.version)

        self._memory = self._control.patiently("reading earlier groups again", read)

    def speed(self) -> float:
        """Sampled tokens a second since this was last asked."""
        speed = self._tokens / self._sampling_seconds if self._sampling_seconds else 0.0
        self._tokens, self._sampling_seconds = 0, 0.0
        return speed

    def _draw(self, count: int, found: Collected) -> None:
        """Axis 1 draws prompts, inference answers them, labelers judge; backlog of a crash is used, not redone."""
        at = found.progress
        standing = Standing(at.drawn, at.iteration, self._config.seed, at.seen)
        order = self._algorithm.prompt_sampling.draw(self._examples, count, standing)
        found.progress = replace(at, drawn=at.drawn + count)
        chosen = [self._examples[i] for i in dict.fromkeys(order)]
        if self._algorithm.response_sampling.offline:
            found.groups += [self._world.learner.encode(e) for e in chosen]
            return
        self._absorb(IDLE_SECONDS if at.iteration == 0 else 0.05)
        missing = [e.prompt for e in chosen if e.prompt.prompt_id not in self._buffer.prompt_ids]
        if missing:
            self._record(self._narrowed(self._sample(missing, found.progress), found.progress), at)
        self._await_feedback()
        fresh, events = self._buffer.take()
        sampled = [g for g in fresh if usable(self._algorithm, g)]
        found.dropped["no_logprobs"] += _completions(fresh) - _completions(sampled)
        young = [self._world.learner.tokenised(g) for g in sampled if self._young(g, at)]
        found.dropped["policy_age"] += _completions(sampled) - _completions(young)
        found.groups, found.consumed = found.groups + young, found.consumed + events
        if self._algorithm.prompt_sampling.remembers:
            seen = {g.prompt.prompt_id: look(g, self._own(g), at.iteration + 1) for g in fresh}
            found.progress = replace(found.progress, seen={**at.seen, **seen})

    def _await_feedback(self) -> None:
        """Past the deadline the run goes on with what is complete; with nothing complete there is nothing to go on
        with."""
        deadline = time.monotonic() + self._config.feedback_timeout_seconds
        while not self._buffer.all_complete and (time.monotonic() < deadline or not self._buffer.any_complete):
            self._absorb(IDLE_SECONDS, until_complete=True)
            if self._buffer.waiting:
                self._control.status(f"waiting for feedback on {self._buffer.waiting} groups", True)

    def _replay(self, found: Collected) -> None:
        """Earlier groups join this iteration; the fresh ones are remembered for later ones."""
        replay, at = self._algorithm.replay, found.progress
        if replay.groups:
            found.replayed = replay.draw(self._memory, at.version, f"{self._config.seed}/{at.iteration}")
            self._memory = replay.young([*self._memory, *found.groups], at.version)

    def _sample(self, prompts: Sequence[Prompt], at: Progress) -> list[Group]:
        """One group a prompt, whose completions follow the sampler's draws in order."""
        started = time.monotonic()
        draws = self._algorithm.response_sampling.draws
        parts = [self._answers(prompts, draw, number, at) for number, draw in enumerate(draws)]
        parts = [unhinted(part, parts[0]) if draw.hint else part for draw, part in zip(draws, parts, strict=True)]
        groups = [tuple(c for part in parts for c in part[p]) for p in range(len(prompts))]
        self._sampling_seconds += time.monotonic() - started
        self._tokens += sum(len(c.token_ids) for group in groups for c in group)
        return [
            Group(g[0].group_id, p, tuple(replace(c, group_id=g[0].group_id) for c in g))
            for p, g in zip(prompts, groups, strict=True)
        ]

    def _answers(self, prompts: Sequence[Prompt], draw: Draw, number: int, at: Progress) -> list[list[Completion]]:
        settings = SamplingSettings(
            temperature=0.0 if draw.greedy else self._config.temperature,
            max_tokens=self._config.max_tokens,
            seed=self._config.seed * 1_000_003 + at.drawn + number * 7919,
        )
        if draw.hint:
            prompts = [hinted(p) for p in prompts]
        if draw.policy == "mixture":
            self._control.status(f"drawing rivals of {len(prompts)} answers", False)
            return self._world.learner.mixture(prompts, draw.n, settings, draw.share, at.version)
        policy = self._config.policy(self._run_id) if draw.policy == "serving" else draw.policy
        return self._control.patiently(
            "sampling", lambda: self._world.generator.sample(prompts, draw.n, settings, policy)
        )

    def _narrowed(self, groups: list[Group], at: Progress) -> list[Group]:
        """The answers that are worth a label, where the response sampler chooses before anybody is asked."""
        sampler = self._algorithm.response_sampling
        if not isinstance(sampler, Narrowing):
            return groups
        completions = [c for g in groups for c in g.completions]
        if sampler.judges:
            prompts = [g.prompt for g in groups for _ in g.completions]
            columns = [self._scores(judge, prompts, completions) for judge in sampler.judges]
        else:
            columns = [self._world.learner.log_ratios(completions)]
        rows = zip(*columns, strict=True)
        evidence = {c.completion_id: row for c, row in zip(completions, rows, strict=True)}
        return [sampler.narrow(g, evidence, self._config.seed + at.drawn) for g in groups]

    def _scores(self, judge: str, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        """An abstention is nobody's favourite."""
        score = self._world.labeler.score
        found = self._control.patiently(f"asking {judge}", lambda: score(judge, prompts, completions))
        return [float("-inf") if number is None else number for number in found]

    def _record(self, groups: list[Group], at: Progress) -> None:
        request = f"{self._run_id}/{at.iteration + 1}/{uuid.uuid4().hex}"
        record, labeler = self._world.feedback.record, self._config.labeler
        implicit = self._implicit_rewards(groups, at) if labeler == PEOPLE else {}
        self._control.patiently("recording", lambda: record(self._run_id, labeler, groups, request, implicit))
        self._buffer.expect(groups)

    def _implicit_rewards(self, groups: list[Group], at: Progress) -> dict[str, float]:
        """What the policy itself prefers: people are asked where a reward model contradicts it. The base prefers
        nothing."""
        if at.version == BASE_VERSION:
            return {}
        completions = [c for g in groups for c in g.completions]
        return dict(
            zip((c.completion_id for c in completions), self._world.learner.log_ratios(completions), strict=True)
        )

    def _absorb(self, idle_seconds: float, until_complete: bool = False) -> None:
        def read() -> None:
            events = self._world.feedback.stream(self._run_id, self._buffer.cursor, idle_seconds)
            self._buffer.absorb(events, until_complete)

        self._control.patiently("collecting feedback", read)

    def _young(self, group: Group, at: Progress) -> bool:
        """Too old for a policy gradient is still good for a pair (invariant 8); age counts label lag."""
        if not on_policy(self._algorithm):
            return True
        age = at.version - min((c.policy_version for c in self._own(group)), default=at.version)
        return age <= self._config.max_policy_age

    def _own(self, group: Group) -> tuple[Completion, ...]:
        return own(self._algorithm.response_sampling, group)


def on_policy(algorithm: Algorithm) -> bool:
    coefficient = algorithm.gradient_coefficient
    return bool(getattr(coefficient, "on_policy", "rewards" in coefficient.needs))


def usable(algorithm: Algorithm, group: Group) -> bool:
    """A policy gradient needs the log-probs that an answer was drawn with; an application's users send texts."""
    return not on_policy(algorithm) or all(c.logprobs for c in group.completions)


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


def hinted(prompt: Prompt) -> Prompt:
    """The prompt with its reference answer told at the end; as it is when it has none."""
    if not prompt.reference_answer:
        return prompt
    *before, last = prompt.messages
    told = f"{last.content}\n\n(The answer is {prompt.reference_answer}. Show how one gets there.)"
    return replace(prompt, messages=(*before, replace(last, content=told)))


def unhinted(told: list[list[Completion]], plain: list[list[Completion]]) -> list[list[Completion]]:
    """Answers that knew the hint, under the prompt's tokens without it."""
    return [
        [replace(c, prompt_token_ids=own[0].prompt_token_ids) for c in group]
        for group, own in zip(told, plain, strict=True)
    ]
