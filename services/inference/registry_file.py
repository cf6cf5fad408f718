"""What the registry keeps on disk: written before a change is answered, read when the process starts again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iterpo.errors import Conflict
from iterpo.policies import manifest
from iterpo.policies.canary import Arm, Tally
from iterpo.types import BASE_VERSION, GateDecision, PolicyState, PolicyVersion, Proof

REMEMBERED_REQUESTS = 1000


class DoneRequests:
    """Request ids that were carried out, so that a repeated call changes nothing."""

    def __init__(self, known: dict[str, list[Any]] | None = None) -> None:
        self._known = known or {}

    def done(self, request_id: str, what: str, version: int | None = None) -> bool:
        """Whether this very request was carried out. Raises Conflict when its id was used for another one."""
        done = self._known.get(request_id)
        if done is None:
            return False
        if done[0] != what or version not in (None, done[1]):
            raise Conflict(
                f"Request id {request_id!r} was used for: {done[0]} {done[1]}.",
                "Use a new id for a new request.",
                "REQUEST_ID_REUSED",
            )
        return True

    def version_of(self, request_id: str, what: str) -> int | None:
        """What this very request was carried out on; None when it was not. Raises Conflict as `done` does."""
        return int(self._known[request_id][1]) if self.done(request_id, what) else None

    def remember(self, request_id: str, what: str, version: int) -> None:
        if request_id:
            self._known[request_id] = [what, version]
            while len(self._known) > REMEMBERED_REQUESTS:
                del self._known[next(iter(self._known))]

    def plain(self) -> dict[str, list[Any]]:
        return self._known


@dataclass
class Trial:
    """A canary under way."""

    version: int
    began_unix_seconds: float
    tally: Tally = field(default_factory=Tally)
    cursor: int = -1
    """Of the feedback that was counted; -1: none yet, from now on."""

    def arm(self, version: int, serving: int) -> Arm | None:
        """Whose record an answer of this version belongs to; None for neither."""
        return {self.version: self.tally.canary, serving: self.tally.serving}.get(version)


@dataclass
class Saved:
    base_digest: str
    serving: int
    previous: int
    policies: dict[int, PolicyVersion]
    requests: DoneRequests
    trial: Trial | None = None
    heads: dict[str, int] = field(default_factory=dict)
    """Run -> its version, of the runs beside what serves."""


def read(path: Path) -> Saved | None:
    if not path.exists():
        return None
    raw = json.loads(path.read_text())
    policies = {v.version: v for v in map(_version, raw["policies"])}
    requests = DoneRequests(raw["requests"])
    trial, heads = _trial(raw.get("trial")), raw.get("heads", {})
    return Saved(raw["base_digest"], raw["serving"], raw["previous"], policies, requests, trial, heads)


def write(path: Path, saved: Saved) -> None:
    """Whole or not at all."""
    state = {
        "base_digest": saved.base_digest,
        "serving": saved.serving,
        "previous": saved.previous,
        "requests": saved.requests.plain(),
        "policies": list(map(asdict, _published(saved.policies.values()))),
        "heads": saved.heads,
        "trial": asdict(saved.trial) if saved.trial else None,
    }
    staging = path.with_suffix(".writing")
    staging.write_text(json.dumps(state, indent=1))
    manifest.sync(staging)
    staging.rename(path)
    manifest.sync(path.parent)


def _published(policies: Iterable[PolicyVersion]) -> list[PolicyVersion]:
    return [policy for policy in policies if policy.version != BASE_VERSION]


def _version(raw: dict[str, Any]) -> PolicyVersion:
    proof, decision = raw.pop("proof"), raw.pop("decision")
    if decision:
        decision = GateDecision(decision["promote"], tuple(decision["reasons"]), decision["numbers"])
    state = PolicyState(raw.pop("state"))
    return PolicyVersion(**raw, state=state, proof=Proof(**proof) if proof else None, decision=decision)


def _trial(raw: dict[str, Any] | None) -> Trial | None:
    if raw is None:
        return None
    counts = raw.pop("tally")
    canary, serving = (Arm(**counts.pop(name)) for name in ("canary", "serving"))
    return Trial(**raw, tally=Tally(canary, serving, **counts))
