"""The synchronous loop: sample, collect feedback, update, publish, prove, gate, promote, commit. On one screen.

prompts --axis 1--> generator --axis 2--> feedback store --labels--> buffer --axis 3--> learner
   ^                                                                                       |
   |                                    serving <--promote-- gate <--proof-- load <--publish
   +---------------------------------------------------------------------------------------+
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from iterpo.algorithms import Algorithm
from iterpo.buffer import GroupBuffer
from iterpo.collect import Collector
from iterpo.errors import PolicyRejected, WrongState
from iterpo.patience import Control
from iterpo.policies import gate, manifest
from iterpo.ports import World
from iterpo.replay import Replay
from iterpo.response_sampling import Selection, own
from iterpo.run_config import RunConfig
from iterpo.types import (
    Example,
    GateDecision,
    Group,
    IterationRow,
    PolicyState,
    PolicyVersion,
    Progress,
    Prompt,
    SamplingSettings,
)

LOAD_ATTEMPTS = 3
"""Inference may restart between load and promotion: the candidate is then loaded and proved again."""
AGAIN = ("POLICY_NOT_LOADED", "CANARY_UNDER_WAY")
CANARY_PERIOD_SECONDS = 2.0


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
    answers: Sequence[gate.Judged] = ()


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
        replay: Replay | None = None,
    ) -> None:
        """With `replay`, its groups are learned again, and only the last iteration delivers a candidate."""
        self.run_id, self.config, self.algorithm, self.world = run_id, config, algorithm, world
        self.heldout, self.progress, self.buffer, self.control = heldout, progress, buffer, control
        self.replays = replay is not None
        self.policy = config.policy(run_id)
        self.serving: Sequence[gate.Judged] | None = None
        """The serving version's held-out answers: what a candidate is compared with."""
        self.collector = replay or Collector(run_id, config, algorithm, examples, world, buffer, control)

    def iterations(self) -> Iterator[IterationRow]:
        """One committed row an iteration, from wherever `progress` stands to the last."""
        self.check_serving(self.control.patiently("asking for versions", self.world.publisher.versions))
        self.collector.remember(self.progress)
        while self.progress.iteration < self.config.iterations:
            self.control.point()
            started = time.monotonic()
            found = self.collector.collect(self.progress)
            self.progress = found.progress
            selection = self.algorithm.response_sampling.select(
                found.groups + found.replayed, self.config.seed + self.progress.iteration
            )
            before = self.world.learner.snapshot()
            numbers = self.update(selection)
            delivery = self.deliver(numbers, found.consumed) if self.delivers(numbers) else None
            if delivery and not delivery.decision.promote:
                self.world.learner.restore(before)
            dropped = found.dropped + selection.dropped
            row = self.row(found.groups, numbers, delivery, dropped, time.monotonic() - started)
            self.commit(row, delivery, found.consumed)
            yield row

    def delivers(self, numbers: Mapping[str, float]) -> bool:
        """A replay's iterations in between are nobody's policy."""
        return self.progress.iteration + 1 == self.config.iterations if self.replays else bool(numbers)

    def update(self, selection: Selection) -> dict[str, float]:
        """Axis 3. Nothing to learn from (all groups uniform, say) is no update, and no new version."""
        self.control.status(f"updating on {len(selection.completions)} completions", False)
        return self.world.learner.update(selection) if selection.completions else {}

    def deliver(self, numbers: Mapping[str, float], consumed: Sequence[tuple[int, str]] = ()) -> Delivery:
        """Publish, load, prove, judge, promote. A refusal is a recorded decision, not an error."""
        versions = self.without_canary()
        self.check_serving(versions)
        lineage = {
            "parent": self.progress.version,
            "run_id": self.run_id,
            "iteration": self.progress.iteration + 1,
            "feedback_first": min((cursor for cursor, _ in consumed), default=0),
            "feedback_cursor": self.buffer.cursor,
        }
        with self.world.publishing:
            version = 1 + max(manifest.latest_version(self.world.policies), *(v.version for v in versions))
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
                if error.reason not in AGAIN or attempt == LOAD_ATTEMPTS - 1:
                    raise
                self.without_canary()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def check_serving(self, versions: Sequence[PolicyVersion]) -> None:
        """The gate compares with what serves, so the run must stand there. Raises WrongState when somebody rolled back
        or promoted something else: going on would undo it (which is what a replay is for). A candidate of this run's
        own, promoted just before a crash, is no stranger; it is judged anew, as is whatever has no held-out reward
        yet."""
        serving = self.standing(versions)
        own = serving.run_id == self.run_id and serving.version > self.progress.version
        if not self.replays and serving.version != self.progress.version and not own:
            raise WrongState(
                f"{self.policy} is version {serving.version}, but the run stands at version {self.progress.version}: "
                "somebody rolled back or promoted.",
                "Start a new run: it begins at what serves.",
                "SERVING_CHANGED",
            )
        if self.serving is None or own:
            self.serving = self.control.patiently("judging the serving policy", lambda: self.evaluate(self.policy))
            heldout = gate.mean_reward(self.serving)
            before = heldout if math.isnan(self.progress.heldout_before) else self.progress.heldout_before
            self.progress = replace(self.progress, heldout_before=before, heldout_serving=heldout)
            if not own:
                self.world.note(self.progress)

    def standing(self, versions: Sequence[PolicyVersion]) -> PolicyVersion:
        """What the run's candidates are compared with, and what it samples from."""
        if not self.config.beside:
            return next(v for v in versions if v.state is PolicyState.SERVING)
        heads = self.control.patiently("asking for the run's version", self.world.publisher.heads)
        found = next((v for v in versions if v.version == heads.get(self.run_id)), None)
        if found is None:
            raise WrongState(
                f"Inference serves no version as {self.policy} any more: it was retired, or refused as a canary.",
                "Start a new run.",
                "RUN_HEAD_GONE",
            )
        return found

    def prove(self, version: int, digest: str, numbers: Mapping[str, float]) -> Delivery:
        """Load, judge, decide. Repeatable: loading the same version twice is the same as once."""
        started = time.monotonic()
        self.world.publisher.load(version, digest)
        load_ms = 1000 * (time.monotonic() - started)
        answers = self.evaluate(str(version))
        kl = self.world.learner.kl([judged.completion for judged in answers])
        update = {name: numbers[name] for name in ("grad_norm",) if name in numbers} | self.world.learner.structure()
        evidence = gate.Evidence(answers, self.serving or (), kl, update)
        decision = gate.decide(self.config.gate, evidence, self.config.judge != "none")
        return Delivery(version, True, decision, gate.mean_reward(answers), kl, load_ms, answers=answers)

    def settle(self, candidate: Delivery) -> Delivery:
        """Carry the decision out. Repeatable by its request id, and never decided twice."""
        request = f"{self.run_id}/v{candidate.version}"
        if not candidate.decision.promote:
            self.world.publisher.reject(candidate.version, candidate.decision, request)
            return candidate
        try:
            run = self.run_id if self.config.beside else ""
            swap_ms = self.world.publisher.promote(candidate.version, candidate.decision, request, run)
        except WrongState as error:
            if error.reason != "QUORUM_MISSED":
                raise
            refused = GateDecision(False, (f"{error.reason}: {error.message}",), candidate.decision.numbers)
            return self.settle(replace(candidate, decision=refused))
        return replace(candidate, swap_ms=swap_ms, decision=self.after_canary(candidate))

    def after_canary(self, candidate: Delivery) -> GateDecision:
        """What the gate decided, unless live traffic said otherwise."""
        found = next((v for v in self.without_canary() if v.version == candidate.version), None)
        if found is None:
            return GateDecision(False, ("inference forgot it while it was the canary",), candidate.decision.numbers)
        refused = found.decision is not None and not found.decision.promote
        return found.decision if found.decision and refused else candidate.decision

    def without_canary(self) -> Sequence[PolicyVersion]:
        """The versions, once none is the canary any more: what a run learns and loads beside one would stand on a
        policy that users may not want. A run beside what serves has nothing to do with it."""
        while True:
            versions = self.control.patiently("asking for versions", self.world.publisher.versions)
            canary = next((v.version for v in versions if v.state is PolicyState.CANARY), None)
            if canary is None or self.config.beside:
                return versions
            self.control.wait(f"version {canary} is the canary", CANARY_PERIOD_SECONDS)

    def evaluate(self, policy: str) -> list[gate.Judged]:
        """Greedy answers to the held-out prompts, with their rewards where somebody judges."""
        settings = SamplingSettings(temperature=0.0, max_tokens=self.config.max_tokens)
        answers = [g[0] for g in self.world.generator.sample(self.heldout, 1, settings, policy)]
        rewards: Sequence[float | None] = [None] * len(answers)
        if self.config.judge != "none":
            rewards = self.world.labeler.score(self.config.judge, self.heldout, answers)
        return [gate.Judged(*each) for each in zip(self.heldout, answers, rewards, strict=True)]

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
            tokens_per_second=self.collector.speed(),
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
        if delivery is not None and row.promoted:
            self.serving = delivery.answers
        name = f"{row.iteration:06d}"
        self.world.learner.save(self.world.checkpoints / name)
        self.world.commit(row, self.progress, name, consumed)
