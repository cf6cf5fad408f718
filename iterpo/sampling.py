"""Axes 1 and 2: draw prompts, have them answered by the policy, record the groups where labelers find them.

Where the run stands (`Progress`) comes in and goes out: a sampler remembers only how fast it was.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from iterpo import tracing
from iterpo.algorithms import Algorithm
from iterpo.patience import Control
from iterpo.ports import World
from iterpo.prompt_sampling import Standing
from iterpo.response_sampling import Draw, Narrowing
from iterpo.run_config import RunConfig
from iterpo.types import BASE_VERSION, Completion, Example, Group, Progress, Prompt, SamplingSettings

PEOPLE = "people"
"""The labeler that asks people (iterpo/labeling/catalog.py)."""


class Sampler:
    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        algorithm: Algorithm,
        examples: Sequence[Example],
        world: World,
        control: Control,
    ) -> None:
        self._run_id, self._config, self._algorithm, self._world = run_id, config, algorithm, world
        self._examples, self.control = examples, control
        self._speeds: deque[tuple[int, float]] = deque()
        """Tokens and seconds of each call since somebody asked, who may be another thread."""

    def draw(self, count: int, at: Progress) -> tuple[list[Example], Progress]:
        """Axis 1: the next examples, each once, and where the run stands after them."""
        standing = Standing(at.drawn, at.iteration, self._config.seed, at.seen)
        order = self._algorithm.prompt_sampling.draw(self._examples, count, standing)
        return [self._examples[i] for i in dict.fromkeys(order)], replace(at, drawn=at.drawn + count)

    def answer(self, prompts: Sequence[Prompt], at: Progress) -> list[Group]:
        """Axis 2: one group a prompt, whose completions follow the response sampler's draws in order, narrowed to
        those that are worth a label where it chooses before anybody is asked."""
        with tracing.span("sample", run=self._run_id, iteration=at.iteration + 1, prompts=len(prompts)) as trace:
            return [replace(group, trace=trace) for group in self._answer(prompts, at)]

    def _answer(self, prompts: Sequence[Prompt], at: Progress) -> list[Group]:
        started = time.monotonic()
        draws = self._algorithm.response_sampling.draws
        parts = [self._answers(prompts, draw, number, at) for number, draw in enumerate(draws)]
        parts = [unhinted(part, parts[0]) if draw.hint else part for draw, part in zip(draws, parts, strict=True)]
        groups = [tuple(c for part in parts for c in part[p]) for p in range(len(prompts))]
        self._speeds.append((sum(len(c.token_ids) for g in groups for c in g), time.monotonic() - started))
        made = [
            Group(g[0].group_id, p, tuple(replace(c, group_id=g[0].group_id) for c in g))
            for p, g in zip(prompts, groups, strict=True)
        ]
        return self._narrowed(made, at)

    def record(self, groups: Sequence[Group], at: Progress) -> None:
        """Durable on return."""
        request = f"{self._run_id}/{at.iteration + 1}/{uuid.uuid4().hex}"
        record, labeler = self._world.feedback.record, self._config.labeler
        implicit = self._implicit_rewards(groups, at) if labeler == PEOPLE else {}
        with tracing.span("record", groups[0].trace, run=self._run_id, groups=len(groups)):
            self.control.patiently("recording", lambda: record(self._run_id, labeler, groups, request, implicit))

    def sampled(self) -> tuple[int, float]:
        """How many tokens were sampled since this was last asked, and the seconds that it took."""
        tokens, seconds = 0, 0.0
        while self._speeds:
            more_tokens, more_seconds = self._speeds.popleft()
            tokens, seconds = tokens + more_tokens, seconds + more_seconds
        return tokens, seconds

    def _answers(self, prompts: Sequence[Prompt], draw: Draw, number: int, at: Progress) -> list[list[Completion]]:
        settings = SamplingSettings(
            temperature=0.0 if draw.greedy else self._config.temperature,
            max_tokens=self._config.max_tokens,
            seed=self._config.seed * 1_000_003 + at.drawn + number * 7919,
        )
        if draw.hint:
            prompts = [hinted(p) for p in prompts]
        if draw.policy == "mixture":
            self.control.status(f"drawing rivals of {len(prompts)} answers", False)
            return self._world.learner.mixture(prompts, draw.n, settings, draw.share, at.version)
        policy = self._config.policy(self._run_id) if draw.policy == "serving" else draw.policy
        return self.control.patiently(
            "sampling", lambda: self._world.generator.sample(prompts, draw.n, settings, policy)
        )

    def _narrowed(self, groups: list[Group], at: Progress) -> list[Group]:
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
        found = self.control.patiently(f"asking {judge}", lambda: score(judge, prompts, completions))
        return [float("-inf") if number is None else number for number in found]

    def _implicit_rewards(self, groups: Sequence[Group], at: Progress) -> dict[str, float]:
        """What the policy itself prefers: people are asked where a reward model contradicts it. The base prefers
        nothing."""
        if at.version == BASE_VERSION:
            return {}
        completions = [c for g in groups for c in g.completions]
        return dict(
            zip((c.completion_id for c in completions), self._world.learner.log_ratios(completions), strict=True)
        )


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
