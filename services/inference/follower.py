"""A replica's side: follow the primary's policies, fetch what is missing, prove it here, serve what serves there.

Nothing that the primary says is believed: a version's files must have the digest of its manifest, and its probe must
agree on this engine, as for any other load. While the primary is away, what served goes on serving; whenever it comes
back, the replica converges to what it says then.
"""

from __future__ import annotations

import asyncio
import logging

from iterpo.clients.inference import PolicyClient
from iterpo.errors import Conflict, IterpoError, PolicyRejected, Unavailable
from iterpo.policies.canary import Tally
from iterpo.policies.folder import PolicyFolder
from iterpo.policies.replicas import Report, View
from iterpo.types import BASE_VERSION, PolicyVersion
from services.inference.registry import PolicyRegistry

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
PASSING = ("POLICY_MISSING", "STALE_MANIFEST", "FILE_MISSING")
"""Reasons that say nothing of a version's bytes."""
AGAIN_SECONDS = 1.0
"""After the primary went away, or a load failed for a reason that may pass."""


class Follower:
    def __init__(
        self, registry: PolicyRegistry, primary: PolicyClient, name: str, folder: PolicyFolder, address: str = ""
    ) -> None:
        """`folder`: where versions lie; `name`: of this replica; `address`: where clients find it."""
        self._address = address
        self._registry, self._primary, self._name, self._folder = registry, primary, name, folder
        self._view: View | None = None
        self._news = asyncio.Event()
        self._refused: dict[tuple[int, str], str] = {}
        """(version, digest) -> reason, for good."""
        self._strange = False
        """Whether the primary serves another base."""
        self._hears = True

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        watching = asyncio.create_task(self._watch(loop))
        try:
            while True:
                try:
                    async with asyncio.timeout(REPORT_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    await self._report()
                    self._registry.save_trial()
                    continue
                self._news.clear()
                if self._view is not None:
                    await self._converge(self._view)
                    await self._report()
        finally:
            watching.cancel()
            self._primary.stop_watching()

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        def listen() -> None:
            for view in self._primary.watch(self._name):
                loop.call_soon_threadsafe(self._heard, view)

        while True:
            try:
                await asyncio.to_thread(listen)
            except IterpoError as error:
                if self._hears:
                    logger.warning("the primary is away, what served goes on serving: %s", error.message)
                self._hears = False
            await asyncio.sleep(AGAIN_SECONDS)

    def _heard(self, view: View) -> None:
        self._view, self._hears = view, True
        self._news.set()

    async def _converge(self, view: View) -> None:
        """Give up what the primary gave up; then bring in what it serves, its canary, its runs and its candidate, one
        after the other, each with its role before the next may need room."""
        self._strange = view.base_digest != self._registry.base_digest
        if self._strange:
            logger.error("the primary serves another base model: set the same model.path")
            return
        known = {policy.version: policy for policy in view.policies}
        await self._registry.adopt(view)
        heads = self._registry.heads_here(view.heads).values()
        for version in dict.fromkeys((view.serving, view.canary, *heads, view.candidate)):
            if version in known and version != BASE_VERSION:
                await self._bring(known[version])
                await self._registry.adopt(view)

    async def _bring(self, policy: PolicyVersion) -> None:
        version, key = policy.version, (policy.version, policy.digest)
        if self._registry.is_ready(version, policy.digest) or key in self._refused:
            return
        try:
            await self._fetch(policy)
            await self._registry.load(version, policy.digest)
        except (PolicyRejected, Conflict) as error:
            if error.reason in PASSING:
                self._later(version, error)
            else:
                self._refused[key] = error.reason
                logger.error("version %d is refused here: %s", version, error)
        except IterpoError as error:
            self._later(version, error)

    def _later(self, version: int, error: IterpoError) -> None:
        logger.warning("version %d is not here yet: %s", version, error)
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._news.set)

    async def _fetch(self, policy: PolicyVersion) -> None:
        """From the primary, unless the very bytes lie here already (on the same machine, or from before) or where
        machines share them. Raises Conflict (VERSION_REUSED) when this number was other bytes here."""
        version, digest = policy.version, policy.digest
        if (mine := self._registry.find(version)) is not None and mine.digest != digest:
            raise Conflict(
                f"Version {version} is {digest[:12]} at the primary and was {mine.digest[:12]} here.",
                "Empty this replica's data_dir and start it again.",
                "VERSION_REUSED",
            )

        def fetch() -> None:
            try:
                self._folder.read(version, digest)
            except (PolicyRejected, Unavailable):
                self._folder.receive(version, self._primary.fetch(version, digest))

        await asyncio.to_thread(fetch)

    async def _report(self) -> None:
        trial = self._registry.trial
        tally = trial.tally if trial else Tally()
        report = Report(
            self._name,
            self._registry.serving.version,
            {p.version: p.digest for p, _ in self._registry.listed() if self._registry.is_ready(p.version)},
            {version: reason for (version, _), reason in self._refused.items()} | self._mismatches(),
            trial.version if trial else 0,
            tally.canary,
            tally.serving,
            self._address,
        )
        try:
            await asyncio.to_thread(self._primary.report, report)
        except IterpoError as error:
            logger.debug("no report: %s", error)

    def _mismatches(self) -> dict[int, str]:
        versions = self._view.policies if self._strange and self._view else ()
        return {policy.version: "BASE_MISMATCH" for policy in versions}
