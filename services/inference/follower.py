"""A replica's side: follow the primary's policies, fetch what is missing, prove it here, serve what serves there.

Nothing that the primary says is believed: a version's files must have the digest of its manifest, and its probe must
agree on this engine, as for any other load. While the primary is away, what served goes on serving; whenever it comes
back, the replica converges to what it says then.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from iterpo.clients.inference import PolicyClient
from iterpo.errors import IterpoError, PolicyRejected
from iterpo.policies import manifest
from iterpo.policies.canary import Tally
from iterpo.policies.replicas import Report, View
from iterpo.types import BASE_VERSION, PolicyState, PolicyVersion
from services.inference.registry import PolicyRegistry

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
AGAIN_SECONDS = 1.0
"""After the primary went away, or a load failed for a reason that may pass."""


class Follower:
    def __init__(self, registry: PolicyRegistry, primary: PolicyClient, name: str, root: Path) -> None:
        """`root`: where fetched versions lie; `name`: of this replica."""
        self._registry, self._primary, self._name, self._root = registry, primary, name, root
        self._view: View | None = None
        self._news = asyncio.Event()
        self._refused: dict[int, str] = {}
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
        """Bring in what the primary serves, its canary and its newest candidate, in this order; then serve alike."""
        if view.base_digest != self._registry.base_digest:
            self._refused = {p.version: "BASE_MISMATCH" for p in view.policies}
            logger.error("the primary serves another base model: set the same model.path")
            return
        known = {policy.version: policy for policy in view.policies}
        candidates = [v for v, policy in known.items() if policy.state is PolicyState.PROVED]
        for version in dict.fromkeys((view.serving, view.canary, max(candidates, default=0))):
            if version != BASE_VERSION and version in known:
                await self._bring(known[version])
        if view.serving == BASE_VERSION or self._registry.is_ready(view.serving):
            await self._registry.adopt(view)

    async def _bring(self, policy: PolicyVersion) -> None:
        version = policy.version
        if self._registry.is_ready(version) or version in self._refused:
            return
        try:
            await self._fetch(policy)
            await self._registry.load(version, policy.digest)
        except PolicyRejected as error:
            self._refused[version] = error.reason
            logger.error("version %d is refused here: %s", version, error)
        except IterpoError as error:
            logger.warning("version %d is not here yet: %s", version, error)
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._news.set)

    async def _fetch(self, policy: PolicyVersion) -> None:
        """From the primary, unless the very bytes lie here already (on the same machine, or from before)."""

        def fetch() -> None:
            made = manifest.directory(self._root, policy.version) / manifest.MANIFEST
            if made.is_file() and manifest.digest_bytes(made.read_bytes()) == policy.digest:
                return
            manifest.receive(self._root, policy.version, self._primary.fetch(policy.version, policy.digest))

        await asyncio.to_thread(fetch)

    async def _report(self) -> None:
        trial = self._registry.trial
        tally = trial.tally if trial else Tally()
        report = Report(
            self._name,
            self._registry.serving.version,
            frozenset(p.version for p, _ in self._registry.listed() if self._registry.is_ready(p.version)),
            dict(self._refused),
            tally.canary,
            tally.serving,
        )
        try:
            await asyncio.to_thread(self._primary.report, report)
        except IterpoError as error:
            logger.debug("no report: %s", error)
