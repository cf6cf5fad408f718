"""Which policy versions are known, and what each is for. No engine, no disk, no clock: `registry` has those.

    LOADING -> PROVED -> [CANARY ->] SERVING -> PREVIOUS -> RETIRED        LOADING, PROVED or CANARY -> REJECTED

Beside what serves, a run may have a head: the version that requests for `run/NAME` get. A head stays PROVED, unless it
is also the version that serves, or the one before.
"""

from __future__ import annotations

from dataclasses import replace

from iterpo.errors import InvalidInput, NotFound
from iterpo.policies.canary import Judgement, Verdict
from iterpo.policies.replicas import View
from iterpo.types import BASE_VERSION, RUN, GateDecision, PolicyState, PolicyVersion
from services.inference.registry_file import Trial

ALIASES = ("serving", "candidate", "canary", "previous", "base")
SERVABLE = (PolicyState.SERVING, PolicyState.PREVIOUS, PolicyState.CANARY, PolicyState.PROVED)
OVER = (PolicyState.RETIRED, PolicyState.REJECTED)


class Roster:
    def __init__(self, base_digest: str) -> None:
        self.versions = {BASE_VERSION: PolicyVersion(BASE_VERSION, base_digest, PolicyState.SERVING)}
        self.serving = self.previous = BASE_VERSION
        self.trial: Trial | None = None
        """The canary under way."""
        self.heads: dict[str, int] = {}
        """Run -> its version."""

    def get(self, version: int) -> PolicyVersion:
        """Raises NotFound."""
        if version not in self.versions:
            raise NotFound(f"There is no policy version {version}.", "See: iterpo policies list.", "POLICY_NOT_FOUND")
        return self.versions[version]

    def resolve(self, policy: str) -> int:
        """A version number from an alias, a run's name or a decimal number. Raises InvalidInput, NotFound."""
        if policy in ("", "serving"):
            return self.serving
        if policy == "base":
            return BASE_VERSION
        if policy == "previous":
            return self.previous
        if policy == "canary":
            if self.trial is None:
                raise NotFound("There is no canary.", "See: iterpo policies list.", "POLICY_NOT_FOUND")
            return self.trial.version
        if policy == "candidate":
            if not (found := self.candidate):
                raise NotFound("There is no candidate.", "Load a policy version first.", "POLICY_NOT_FOUND")
            return found
        if policy.startswith(RUN):
            return self._head(policy.removeprefix(RUN))
        if not policy.removeprefix("v").isdecimal():
            names = f"{', '.join(ALIASES)}, or {RUN}NAME for a run beside what serves"
            raise InvalidInput(f"Unknown policy {policy!r}.", f"Use a version number, {names}.")
        return self.get(int(policy.removeprefix("v"))).version

    def _head(self, run: str) -> int:
        if run not in self.heads:
            known = f"There is: {', '.join(f'{RUN}{name}' for name in self.heads)}." if self.heads else "There is none."
            raise NotFound(
                f"No version is served as {RUN}{run}.",
                f"{known} A run is served under its name with run.beside = true.",
                "POLICY_NOT_FOUND",
            )
        return self.heads[run]

    @property
    def candidate(self) -> int:
        """The newest version that is proved and has no role yet; 0: none."""
        taken = self.roles() | set(self.heads.values())
        waiting = {v.version for v in self.versions.values() if v.state is PolicyState.PROVED}
        return max(waiting - taken, default=0)

    def traffic(self, canary_share: float) -> str:
        """What the applications' requests get that ask for nothing particular: a policy or a split."""
        if self.trial is None:
            return "serving"
        return f"{self.serving}={1 - canary_share},{self.trial.version}={canary_share}"

    def live(self) -> set[int]:
        """What answers requests that ask for no particular version."""
        return {self.serving} | ({self.trial.version} if self.trial else set())

    def roles(self) -> set[int]:
        """Versions that must stay: what serves, what a rollback returns to, and the canary."""
        return self.live() | {self.previous}

    def set_state(self, version: int, state: PolicyState, reason: str = "") -> None:
        entry = self.versions[version]
        self.versions[version] = replace(entry, state=state, reason=reason or entry.reason)

    def serve(self, version: int, previous: int) -> None:
        """The swap itself. No await in it: nobody sees half of it."""
        for other in self.roles():
            self._retire(other)
        self.serving, self.previous, self.trial = version, previous, None
        self.set_state(previous, PolicyState.PREVIOUS)
        self.versions[version] = replace(self.versions[version], state=PolicyState.SERVING, reason="")

    def set_head(self, run: str, version: int) -> None:
        before = self.heads.get(run)
        self.heads[run] = version
        if before is not None and before not in self.roles():
            self._retire(before)

    def release(self, run: str) -> int:
        """Take the name away from a run; its version goes, unless it has a role or another name. Raises NotFound."""
        head = self._head(run)
        del self.heads[run]
        if head not in self.roles():
            self._retire(head)
        return head

    def drop_head(self, version: int) -> None:
        """Whatever run it is the head of has none any more."""
        self.heads = {run: head for run, head in self.heads.items() if head != version}

    def begin_trial(self, trial: Trial) -> None:
        self.trial = trial
        self.set_state(trial.version, PolicyState.CANARY)

    def refuse(self, version: int, reason: str) -> None:
        """For good."""
        self.drop_head(version)
        self.set_state(version, PolicyState.REJECTED, reason)

    def names(self) -> list[str]:
        """What `resolve` knows now, beside numbers."""
        absent = {"candidate"} if not self.candidate else set()
        absent |= {"canary"} if self.trial is None else set()
        return [alias for alias in ALIASES if alias not in absent] + [RUN + run for run in sorted(self.heads)]

    def decide(self, version: int, decision: GateDecision) -> None:
        """What was decided about a version, the gate or a person, now; what was measured of it before stays."""
        before = self.get(version).decision
        known = {name: value for name, value in (before.numbers if before else {}).items() if name != "by_hand"}
        decision = replace(decision, numbers=known | dict(decision.numbers))
        self.versions[version] = replace(self.get(version), decision=decision)

    def record(self, version: int, why: Judgement) -> GateDecision:
        """A canary's end; the decision with which it began grows by its reasons and numbers."""
        before = self.get(version).decision
        reasons = (before.reasons if before else ()) + why.reasons
        decision = GateDecision(why.verdict is Verdict.PROMOTE, reasons, why.numbers)
        self.decide(version, decision)
        return decision

    def heed(self, view: View) -> None:
        """A replica's: give up what the primary gave up, and note what it decided. What serves is not touched."""
        theirs = {policy.version for policy in view.policies}
        if self.trial is not None and self.trial.version != view.canary:
            self.set_state(self.trial.version, PolicyState.PROVED)  # until the next lines say better
            self.trial = None
        for policy in view.policies:
            self._note(policy)
        for run in set(self.heads) - set(view.heads):
            self.release(run)
        for version, mine in list(self.versions.items()):
            if mine.state is PolicyState.PROVED and version not in theirs and version not in self.heads.values():
                self.set_state(version, PolicyState.RETIRED)

    def _note(self, policy: PolicyVersion) -> None:
        """What the primary decided about a version; that it is refused there, if it is. Proof and reason are ours."""
        mine = self.versions.get(policy.version)
        if mine is None:
            state = PolicyState.REJECTED if policy.state is PolicyState.REJECTED else PolicyState.RETIRED
            self.versions[policy.version] = replace(policy, state=state, proof=None)
        elif mine.digest == policy.digest:
            self.versions[policy.version] = replace(mine, decision=policy.decision)
            if policy.state is PolicyState.REJECTED and policy.version not in self.roles():
                self.refuse(policy.version, policy.reason)

    def _retire(self, version: int) -> None:
        """It has lost a role, and stays only where it is a run's head."""
        stays = version in self.heads.values() and version != BASE_VERSION
        self.set_state(version, PolicyState.PROVED if stays else PolicyState.RETIRED)
