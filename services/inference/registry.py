"""How policy versions come, serve and go (invariants 1, 2 and 10). What each is for, `roster` says.

Every change is written to disk before it is answered, so that a restarted server comes back on the version it served.
Requests hold the version they started on (`lease`); a version leaves the engine only when its last request is over.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from iterpo.errors import (
    Conflict,
    InvalidInput,
    IterpoError,
    PolicyRejected,
    ResourceExhausted,
    WrongState,
)
from iterpo.policies.canary import Judgement, Verdict
from iterpo.policies.replicas import View
from iterpo.preload import give_back
from iterpo.types import BASE_VERSION, BEGINS, RUN, GateDecision, PolicyState, PolicyVersion
from services.inference import registry_file
from services.inference.delivery import Delivery, not_loaded
from services.inference.engine import Engine
from services.inference.lease import Lease
from services.inference.prover import Logprobs, Prover, disproved
from services.inference.registry_file import DoneRequests, Saved, Trial
from services.inference.residents import Residents
from services.inference.roster import Roster
from services.inference.split import choose

logger = logging.getLogger(__name__)

LIVE = (PolicyState.LOADING, PolicyState.PROVED, PolicyState.CANARY, PolicyState.SERVING, PolicyState.PREVIOUS)
NOT_ITS_FAULT = ("POLICY_MISSING", "STALE_MANIFEST", "POLICY_REJECTED")
"""Reasons that say nothing new about a version: other bytes may lie at its path, or none."""
TRIAL_SAVE_SECONDS = 10.0
"""A restart forgets this much of a canary's counts, at most."""
NOT_BACK = Judgement(Verdict.ROLLBACK, ("the canary did not come back after a restart",), {})
OVERTAKEN = Judgement(Verdict.ROLLBACK, ("another version was promoted by hand while it was the canary",), {})


class PolicyRegistry:
    def __init__(
        self,
        state_file: Path,
        delivery: Delivery,
        prover: Prover,
        canary_share: float = 0.0,
    ) -> None:
        """`canary_share` of the applications' requests goes to a promoted version first; 0: it serves at once."""
        self.canary_share = canary_share
        self._file, self._delivery, self._prover = state_file, delivery, prover
        self.base_digest = prover.base_digest
        self._roster = Roster(prover.base_digest)
        self._requests = DoneRequests()
        self._listeners: set[asyncio.Event] = set()
        self._serving_since = time.monotonic()
        self._trial_saved = -math.inf
        self._change = asyncio.Lock()
        self._residents = Residents(delivery, self._roster, self._change)
        self._base_logprobs: Logprobs = []
        self._base_weights = ""

    async def start(self) -> None:
        """Start the engine, measure the base's probe, and bring back the version that served before a restart."""
        await self._delivery.start()
        self._base_logprobs = await self._prover.measure(self._delivery.source(BASE_VERSION))
        self._base_weights = await self._delivery.fingerprint(BASE_VERSION)
        saved = registry_file.read(self._file)
        if saved is not None:
            await self._restore(saved)

    async def _restore(self, saved: Saved) -> None:
        if saved.base_digest != self.base_digest:
            logger.warning("the base model changed since the last start: serving the base, older versions are void")
            return
        base = replace(self._roster.get(BASE_VERSION), state=PolicyState.RETIRED)
        known = {v.version: replace(v, state=_after_restart(v.state)) for v in saved.policies.values()}
        self._roster.versions = known | {BASE_VERSION: base}
        self._requests = saved.requests
        back = await self._come_back(saved.serving)
        self._serve(saved.serving if back else BASE_VERSION, saved.previous if back else BASE_VERSION)
        if saved.trial is not None:
            if back and await self._come_back(saved.trial.version):
                self._roster.begin_trial(saved.trial)
            else:
                self._roster.record(saved.trial.version, NOT_BACK)
        self._roster.heads = self.heads_here(saved.heads)
        for run in saved.heads.keys() - self._roster.heads.keys():
            logger.warning("%s%s is given up: there is no slot for it (inference.run_slots)", RUN, run)
        for version in set(self._roster.heads.values()):
            if not self.is_ready(version) and not await self._come_back(version):
                if self.get(version).state is PolicyState.REJECTED:
                    self._roster.drop_head(version)
            elif version == self._roster.previous != self._roster.serving:
                self._roster.set_state(version, PolicyState.PREVIOUS)
        self._save()

    def heads_here(self, heads: Mapping[str, int]) -> dict[str, int]:
        """Those that there are slots for (inference.run_slots): the first in order of their names."""
        return dict(sorted(heads.items())[: self._delivery.run_slots])

    async def _come_back(self, version: int) -> bool:
        """Load and prove again what was there before a restart."""
        if version == BASE_VERSION:
            return True
        try:
            await self._load(version, self.get(version).digest)
        except IterpoError as error:
            logger.error("version %d, which was there before, is not back: %s", version, error)
            return False
        return True

    # What requests use.

    def resolve(self, policy: str) -> int:
        """A version number from an alias, a run's name or a decimal number. Raises InvalidInput, NotFound."""
        return self._roster.resolve(policy)

    def find(self, version: int) -> PolicyVersion | None:
        return self._roster.versions.get(version)

    def get(self, version: int) -> PolicyVersion:
        """Raises NotFound."""
        return self._roster.get(version)

    def lease(self, policy: str, user: str | None = None) -> Lease:
        """Pin a version for one request, to be entered at once.

        `user`: of an application's request, the key by which splits and the canary's share choose; None for the
        learner and whoever else wants what serves and nothing else.
        """
        live = user is not None and policy in ("", "serving")
        if user is not None:
            policy = choose(self._roster.traffic(self.canary_share) if live else policy, user, self.resolve)
        version = self.get(self.resolve(policy))
        if not self.can_answer(version.version):
            raise not_loaded(version.version)
        return Lease(version, self._delivery.source(version.version), self._residents.enter, self._left, live)

    @asynccontextmanager
    async def using(self, policy: str, fetch_base: bool = False) -> AsyncIterator[Lease]:
        """A lease of the learner's, or of our own.

        `fetch_base`: where the base had to make room, bring it back first (what leaves for it is a candidate or the
        previous version, which is loaded again when it is needed). For runs that sample from their reference.
        """
        if fetch_base and self.resolve(policy) == BASE_VERSION and not self.can_answer(BASE_VERSION):
            await asyncio.shield(asyncio.ensure_future(self._fetch_base()))
        with self.lease(policy) as lease:
            yield lease

    def _left(self, lease: Lease, failed: bool | None) -> None:
        self._residents.leave(lease)
        arm = self.trial.arm(lease.version.version, self._roster.serving) if self.trial and lease.live else None
        if arm is not None and failed is not None:
            arm.failed += failed
            arm.answered += not failed

    # What changes the policies: one change at a time, and each goes through even when its caller hangs up.

    async def load(self, version: int, manifest_digest: str) -> PolicyVersion:
        """Verify, install and probe. Loading a proved version again is free; REJECTED is final for these bytes."""
        if not manifest_digest:
            raise InvalidInput("manifest_digest is empty.", "Send the SHA-256 of the version's manifest.json.")
        return await asyncio.shield(asyncio.ensure_future(self._load_once(version, manifest_digest)))

    async def promote(self, version: int, decision: GateDecision, request_id: str, run: str = "") -> float:
        """Serve a proved version; returns the seconds until new requests could start on it. With `run`, to requests for
        that run alone (`run/NAME`): what serves stays."""
        change = partial(self._promote_beside, run) if run else self._promote
        return await asyncio.shield(asyncio.ensure_future(change(version, decision, request_id)))

    async def rollback(self, request_id: str, reason: str = "") -> float:
        """Serve the previous version again; it is loaded and proved once more if the engine no longer holds it."""
        return await asyncio.shield(asyncio.ensure_future(self._rollback(request_id, reason)))

    async def conclude(self, trial: Trial, judgement: Judgement) -> bool:
        """End a canary: it serves, or is REJECTED. False when it has ended already."""
        return await asyncio.shield(asyncio.ensure_future(self._conclude(trial, judgement)))

    async def adopt(self, view: View) -> None:
        """A replica's promotion: serve what the primary serves, once it is ready here, and then its canary, likewise.
        Whatever the primary has given up is given up first. The same view twice is the same as once."""
        await asyncio.shield(asyncio.ensure_future(self._adopt(view)))

    async def retire(self, version: int, decision: GateDecision | None, request_id: str = "") -> PolicyVersion:
        """Take a version out; with a decision that refuses it, REJECTED for good. What serves, or what a rollback
        would return to, cannot go."""
        return await asyncio.shield(asyncio.ensure_future(self._retire(version, decision, request_id)))

    async def release(self, run: str, request_id: str) -> PolicyVersion:
        """Take its name away from a run; returns what it named, which goes unless something else needs it."""
        return await asyncio.shield(asyncio.ensure_future(self._release(run, request_id)))

    async def _load_once(self, version: int, manifest_digest: str) -> PolicyVersion:
        async with self._change:
            known = self.find(version)
            if known is not None and known.digest != manifest_digest:
                raise Conflict(
                    f"Policy version {version} is already known with digest {known.digest[:12]}.",
                    "A version is immutable: publish under the next number.",
                    "VERSION_REUSED",
                )
            if not self.is_ready(version):
                try:
                    await self._load(version, manifest_digest)
                finally:
                    await asyncio.to_thread(give_back)  # it walks the whole heap
                needed = {version, *self._roster.roles(), *self._roster.heads.values()}
                await asyncio.to_thread(self._prover.folder.prune, needed)
                self._save()
            return self.get(version)

    async def _load(self, version: int, manifest_digest: str) -> None:
        """The proof itself. However it ends, nothing unproved stays in the engine."""
        before = self.find(version)
        if before is not None and before.state is PolicyState.REJECTED:
            raise PolicyRejected(
                f"Policy version {version} was rejected before: {before.reason}.", "Publish a new version."
            )
        entry = replace(
            before or PolicyVersion(version, manifest_digest, PolicyState.LOADING), state=PolicyState.LOADING
        )
        try:
            found = await self._prover.read(version, manifest_digest)
            made = found.manifest
            entry = replace(entry, parent=made.parent, run_id=made.run_id, method=made.method, metrics=made.metrics)
            self._roster.versions[version] = entry
            await self._residents.make_room()
            await self._delivery.install(version, found.adapter, found.files)
            measured = await self._prover.measure(self._delivery.source(version))
            proof = self._prover.judge(made, self._delivery.name, self._base_logprobs, measured)
            entry = replace(entry, proof=proof)
            if not proof.proved:
                raise disproved(version, proof)
        except BaseException as error:
            await self._delivery.remove(version)
            self._forget(entry, before, error)
            raise
        self._roster.versions[version] = replace(entry, state=PolicyState.PROVED)

    def _forget(self, entry: PolicyVersion, before: PolicyVersion | None, error: BaseException) -> None:
        """A version that failed a proof is REJECTED; anything else that went wrong says nothing about its bytes."""
        if isinstance(error, PolicyRejected) and error.reason not in NOT_ITS_FAULT:
            self._roster.versions[entry.version] = replace(entry, state=PolicyState.REJECTED, reason=error.reason)
            self._save()
        elif before is not None:
            self._roster.versions[entry.version] = replace(before, state=PolicyState.RETIRED)
        else:
            self._roster.versions.pop(entry.version, None)

    async def _promote(self, version: int, decision: GateDecision, request_id: str) -> float:
        started = time.monotonic()
        async with self._change:
            if not self.may_promote(version, decision, request_id):
                return 0.0
            by_hand = "by_hand" in decision.numbers
            if self.trial is not None and not by_hand:
                raise WrongState(
                    f"Version {self.trial.version} is the canary.",
                    "Wait for its test, or decide: iterpo policies promote | rollback.",
                    "CANARY_UNDER_WAY",
                )
            if version == BASE_VERSION:
                await self._bring_back_base()
            self._roster.decide(version, decision)
            self._requests.remember(request_id, "promote", version)
            if self.canary_share and not by_hand and version not in (BASE_VERSION, self._roster.previous):
                self._roster.begin_trial(Trial(version, time.time()))
            else:
                if self.trial is not None and self.trial.version != version:
                    self._roster.record(self.trial.version, OVERTAKEN)
                self._serve(version, self._roster.serving)
            self._save()
        return time.monotonic() - started

    async def _promote_beside(self, run: str, version: int, decision: GateDecision, request_id: str) -> float:
        started = time.monotonic()
        async with self._change:
            what = f"promote for {run}:"
            if self._requests.done(request_id, what, version):
                return 0.0
            self._check_promotion(version, decision)
            self._check_run(run)
            if BEGINS not in decision.numbers:
                self._roster.decide(version, decision)
            self._requests.remember(request_id, what, version)
            self._roster.set_head(run, version)
            self._residents.drop_idle()
            self._save()
        return time.monotonic() - started

    def _check_run(self, run: str) -> None:
        """Whether one more run can be served under its name."""
        heads, places = self._roster.heads, self._delivery.run_slots
        if not places:
            raise WrongState(
                f"{self._delivery.name.capitalize()} delivery serves no runs side by side.",
                'Set inference.delivery = "adapter" and inference.run_slots.',
                "NO_RUN_SLOTS",
            )
        if run not in heads and len(heads) >= places:
            raise ResourceExhausted(
                f"Every run slot is taken: {', '.join(heads)}.",
                "Take its name from one (iterpo policies retire --run NAME), or raise inference.run_slots.",
                "NO_RUN_SLOTS",
            )

    def may_promote(self, version: int, decision: GateDecision, request_id: str) -> bool:
        """False when it has been done. Raises NotFound, Conflict, and WrongState: NOT_GATED for a decision that is
        none, POLICY_NOT_LOADED for a version that nobody could answer with (the base is brought back)."""
        if self._requests.done(request_id, "promote", version) or self._roster.serving == version:
            return False
        self._check_promotion(version, decision)
        return True

    def _check_promotion(self, version: int, decision: GateDecision) -> None:
        check_decision(version, decision)
        self.get(version)
        if version != BASE_VERSION and not self.is_ready(version):
            raise not_loaded(version)

    async def _rollback(self, request_id: str, reason: str) -> float:
        started = time.monotonic()
        async with self._change:
            if self._requests.done(request_id, "rollback"):
                return 0.0
            if self.trial is not None:
                self._requests.remember(request_id, "rollback", self._roster.serving)
                said = f"rolled back: {reason}" if reason else "rolled back by hand"
                self._end_trial(Judgement(Verdict.ROLLBACK, (said,), {}))
                return time.monotonic() - started
            target, left = self._roster.previous, self._roster.serving
            if target == left:
                raise WrongState("There is no previous version.", "Promote a version first.", "NO_PREVIOUS")
            if target == BASE_VERSION:
                await self._bring_back_base()
            elif not self.is_ready(target):
                await self._load(target, self.get(target).digest)
            self._requests.remember(request_id, "rollback", target)
            self._serve(target, left)
            if reason:
                self._roster.versions[left] = replace(self.get(left), reason=f"rolled back: {reason}")
            self._save()
        return time.monotonic() - started

    async def _conclude(self, trial: Trial, judgement: Judgement) -> bool:
        async with self._change:
            if self.trial is not trial:
                return False
            self._end_trial(judgement)
            return True

    def _end_trial(self, judgement: Judgement) -> None:
        if self.trial is None:
            return
        version, self._roster.trial = self.trial.version, None
        if self._roster.record(version, judgement).promote:
            self._serve(version, self._roster.serving)
        else:
            self._roster.refuse(version, "CANARY_REFUSED")
        self._save()

    async def _adopt(self, view: View) -> None:
        async with self._change:
            before = self._saved(), self.canary_share
            view = replace(view, heads=self.heads_here(view.heads))
            self.canary_share = view.canary_share
            digests = {policy.version: policy.digest for policy in view.policies}

            def here(version: int) -> bool:
                """Ready, with the primary's bytes."""
                return version == BASE_VERSION or (version in digests and self.is_ready(version, digests[version]))

            self._roster.heed(view)
            if view.serving != self._roster.serving and here(view.serving):
                if view.serving == BASE_VERSION:
                    await self._bring_back_base()
                self._serve(view.serving, view.previous if self.find(view.previous) else BASE_VERSION)
            begins = self.trial is None and self._roster.serving == view.serving
            if begins and view.canary not in (0, view.serving) and here(view.canary):
                self._roster.begin_trial(Trial(view.canary, time.time()))
            for run, version in view.heads.items():
                if self._roster.heads.get(run) != version and here(version):
                    self._roster.set_head(run, version)
            if before != (self._saved(), self.canary_share):
                self._residents.drop_idle()
                self._save()

    async def _fetch_base(self) -> None:
        async with self._change:
            await self._bring_back_base()
            self._save()

    async def _bring_back_base(self) -> None:
        """The base is its own proof: the engine must hold what it held when it started, to the last bit."""
        if BASE_VERSION in self._delivery.loaded():
            return
        await self._residents.make_room()
        await self._delivery.install(BASE_VERSION, None, {})
        if await self._delivery.fingerprint(BASE_VERSION) != self._base_weights:
            await self._delivery.remove(BASE_VERSION)
            raise PolicyRejected(
                "The reloaded base has other weights than the base had when the server started.",
                "The files of the base changed under the running server: restart inference.",
                "BASE_DRIFTED",
            )

    async def _retire(self, version: int, decision: GateDecision | None, request_id: str) -> PolicyVersion:
        async with self._change:
            entry = self.get(version)
            if self._requests.done(request_id, "retire", version):
                return entry
            if version in self._roster.roles():
                raise WrongState(
                    f"Version {version} is {entry.state}.",
                    "Promote another version first, or roll back.",
                    f"STILL_{entry.state.name}",
                )
            if version != BASE_VERSION:
                refused = decision is not None and not decision.promote
                state = PolicyState.REJECTED if refused else PolicyState.RETIRED
                reason = "GATE_REFUSED" if refused else ""
                self._roster.drop_head(version)
                self._roster.versions[version] = replace(
                    entry, state=state, decision=decision or entry.decision, reason=reason
                )
                await self._residents.evict(version)
                self._requests.remember(request_id, "retire", version)
                self._save()
            return self.get(version)

    async def _release(self, run: str, request_id: str) -> PolicyVersion:
        async with self._change:
            what = f"release {run} from"
            if (done := self._requests.version_of(request_id, what)) is not None:
                return self.get(done)
            version = self._roster.release(run)
            self._requests.remember(request_id, what, version)
            self._residents.drop_idle()
            self._save()
            return self.get(version)

    def listed(self, newest: int = 0, below: int = 0) -> list[tuple[PolicyVersion, int]]:
        """Versions with their requests in flight, oldest first: all (0); the `newest` so many and whatever serves, may
        serve or is a run's; or so many of those below a version, and nothing else."""
        versions = self._roster.versions
        chosen = sorted(v for v in tuple(versions) if not below or v < below)
        if newest:
            held = {} if below else {v for v in chosen if versions[v].state in LIVE} | {*self._roster.heads.values()}
            chosen = sorted({*chosen[-newest:], *held})
        return [(versions[v], self._residents.requests_of(v)) for v in chosen]

    @property
    def total(self) -> int:
        return len(self._roster.versions)

    @property
    def serving_seconds(self) -> float:
        """Since what serves began to."""
        return time.monotonic() - self._serving_since

    @property
    def requests(self) -> int:
        """In flight, of all versions. May be asked from any thread."""
        return self._residents.requests

    def requests_on(self, engine: Engine) -> int:
        """In flight there."""
        return self._residents.requests_on(engine)

    def listen(self) -> asyncio.Event:
        """An event that is set at every change, until it is forgotten."""
        event = asyncio.Event()
        self._listeners.add(event)
        return event

    def forget(self, event: asyncio.Event) -> None:
        self._listeners.discard(event)

    def is_live(self, version: int) -> bool:
        """Whether it answers requests that ask for no particular version."""
        return version in self._roster.live()

    @property
    def serving(self) -> PolicyVersion:
        return self.get(self._roster.serving)

    @property
    def trial(self) -> Trial | None:
        """The canary under way."""
        return self._roster.trial

    @property
    def candidate(self) -> int:
        """The newest version that is proved and has no role yet; 0: none."""
        return self._roster.candidate

    @property
    def heads(self) -> dict[str, int]:
        """Run -> the version that requests for it get."""
        return dict(self._roster.heads)

    def names(self) -> list[str]:
        """What a request would be answered for now, beside version numbers."""
        return [name for name in self._roster.names() if self.can_answer(self.resolve(name))]

    def can_answer(self, version: int) -> bool:
        """Whether a request for it would be answered now."""
        return self._residents.can_answer(version)

    def _serve(self, version: int, previous: int) -> None:
        """From here on, new requests start on `version`."""
        self._roster.serve(version, previous)
        self._serving_since = time.monotonic()
        self._residents.drop_idle()

    def is_ready(self, version: int, digest: str = "") -> bool:
        """Proved, and in the engine now; with a digest, these very bytes."""
        return self._residents.is_ready(version, digest)

    def _save(self, quietly: bool = False) -> None:
        registry_file.write(self._file, self._saved())
        if not quietly:
            self.announce()

    def _saved(self) -> Saved:
        at = self._roster
        return Saved(
            self.base_digest, at.serving, at.previous, dict(at.versions), self._requests, at.trial, dict(at.heads)
        )

    def save_trial(self) -> None:
        """What was counted since the last change, for a restart, now and then: a save is a flush to the disk. Nobody is
        told."""
        if self.trial is not None and time.monotonic() > self._trial_saved + TRIAL_SAVE_SECONDS:
            self._trial_saved = time.monotonic()
            self._save(quietly=True)

    def announce(self) -> None:
        """Wake whoever listens."""
        for event in self._listeners:
            event.set()


def check_decision(version: int, decision: GateDecision) -> None:
    """Raises WrongState (NOT_GATED) unless the gate said yes and recorded finite numbers: a decision without them
    could not be looked at later (invariant 10). What the numbers mean is the gate's business, not the registry's."""
    odd = [name for name, value in decision.numbers.items() if not math.isfinite(value)]
    if decision.promote and decision.numbers and not odd:
        return
    said = (
        "is not to promote it" if not decision.promote else f"has no finite number for {', '.join(odd) or 'anything'}"
    )
    raise WrongState(
        f"The gate's decision on version {version} {said}.",
        "Send a decision that promotes, with its numbers.",
        "NOT_GATED",
    )


def _after_restart(state: PolicyState) -> PolicyState:
    """Engines start with the base alone: whatever was loaded is loaded no more."""
    return state if state is PolicyState.REJECTED else PolicyState.RETIRED
