"""Which policy versions exist, which one serves, and how one becomes the other (invariants 1, 2 and 10).

    LOADING -> PROVED -> SERVING -> PREVIOUS -> RETIRED        LOADING or PROVED -> REJECTED

Every change is written to disk before it is answered, so that a restarted server comes back on the version it served.
Requests hold the version they started on (`using`); a version leaves the engine only when its last request is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from iterpo.errors import Conflict, InvalidInput, NotFound, PolicyRejected, Unavailable, WrongState
from iterpo.policies import adapter as adapters
from iterpo.policies import manifest, probe
from iterpo.types import BASE_VERSION, GateDecision, PolicyState, PolicyVersion, Proof
from services.inference.delivery import Delivery, Source, not_loaded

logger = logging.getLogger(__name__)

ALIASES = ("serving", "candidate", "previous", "base")
SERVABLE = (PolicyState.SERVING, PolicyState.PREVIOUS, PolicyState.PROVED)
NOT_ITS_FAULT = ("POLICY_MISSING", "STALE_MANIFEST", "POLICY_REJECTED")
"""Reasons that say nothing new about a version: other bytes may lie at its path, or none."""
IDLE_TIMEOUT_SECONDS = 120.0
"""How long a load waits for the last requests of the version whose place it takes."""
REMEMBERED_REQUESTS = 1000


class PolicyRegistry:
    def __init__(
        self,
        root: Path,
        state_file: Path,
        delivery: Delivery,
        base_digest: str,
        probe_sequences: Sequence[tuple[int, ...]],
        max_rank: int,
    ) -> None:
        self._root, self._file, self._delivery = root, state_file, delivery
        self._probe_sequences, self._max_rank = tuple(probe_sequences), max_rank
        self.base_digest = base_digest
        self._versions = {BASE_VERSION: PolicyVersion(BASE_VERSION, base_digest, PolicyState.SERVING)}
        self._serving, self._previous = BASE_VERSION, BASE_VERSION
        self._requests: dict[str, list[Any]] = {}
        self._leaving: set[int] = set()
        self._in_flight: Counter[int] = Counter()
        self._went_idle = asyncio.Event()
        self._change = asyncio.Lock()
        self._base_logprobs: list[list[float]] = []

    async def start(self) -> None:
        """Start the engine, measure the base's probe, and bring back the version that served before a restart."""
        await self._delivery.start()
        self._base_logprobs = await self._measure(BASE_VERSION)
        if self._file.exists():
            await self._restore(json.loads(self._file.read_text()))

    async def _restore(self, saved: dict[str, Any]) -> None:
        if saved["base_digest"] != self.base_digest:
            logger.warning("the base model changed since the last start: serving the base, older versions are void")
            return
        known = {v.version: replace(v, state=_after_restart(v.state)) for v in map(_version, saved["policies"])}
        self._versions = known | {BASE_VERSION: replace(self._versions[BASE_VERSION], state=PolicyState.RETIRED)}
        self._requests, wanted = saved["requests"], saved["serving"]
        if wanted != BASE_VERSION:
            try:
                await self._load(wanted, known[wanted].digest)
            except PolicyRejected as error:
                logger.error("version %d, which served before, is refused: %s", wanted, error)
                wanted = BASE_VERSION
        previous = saved["previous"] if wanted == saved["serving"] else BASE_VERSION
        self._serve(wanted, previous)
        self._save()

    # What requests use.

    def resolve(self, policy: str) -> int:
        """A version number from an alias or a decimal number. Raises InvalidInput, NotFound."""
        if policy in ("", "serving"):
            return self._serving
        if policy == "base":
            return BASE_VERSION
        if policy == "previous":
            return self._previous
        if policy == "candidate":
            proved = [v.version for v in self._versions.values() if v.state is PolicyState.PROVED]
            if not proved:
                raise NotFound("There is no candidate.", "Load a policy version first.", "POLICY_NOT_FOUND")
            return max(proved)
        if not policy.isdecimal():
            raise InvalidInput(f"Unknown policy {policy!r}.", f"Use a version number or {', '.join(ALIASES)}.")
        return self.get(int(policy)).version

    def get(self, version: int) -> PolicyVersion:
        if version not in self._versions:
            raise NotFound(f"There is no policy version {version}.", "See: iterpo policies list.", "POLICY_NOT_FOUND")
        return self._versions[version]

    @asynccontextmanager
    async def using(self, policy: str, fetch_base: bool = False) -> AsyncIterator[tuple[PolicyVersion, Source]]:
        """Pin a version for one request. Unproved versions, and those about to leave, serve nobody.

        `fetch_base`: where the base had to make room, bring it back first (what leaves for it is a candidate or the
        previous version, which is loaded again when it is needed). For runs that sample from their reference.
        """
        version = self.get(self.resolve(policy))
        if fetch_base and version.version == BASE_VERSION and not self._has_base():
            await asyncio.shield(asyncio.ensure_future(self._fetch_base()))
        servable = version.state in SERVABLE or version.version == BASE_VERSION
        if not servable or version.version in self._leaving:
            raise not_loaded(version.version)
        source = self._delivery.source(version.version)
        self._in_flight[version.version] += 1
        try:
            yield version, source
        finally:
            self._in_flight[version.version] -= 1
            if not self._in_flight[version.version]:
                self._went_idle.set()

    # What changes the policies: one change at a time, and each goes through even when its caller hangs up.

    async def load(self, version: int, manifest_digest: str) -> PolicyVersion:
        """Verify, install and probe. Loading a proved version again is free; REJECTED is final for these bytes."""
        if not manifest_digest:
            raise InvalidInput("manifest_digest is empty.", "Send the SHA-256 of the version's manifest.json.")
        return await asyncio.shield(asyncio.ensure_future(self._load_once(version, manifest_digest)))

    async def promote(self, version: int, decision: GateDecision, request_id: str) -> float:
        """Serve a proved version; returns the seconds until new requests could start on it."""
        return await asyncio.shield(asyncio.ensure_future(self._promote(version, decision, request_id)))

    async def rollback(self, request_id: str, reason: str = "") -> float:
        """Serve the previous version again; it is loaded and proved once more if the engine no longer holds it."""
        return await asyncio.shield(asyncio.ensure_future(self._rollback(request_id, reason)))

    async def retire(self, version: int, decision: GateDecision | None, request_id: str = "") -> PolicyVersion:
        """Take a version out; with a decision that refuses it, REJECTED for good. What serves, or what a rollback
        would return to, cannot go."""
        return await asyncio.shield(asyncio.ensure_future(self._retire(version, decision, request_id)))

    async def _load_once(self, version: int, manifest_digest: str) -> PolicyVersion:
        async with self._change:
            known = self._versions.get(version)
            if known is not None and known.digest != manifest_digest:
                raise Conflict(
                    f"Policy version {version} is already known with digest {known.digest[:12]}.",
                    "A version is immutable: publish under the next number.",
                    "VERSION_REUSED",
                )
            if not self._ready(version):
                await self._load(version, manifest_digest)
                self._save()
            return self._versions[version]

    async def _load(self, version: int, manifest_digest: str) -> None:
        """The proof itself. However it ends, nothing unproved stays in the engine."""
        before = self._versions.get(version)
        if before is not None and before.state is PolicyState.REJECTED:
            raise PolicyRejected(
                f"Policy version {version} was rejected before: {before.reason}.", "Publish a new version."
            )
        entry = replace(
            before or PolicyVersion(version, manifest_digest, PolicyState.LOADING), state=PolicyState.LOADING
        )
        try:
            made, files = await asyncio.to_thread(manifest.read, self._root, version, manifest_digest)
            entry = replace(entry, parent=made.parent, run_id=made.run_id, method=made.method, metrics=made.metrics)
            self._check_origin(made)
            adapter = await asyncio.to_thread(adapters.parse, files, self._max_rank)
            self._versions[version] = entry
            await self._make_room()
            await self._delivery.install(version, adapter, files)
            learner = made.probe.base_logprobs, made.probe.delivered(self._delivery.name)
            entry = replace(entry, proof=probe.compare(*learner, self._base_logprobs, await self._measure(version)))
            if entry.proof is not None and not entry.proof.proved:
                raise _disproved(version, entry.proof)
        except BaseException as error:
            await self._delivery.remove(version)
            self._forget(entry, before, error)
            raise
        self._versions[version] = replace(entry, state=PolicyState.PROVED)

    def _forget(self, entry: PolicyVersion, before: PolicyVersion | None, error: BaseException) -> None:
        """A version that failed a proof is REJECTED; anything else that went wrong says nothing about its bytes."""
        if isinstance(error, PolicyRejected) and error.reason not in NOT_ITS_FAULT:
            self._versions[entry.version] = replace(entry, state=PolicyState.REJECTED, reason=error.reason)
            self._save()
        elif before is not None:
            self._versions[entry.version] = replace(before, state=PolicyState.RETIRED)
        else:
            self._versions.pop(entry.version, None)

    def _check_origin(self, made: manifest.Manifest) -> None:
        if made.base_digest != self.base_digest:
            raise PolicyRejected(
                f"Version {made.version} was trained on base {made.base_digest[:12]}, "
                f"this server holds {self.base_digest[:12]}.",
                "Serve the base that the learner trains on: the same model.path for both.",
                "BASE_MISMATCH",
            )
        if made.probe.sequences != self._probe_sequences:
            raise PolicyRejected(
                f"Version {made.version} carries another probe than this server's.",
                "Run learner and inference from the same release of iterpo.",
                "PROBE_MISMATCH",
            )

    async def _promote(self, version: int, decision: GateDecision, request_id: str) -> float:
        started = time.monotonic()
        async with self._change:
            if self._done_before(request_id, "promote", version) or self._serving == version:
                return 0.0
            check_decision(version, decision)
            entry = self.get(version)
            if version == BASE_VERSION:
                await self._bring_back_base()
            elif not self._ready(version):
                raise not_loaded(version)
            self._versions[version] = replace(entry, decision=decision)
            self._remember(request_id, "promote", version)
            self._serve(version, self._serving)
            self._save()
        return time.monotonic() - started

    async def _rollback(self, request_id: str, reason: str) -> float:
        started = time.monotonic()
        async with self._change:
            if self._done_before(request_id, "rollback"):
                return 0.0
            target, left = self._previous, self._serving
            if target == left:
                raise WrongState("There is no previous version.", "Promote a version first.", "NO_PREVIOUS")
            if target == BASE_VERSION:
                await self._bring_back_base()
            elif not self._ready(target):
                await self._load(target, self.get(target).digest)
            self._remember(request_id, "rollback", target)
            self._serve(target, left)
            if reason:
                self._versions[left] = replace(self._versions[left], reason=f"rolled back: {reason}")
            self._save()
        return time.monotonic() - started

    def _has_base(self) -> bool:
        return BASE_VERSION in self._delivery.loaded() and BASE_VERSION not in self._leaving

    async def _fetch_base(self) -> None:
        async with self._change:
            await self._bring_back_base()
            self._save()

    async def _bring_back_base(self) -> None:
        """The base is its own proof: the engine must measure what it measured when it started."""
        if BASE_VERSION in self._delivery.loaded():
            return
        await self._make_room()
        await self._delivery.install(BASE_VERSION, None, {})
        drift = probe.distance(await self._measure(BASE_VERSION), self._base_logprobs)
        if drift > 0:
            await self._delivery.remove(BASE_VERSION)
            raise PolicyRejected(
                f"The reloaded base differs from the base by {drift:.4f} nats a token.",
                "The files of the base changed under the running server: restart inference.",
                "BASE_DRIFTED",
            )

    async def _retire(self, version: int, decision: GateDecision | None, request_id: str) -> PolicyVersion:
        async with self._change:
            entry = self.get(version)
            if self._done_before(request_id, "retire", version):
                return entry
            if version in (self._serving, self._previous):
                raise WrongState(
                    f"Version {version} is {entry.state}.",
                    "Promote another version first, or roll back.",
                    "STILL_SERVING" if version == self._serving else "STILL_PREVIOUS",
                )
            if version != BASE_VERSION:
                refused = decision is not None and not decision.promote
                state = PolicyState.REJECTED if refused else PolicyState.RETIRED
                reason = "GATE_REFUSED" if refused else ""
                self._versions[version] = replace(
                    entry, state=state, decision=decision or entry.decision, reason=reason
                )
                await self._evict(version)
                self._remember(request_id, "retire", version)
                self._save()
            return self._versions[version]

    def listed(self) -> list[tuple[PolicyVersion, int]]:
        """Every known version with its requests in flight, oldest first."""
        return [(self._versions[v], self._in_flight[v]) for v in sorted(self._versions)]

    @property
    def serving(self) -> PolicyVersion:
        return self._versions[self._serving]

    def _serve(self, version: int, previous: int) -> None:
        """The swap itself: from here on, new requests start on `version`. No await: nobody sees half of it."""
        for other, entry in self._versions.items():
            if entry.state in (PolicyState.SERVING, PolicyState.PREVIOUS):
                self._versions[other] = replace(entry, state=PolicyState.RETIRED)
        self._serving, self._previous = version, previous
        for role, state in ((previous, PolicyState.PREVIOUS), (version, PolicyState.SERVING)):
            self._versions[role] = replace(self._versions[role], state=state)

    async def _make_room(self) -> None:
        for version in self._delivery.evictions(self._serving, self._previous):
            entry = self._versions[version]
            if entry.state in (PolicyState.PROVED, PolicyState.PREVIOUS):
                self._versions[version] = replace(entry, state=PolicyState.RETIRED)
            await self._evict(version)

    async def _evict(self, version: int) -> None:
        """Take a version out once its last request is over; meanwhile no new one starts on it."""
        if version not in self._delivery.loaded():
            return
        self._leaving.add(version)
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
                while self._in_flight[version]:
                    self._went_idle.clear()
                    await self._went_idle.wait()
            await self._delivery.remove(version)
        except TimeoutError as error:
            raise Unavailable(
                f"Version {version} still answers requests after {IDLE_TIMEOUT_SECONDS:.0f} s.",
                "Try again when they are over.",
                "STILL_IN_USE",
            ) from error
        finally:
            self._leaving.discard(version)

    def _ready(self, version: int) -> bool:
        """Proved, and in the engine now."""
        entry = self._versions.get(version)
        return entry is not None and entry.state in SERVABLE and version in self._delivery.loaded()

    async def _measure(self, version: int) -> list[list[float]]:
        source = self._delivery.source(version)
        return [await source.engine.score(ids, source.lora) for ids in self._probe_sequences]

    def _done_before(self, request_id: str, what: str, version: int | None = None) -> bool:
        """Whether this very request was carried out. Raises Conflict when its id was used for another one."""
        done = self._requests.get(request_id)
        if done is None:
            return False
        if done[0] != what or version not in (None, done[1]):
            raise Conflict(
                f"Request id {request_id!r} was used for: {done[0]} {done[1]}.",
                "Use a new id for a new request.",
                "REQUEST_ID_REUSED",
            )
        return True

    def _remember(self, request_id: str, what: str, version: int) -> None:
        if request_id:
            self._requests[request_id] = [what, version]
            while len(self._requests) > REMEMBERED_REQUESTS:
                del self._requests[next(iter(self._requests))]

    def _save(self) -> None:
        state = {
            "base_digest": self.base_digest,
            "serving": self._serving,
            "previous": self._previous,
            "requests": self._requests,
            "policies": [asdict(v) for v in self._versions.values() if v.version != BASE_VERSION],
        }
        staging = self._file.with_suffix(".writing")
        staging.write_text(json.dumps(state, indent=1))
        manifest.sync(staging)
        staging.rename(self._file)
        manifest.sync(self._file.parent)


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


def _disproved(version: int, proof: Proof) -> PolicyRejected:
    return PolicyRejected(
        f"The probe of version {version} failed: engine against learner {proof.error:.4f} nats a token "
        f"(noise {proof.noise_floor:.4f}), engine against its base {proof.shift:.4f}.",
        "The engine does not compute what the learner trained: publish again; if it persists, compare their versions.",
        proof.reason,
    )


def _after_restart(state: PolicyState) -> PolicyState:
    """Engines start with the base alone: whatever was loaded is loaded no more."""
    return state if state is PolicyState.REJECTED else PolicyState.RETIRED


def _version(raw: dict[str, Any]) -> PolicyVersion:
    proof, decision = raw.pop("proof"), raw.pop("decision")
    if decision:
        decision = GateDecision(decision["promote"], tuple(decision["reasons"]), decision["numbers"])
    state = PolicyState(raw.pop("state"))
    return PolicyVersion(**raw, state=state, proof=Proof(**proof) if proof else None, decision=decision)
