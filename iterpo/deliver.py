"""The second half of an iteration: publish a candidate, have it loaded and proved, judge it, promote it or not.

learner --write--> policy directory --load--> proof --judge--> gate --promote--> serving
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from iterpo import tracing
from iterpo.errors import PolicyRejected, WrongState
from iterpo.patience import Control
from iterpo.policies import gate, manifest
from iterpo.ports import World
from iterpo.run_config import RunConfig
from iterpo.types import GateDecision, PolicyState, PolicyVersion, Progress, Prompt, SamplingSettings

LOAD_ATTEMPTS = 3
"""Inference may restart between load and promotion: the candidate is then loaded and proved again."""
AGAIN = ("POLICY_NOT_LOADED", "CANARY_UNDER_WAY")
CANARY_PERIOD_SECONDS = 2.0
NEWEST = 100
"""Versions that are asked for: what serves, and what a run made just now, are among them."""


@dataclass(frozen=True)
class Candidate:
    """A version that was written."""

    version: int
    digest: str
    numbers: Mapping[str, float]
    """What the gate looks at: `grad_norm` of the update, and the structure of the whole."""
    state: Any = None
    """The learner's snapshot, where it has learned on meanwhile."""


@dataclass(frozen=True)
class Delivery:
    """What became of a candidate."""

    version: int
    proved: bool
    decision: GateDecision
    heldout: float
    kl: float
    load_ms: float = 0.0
    judging_seconds: float = 0.0
    """Of its held-out answers, their rewards, and the KL to the base."""
    swap_ms: float = 0.0
    answers: Sequence[gate.Judged] = ()


class Deliverer:
    def __init__(
        self, run_id: str, config: RunConfig, heldout: Sequence[Prompt], world: World, control: Control
    ) -> None:
        self.run_id, self.config, self.heldout, self.world, self.control = run_id, config, heldout, world, control
        self.policy = config.policy(run_id)
        self._versions = partial(world.publisher.versions, NEWEST)
        self.serving: Sequence[gate.Judged] | None = None
        """The serving version's held-out answers: what a candidate is compared with."""

    def begin(self, at: Progress) -> Progress:
        return self.check_serving(self.control.patiently("asking for versions", self._versions), at)

    def write(
        self, at: Progress, numbers: Mapping[str, float], consumed: Sequence[tuple[int, str]], cursor: int
    ) -> Candidate:
        """Publish the learner's weights, whose parent is what the run stands at. `cursor`: of the feedback read."""
        versions = self.without_canary()
        self.check_serving(versions, at)
        lineage = {
            "parent": at.version,
            "run_id": self.run_id,
            "iteration": at.iteration + 1,
            "feedback_first": min((cursor for cursor, _ in consumed), default=0),
            "feedback_cursor": cursor,
        }
        with self.world.publishing, tracing.span("publish", run=self.run_id):
            version = 1 + max(manifest.latest_version(self.world.policies), *(v.version for v in versions))
            digest = self.world.learner.publish(self.world.policies, version, lineage, numbers)
        self.control.patiently(f"sharing version {version}", partial(self.world.share, version, digest))
        update = {name: numbers[name] for name in ("grad_norm",) if name in numbers} | self.world.learner.structure()
        return Candidate(version, digest, update)

    def judge(self, candidate: Candidate, at: Progress) -> Delivery:
        """Load, prove, judge, promote. A refusal is a recorded decision, not an error."""
        version = candidate.version
        if unseen := gate.decide_unseen(candidate.numbers):
            return Delivery(version, False, unseen, at.heldout_serving, float("nan"))
        for attempt in range(LOAD_ATTEMPTS):
            try:
                judged = self.control.patiently(f"proving version {version}", partial(self.prove, candidate))
                return self.control.patiently(f"swapping to version {version}", partial(self.settle, judged))
            except PolicyRejected as error:
                decision = GateDecision(False, (f"{error.reason}: {error.message}",), {})
                return Delivery(version, False, decision, at.heldout_serving, float("nan"))
            except WrongState as error:
                if error.reason not in AGAIN or attempt == LOAD_ATTEMPTS - 1:
                    raise
                self.without_canary()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def check_serving(self, versions: Sequence[PolicyVersion], at: Progress) -> Progress:
        """The gate compares with what serves, so the run must stand there. Raises WrongState when somebody rolled back
        or promoted something else: going on would undo it (which is what a replay is for). A candidate of this run's
        own, promoted just before a crash, is no stranger; it is judged anew, as is whatever has no held-out reward
        yet. A replay stands elsewhere than what serves."""
        serving = self.standing(versions)
        own = serving.run_id == self.run_id and serving.version > at.version
        if not self.config.replay_of and serving.version != at.version and not own:
            raise WrongState(
                f"{self.policy} is version {serving.version}, but the run stands at version {at.version}: "
                "somebody rolled back or promoted.",
                "Start a new run: it begins at what serves.",
                "SERVING_CHANGED",
            )
        if self.serving is None or own:
            self.serving = self.control.patiently("judging the serving policy", lambda: self.evaluate(self.policy))
            self.world.show(serving.version, self.serving)
            heldout = gate.mean_reward(self.serving)
            before = heldout if math.isnan(at.heldout_before) else at.heldout_before
            at = replace(at, heldout_before=before, heldout_serving=heldout)
            if not own:
                self.world.note(at)
        return at

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

    def prove(self, candidate: Candidate) -> Delivery:
        """Load, judge, decide. Repeatable: loading the same version twice is the same as once."""
        with tracing.span("prove", version=candidate.version):
            return self._prove(candidate)

    def _prove(self, candidate: Candidate) -> Delivery:
        started = time.monotonic()
        self.world.publisher.load(candidate.version, candidate.digest)
        loaded = time.monotonic()
        answers = self.evaluate(str(candidate.version))
        kl = self.world.learner.kl(gate.for_kl(answers), candidate.state)
        judging = time.monotonic() - loaded
        evidence = gate.Evidence(answers, self.serving or (), kl, candidate.numbers)
        decision = gate.decide(self.config.gate, evidence, self.config.judge != "none")
        load_ms, heldout = 1000 * (loaded - started), gate.mean_reward(answers)
        return Delivery(candidate.version, True, decision, heldout, kl, load_ms, judging, answers=answers)

    def settle(self, candidate: Delivery) -> Delivery:
        """Carry the decision out. Repeatable by its request id, and never decided twice."""
        with tracing.span("swap" if candidate.decision.promote else "refuse", version=candidate.version):
            return self._settle(candidate)

    def _settle(self, candidate: Delivery) -> Delivery:
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
        settled = replace(candidate, swap_ms=swap_ms, decision=self.after_canary(candidate))
        if settled.decision.promote:
            self.serving = settled.answers
            self.world.show(settled.version, settled.answers)
        return settled

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
            versions = self.control.patiently("asking for versions", self._versions)
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
