"""The primary's side: who follows, what they have proved, and the wait for a quorum of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator

from iterpo.config import ReplicaSettings
from iterpo.errors import Unavailable, WrongState
from iterpo.policies.canary import Arm, Tally
from iterpo.policies.replicas import Quorum, Report, View, quorum
from iterpo.types import PolicyState, PolicyVersion
from services.inference.registry import PolicyRegistry
from services.inference.roster import SERVABLE

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 10.0
"""A watcher hears from us at least this often."""
REFUSED = 16
"""Of the versions that were refused, how many of the latest a view names."""


class Replicas:
    def __init__(self, registry: PolicyRegistry, settings: ReplicaSettings) -> None:
        self._registry, self._settings = registry, settings
        self._watching: Counter[str] = Counter()
        self._reports: dict[str, Report] = {}
        self._reported = asyncio.Event()
        self._closing = False
        self._bells: set[asyncio.Event] = set()
        self._wanted = 0
        """The version that a promotion waits for."""

    async def watch(self, replica: str) -> AsyncGenerator[View, None]:
        """The view now, and again at every change. Raises Unavailable (STOPPING) when the service drains."""
        bell = self._registry.listen()
        self._bells.add(bell)
        if not self._watching[replica]:
            self._reports.pop(replica, None)  # what it had before it went away says nothing of what it has now
        self._watching[replica] += 1
        try:
            while not self._closing:
                bell.clear()
                yield self.view()
                try:
                    async with asyncio.timeout(REPEAT_SECONDS):
                        await bell.wait()
                except TimeoutError:
                    continue
        finally:
            self._registry.forget(bell)
            self._bells.discard(bell)
            self._watching[replica] -= 1
            self._reported.set()
            self._registry.announce()
        raise Unavailable("The inference server is stopping.", "Watch again when it is back.", "STOPPING")

    def view(self) -> View:
        registry = self._registry
        listed = [policy for policy, _ in registry.listed()]
        return View(
            registry.base_digest,
            tuple(p for p in listed if p.state in SERVABLE) + tuple(p for p in listed if _is_refused(p))[-REFUSED:],
            registry.serving.version,
            next((p.version for p in listed if p.state is PolicyState.PREVIOUS), registry.serving.version),
            self._wanted or registry.candidate,
            registry.trial.version if registry.trial else 0,
            registry.canary_share,
            registry.heads,
        )

    def report(self, report: Report) -> None:
        self._reports[report.replica] = report
        self._reported.set()

    def close(self) -> None:
        """End every watcher's stream."""
        self._closing = True
        for bell in self._bells:
            bell.set()

    def listed(self) -> list[tuple[Report, bool]]:
        """Every replica heard of, and whether it is connected."""
        names = sorted(self._reports.keys() | {name for name, count in self._watching.items() if count and name})
        return [(self._reports.get(name, Report(name)), self._watching[name] > 0) for name in names]

    def tally(self, version: int) -> Tally:
        """What the replicas saw of a canary."""
        total = Tally()
        for report, _ in self.listed():
            if report.canary_version == version:
                for mine, theirs in ((total.canary, report.canary), (total.serving, report.others)):
                    mine.answered += theirs.answered
                    mine.failed += theirs.failed
        return total

    async def agree(self, version: int) -> None:
        """Wait until enough of the connected replicas have proved the version. Raises WrongState (QUORUM_MISSED) when
        they do not, and the settings say that it shall not be promoted then."""
        found = Quorum.OPEN
        self._wanted = version
        self._registry.announce()
        try:
            async with asyncio.timeout(self._settings.patience_seconds):
                while (found := self._quorum(version)) is Quorum.OPEN:
                    self._reported.clear()
                    await self._reported.wait()
        except TimeoutError:
            logger.warning("version %d: not every replica has proved it in time", version)
        finally:
            self._wanted = 0
        if found is Quorum.REACHED:
            return
        late = [report.replica for report, connected in self.listed() if connected and version not in report.proved]
        if self._settings.missed == "refuse":
            raise WrongState(
                f"Version {version} is not proved by enough replicas: {', '.join(late)} have not.",
                "Look at them (iterpo policies replicas), lower inference.replicas.quorum, or publish again.",
                "QUORUM_MISSED",
            )
        logger.warning("version %d is promoted without: %s", version, ", ".join(late))

    def _quorum(self, version: int) -> Quorum:
        connected = [report for report, connected in self.listed() if connected]
        return quorum(version, self._registry.get(version).digest, connected, self._settings.quorum)


def _is_refused(policy: PolicyVersion) -> bool:
    return policy.state is PolicyState.REJECTED


def added(a: Tally, b: Tally) -> Tally:
    return Tally(
        _sum(a.canary, b.canary),
        _sum(a.serving, b.serving),
        duels_won=a.duels_won + b.duels_won,
        duels_lost=a.duels_lost + b.duels_lost,
    )


def _sum(a: Arm, b: Arm) -> Arm:
    return Arm(a.answered + b.answered, a.failed + b.failed, a.good + b.good, a.bad + b.bad)
