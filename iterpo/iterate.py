"""The synchronous loop: sample, collect feedback, update, publish, prove, gate, promote, commit. On one screen.

prompts --axis 1--> generator --axis 2--> feedback store --labels--> buffer --axis 3--> learner
   ^                                                                                       |
   |                                    serving <--promote-- gate <--proof-- load <--publish
   +---------------------------------------------------------------------------------------+
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from iterpo.algorithms import Algorithm
from iterpo.buffer import GroupBuffer
from iterpo.errors import PolicyRejected, WrongState
from iterpo.patience import Control
from iterpo.policies import gate, manifest
from iterpo.ports import FeedbackStore, Generator, Labeler, Learner, PolicyPublisher
from iterpo.prompt_sampling import Standing
from iterpo.response_sampling import Draw, Narrowing, Selection, own
from iterpo.run_config import RunConfig
from iterpo.types import (
    Completion,
    Example,
    GateDecision,
    Group,
    IterationRow,
    PolicyState,
    PolicyVersion,
    Progress,
    Prompt,
    SamplingSettings,
    Seen,
)

LOAD_ATTEMPTS = 3
"""Inference may restart between load and promotion: the candidate is then loaded and proved again."""
IDLE_SECONDS = 1.0
JUDGED_SHARE = 0.9
"""Of the held-out answers: fewer rewards than that are no measurement."""


@dataclass(frozen=True)
class World:
    """Everything outside of the loop, behind ports."""

    generator: Generator
    feedback: FeedbackStore
    labeler: Labeler
    publisher: PolicyPublisher
    learner: Learner
    policies: Path
    """Where policy directories are published."""
    checkpoints: Path
    commit: Callable[[IterationRow, Progress, str, list[tuple[int, str]]], None]
    """Records an iteration: row, progress, checkpoint name, consumed events, in one transaction."""
    note: Callable[[Progress], None]
    """Records progress between iterations."""


@dataclass(frozen=True)
class Delivery:
    """What became of a candidate."""

    version: int
    proved: bool
    decision: GateDecision
    heldout: float
    kl: float
    load_ms: float = 0.0
    swap_ms: float = 0.0


class Loop:
    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        algorithm: Algorithm,
        examples: Sequence[Example],
        heldout: Sequence[Prompt],
        world: World,
        progress: Progress,
        buffer: GroupBuffer,
        control: Control,
    ) -> None:
        self.run_id, self.config, self.algorithm, self.world = run_id, config, algorithm, world
        self.examples, self.heldout = examples, heldout
        self.progress, self.buffer, self.control = progress, buffer, control
        self._tokens, self._sampling_seconds = 0, 0.0
        self._memory: list[Group] = []

    def iterations(self) -> Iterator[IterationRow]:
        """One committed row an iteration, from wherever `progress` stands to the last."""
        self.check_serving(self.control.patiently("asking for versions", self.world.publisher.versions))
        if self.algorithm.replay.groups and self.progress.iteration:
            self._memory = self.control.patiently("reading earlier groups again", self.remember)
        while self.progress.iteration < self.config.iterations:
            self.control.point()
            started = time.monotonic()
            groups, consumed, dropped = self.collect()
            old = self.replayed(groups)
            selection = self.algorithm.response_sampling.select(
                groups + old, self.config.seed + self.progress.iteration
            )
            before = self.world.learner.snapshot()
            numbers = self.update(selection)
            delivery = self.deliver(numbers) if numbers else None
            if delivery and not delivery.decision.promote:
                self.world.learner.restore(before)
            row = self.row(groups, numbers, delivery, dropped + selection.dropped, time.monotonic() - started)
            self.commit(row, delivery, consumed)
            yield row

    def collect(self) -> tuple[list[Group], list[tuple[int, str]], Counter[str]]:
        """Groups with their feedback: as many prompts as the algorithm wants, refilled where it says so."""
        groups: list[Group] = []
        consumed: list[tuple[int, str]] = []
        dropped: Counter[str] = Counter()
        for _ in range(1 + getattr(self.algorithm.response_sampling, "refill", 0)):
            useful = self.algorithm.response_sampling.select(groups, self.config.seed).groups
            wanted = self.algorithm.prompts_per_iteration - len(set(useful))
            if wanted <= 0:
                break
            fresh, events = self.draw(wanted)
            young = [g for g in fresh if self.young(g)]
            dropped["policy_age"] += sum(len(g.completions) for g in fresh) - sum(len(g.completions) for g in young)
            groups, consumed = groups + young, consumed + events
            self.learn_of(fresh)
        return groups, consumed, dropped

    def learn_of(self, groups: Sequence[Group]) -> None:
        """What adaptive prompt samplers remember of the groups that just came."""
        if self.algorithm.prompt_sampling.remembers:
            sampler, iteration = self.algorithm.response_sampling, self.progress.iteration + 1
            seen = {g.prompt.prompt_id: look(g, own(sampler, g), iteration) for g in groups}
            self.progress = replace(self.progress, seen={**self.progress.seen, **seen})

    def replayed(self, fresh: list[Group]) -> list[Group]:
        """Earlier groups that join this iteration; the fresh ones are remembered for later ones."""
        replay, at = self.algorithm.replay, self.progress
        old = replay.draw(self._memory, at.version, f"{self.config.seed}/{at.iteration}") if replay.groups else []
        if replay.groups:
            self._memory = replay.young([*self._memory, *fresh], at.version)
        return old

    def remember(self) -> list[Group]:
        """After a restart: the groups that earlier iterations consumed, read from the feedback store once more."""
        past = GroupBuffer()
        events = self.world.feedback.stream(self.run_id, 0, IDLE_SECONDS)
        past.absorb(takewhile(lambda event: event.cursor <= self.progress.cursor, events))
        return self.algorithm.replay.young(past.take()[0], self.progress.version)

    def draw(self, count: int) -> tuple[list[Group], list[tuple[int, str]]]:
        """Axis 1 draws prompts, inference answers them, labelers judge; backlog of a crash is used, not redone."""
        at = self.progress
        standing = Standing(at.drawn, at.iteration, self.config.seed, at.seen)
        order = self.algorithm.prompt_sampling.draw(self.examples, count, standing)
        self.progress = replace(self.progress, drawn=self.progress.drawn + count)
        chosen = [self.examples[i] for i in dict.fromkeys(order)]
        if self.algorithm.response_sampling.offline:
            return [self.world.learner.encode(e) for e in chosen], []
        self.absorb(IDLE_SECONDS if self.progress.iteration == 0 else 0.05)
        missing = [e.prompt for e in chosen if e.prompt.prompt_id not in self.buffer.prompt_ids]
        if missing:
            self.record(self.narrowed(self.sample(missing)))
        deadline = time.monotonic() + self.config.feedback_timeout_seconds
        # Past the deadline the run goes on with what is complete; with nothing complete there is nothing to go on with.
        while not self.buffer.all_complete and (time.monotonic() < deadline or not self.buffer.any_complete):
            self.absorb(IDLE_SECONDS, until_complete=True)
            if self.buffer.waiting:
                self.control.status(f"waiting for feedback on {self.buffer.waiting} groups", True)
        return self.buffer.take()

    def sample(self, prompts: Sequence[Prompt]) -> list[Group]:
        """One group a prompt, whose completions follow the sampler's draws in order."""
        started = time.monotonic()
        draws = self.algorithm.response_sampling.draws
        parts = [self.answers(prompts, draw, number) for number, draw in enumerate(draws)]
        groups = [tuple(c for part in parts for c in part[p]) for p in range(len(prompts))]
        self._sampling_seconds += time.monotonic() - started
        self._tokens += sum(len(c.token_ids) for group in groups for c in group)
        return [
            Group(g[0].group_id, p, tuple(replace(c, group_id=g[0].group_id) for c in g))
            for p, g in zip(prompts, groups, strict=True)
        ]

    def narrowed(self, groups: list[Group]) -> list[Group]:
        """The answers that are worth a label, where the response sampler chooses before anybody is asked."""
        sampler = self.algorithm.response_sampling
        if not isinstance(sampler, Narrowing):
            return groups
        completions = [c for g in groups for c in g.completions]
        if sampler.judges:
            prompts = [g.prompt for g in groups for _ in g.completions]
            columns = [self.scores(judge, prompts, completions) for judge in sampler.judges]
        else:
            columns = [self.world.learner.log_ratios(completions)]
        rows = zip(*columns, strict=True)
        evidence = {c.completion_id: row for c, row in zip(completions, rows, strict=True)}
        return [sampler.narrow(g, evidence, self.config.seed + self.progress.drawn) for g in groups]

    def scores(self, judge: str, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        """An abstention is nobody's favourite."""
        found = self.control.patiently(f"asking {judge}", lambda: self.world.labeler.score(judge, prompts, completions))
        return [float("-inf") if score is None else score for score in found]

    def answers(self, prompts: Sequence[Prompt], draw: Draw, number: int) -> list[list[Completion]]:
        settings = SamplingSettings(
            temperature=0.0 if draw.greedy else self.config.temperature,
            max_tokens=self.config.max_tokens,
            seed=self.config.seed * 1_000_003 + self.progress.drawn + number * 7919,
        )
        return self.control.patiently(
            "sampling", lambda: self.world.generator.sample(prompts, draw.n, settings, draw.policy)
        )

    def record(self, groups: list[Group]) -> None:
        request = f"{self.run_id}/{self.progress.iteration + 1}/{uuid.uuid4().hex}"
        self.control.patiently(
            "recording", lambda: self.world.feedback.record(self.run_id, self.config.labeler, groups, request)
        )
        self.buffer.expect(groups)

    def absorb(self, idle_seconds: float, until_complete: bool = False) -> None:
        def read() -> None:
            events = self.world.feedback.stream(self.run_id, self.buffer.cursor, idle_seconds)
            self.buffer.absorb(events, until_complete)

        self.control.patiently("collecting feedback", read)

    def young(self, group: Group) -> bool:
        """Too old for a policy gradient is still good for a pair (invariant 8); age counts label lag."""
        coefficient = self.algorithm.gradient_coefficient
        if not getattr(coefficient, "on_policy", "rewards" in coefficient.needs):
            return True
        sampled = own(self.algorithm.response_sampling, group)
        age = self.progress.version - min((c.policy_version for c in sampled), default=self.progress.version)
        return age <= self.config.max_policy_age

    def update(self, selection: Selection) -> dict[str, float]:
        """Axis 3. Nothing to learn from (all groups uniform, say) is no update, and no new version."""
        self.control.status(f"updating on {len(selection.completions)} completions", False)
        return self.world.learner.update(selection) if selection.completions else {}

    def deliver(self, numbers: Mapping[str, float]) -> Delivery:
        """Publish, load, prove, judge, promote. A refusal is a recorded decision, not an error."""
        versions = self.control.patiently("asking for versions", self.world.publisher.versions)
        self.check_serving(versions)
        version = 1 + max(manifest.latest_version(self.world.policies), *(v.version for v in versions))
        lineage = {
            "parent": self.progress.version,
            "run_id": self.run_id,
            "iteration": self.progress.iteration + 1,
            "feedback_cursor": self.buffer.cursor,
        }
        digest = self.world.learner.publish(self.world.policies, version, lineage, numbers)
        for attempt in range(LOAD_ATTEMPTS):
            try:
                candidate = self.control.patiently(
                    f"proving version {version}", lambda: self.prove(version, digest, numbers)
                )
                return self.control.patiently(f"swapping to version {version}", partial(self.settle, candidate))
            except PolicyRejected as error:
                decision = GateDecision(False, (f"{error.reason}: {error.message}",), {})
                return Delivery(version, False, decision, self.progress.heldout_serving, float("nan"))
            except WrongState as error:
                if error.reason != "POLICY_NOT_LOADED" or attempt == LOAD_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def check_serving(self, versions: Sequence[PolicyVersion]) -> None:
        """The gate compares with what serves, so the run must stand there. Raises WrongState when somebody rolled back
        or promoted something else: going on would undo it. A candidate of this run's own, promoted just before a
        crash, is no stranger; it is judged anew, as is whatever has no held-out reward yet."""
        serving = next(v for v in versions if v.state is PolicyState.SERVING)
        own = serving.run_id == self.run_id and serving.version > self.progress.version
        if serving.version != self.progress.version and not own:
            raise WrongState(
                f"Version {serving.version} serves, but the run stands at version {self.progress.version}: "
                "somebody rolled back, or another run promoted.",
                "Start a new run: it begins at what serves.",
                "SERVING_CHANGED",
            )
        if self.config.judge != "none" and (own or math.isnan(self.progress.heldout_serving)):
            heldout, _ = self.control.patiently("judging the serving policy", lambda: self.evaluate("serving"))
            before = heldout if math.isnan(self.progress.heldout_before) else self.progress.heldout_before
            self.progress = replace(self.progress, heldout_before=before, heldout_serving=heldout)
            if not own:
                self.world.note(self.progress)

    def prove(self, version: int, digest: str, numbers: Mapping[str, float]) -> Delivery:
        """Load, judge, decide. Repeatable: loading the same version twice is the same as once."""
        started = time.monotonic()
        self.world.publisher.load(version, digest)
        load_ms = 1000 * (time.monotonic() - started)
        heldout, completions = self.evaluate(str(version))
        kl = self.world.learner.kl(completions)
        update = {name: numbers[name] for name in ("grad_norm",) if name in numbers}
        judged = (heldout, self.progress.heldout_serving) if self.config.judge != "none" else None
        return Delivery(version, True, gate.decide(self.config.gate, judged, kl, update), heldout, kl, load_ms)

    def settle(self, candidate: Delivery) -> Delivery:
        """Carry the decision out. Repeatable by its request id, and never decided twice."""
        request = f"{self.run_id}/v{candidate.version}"
        if not candidate.decision.promote:
            self.world.publisher.reject(candidate.version, candidate.decision, request)
            return candidate
        swap_ms = self.world.publisher.promote(candidate.version, candidate.decision, request)
        return replace(candidate, swap_ms=swap_ms)

    def evaluate(self, policy: str) -> tuple[float, list[Completion]]:
        """Mean reward of greedy answers to the held-out prompts.

        NaN when nobody judges, or when the labeler abstained on more than a tenth: means over different prompts are
        not compared.
        """
        settings = SamplingSettings(temperature=0.0, max_tokens=self.config.max_tokens)
        answers = [g[0] for g in self.world.generator.sample(self.heldout, 1, settings, policy)]
        if self.config.judge == "none":
            return float("nan"), answers
        rewards = self.world.labeler.score(self.config.judge, self.heldout, answers)
        known = [r for r in rewards if r is not None]
        enough = len(known) >= max(1.0, JUDGED_SHARE * len(rewards))
        return (sum(known) / len(known) if enough else float("nan")), answers

    def row(
        self,
        groups: Sequence[Group],
        numbers: Mapping[str, float],
        delivery: Delivery | None,
        dropped: Counter[str],
        seconds: float,
    ) -> IterationRow:
        sampler = self.algorithm.response_sampling
        sampled = [(g, c.completion_id) for g in groups for c in own(sampler, g)]
        rewards = [g.rewards[name] for g, name in sampled if name in g.rewards]
        promoted = bool(delivery and delivery.decision.promote)
        speed = self._tokens / self._sampling_seconds if self._sampling_seconds else 0.0
        self._tokens, self._sampling_seconds = 0, 0.0
        return IterationRow(
            run_id=self.run_id,
            iteration=self.progress.iteration + 1,
            policy_version=delivery.version if delivery and promoted else self.progress.version,
            promoted=promoted,
            proved=bool(delivery and delivery.proved),
            train_reward=sum(rewards) / len(rewards) if rewards else float("nan"),
            heldout_reward=delivery.heldout if delivery else self.progress.heldout_serving,
            kl=delivery.kl if delivery else 0.0,
            swap_ms=delivery.swap_ms if delivery else 0.0,
            load_ms=delivery.load_ms if delivery else 0.0,
            tokens_per_second=speed,
            seconds=seconds,
            metrics={**numbers, **self.counts("dropped", dropped), **self.counts("late", self.buffer.late)},
            decision=delivery.decision if delivery else None,
        )

    @staticmethod
    def counts(name: str, counter: Counter[str]) -> dict[str, float]:
        return {f"{name}_{reason}": float(n) for reason, n in counter.items() if n}

    def commit(self, row: IterationRow, delivery: Delivery | None, consumed: list[tuple[int, str]]) -> None:
        """Checkpoint first, then the transaction that names it: a crash in between repeats the iteration."""
        self.progress = replace(
            self.progress,
            iteration=row.iteration,
            cursor=self.buffer.resume_cursor,
            version=row.policy_version,
            heldout_serving=row.heldout_reward if row.promoted else self.progress.heldout_serving,
        )
        name = f"{row.iteration:06d}"
        self.world.learner.save(self.world.checkpoints / name)
        self.world.commit(row, self.progress, name, consumed)


def look(group: Group, sampled: Sequence[Completion], iteration: int) -> Seen:
    """What an adaptive prompt sampler remembers of a group: of the answers that the policy sampled."""
    rewards = [group.rewards[c.completion_id] for c in sampled if c.completion_id in group.rewards]
    mean = sum(rewards) / len(rewards) if rewards else None
    spread = None
    if mean is not None and len(rewards) > 1:
        spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    logprobs = [t for c in sampled for t in c.logprobs]
    return Seen(mean, spread, -sum(logprobs) / max(1, len(logprobs)), iteration)
