"""Baking: in adapter delivery, a version that has served long enough is merged, and answers at the base's speed.

A second engine without slots stands beside the one with slots. Once a version has served for `inference.bake_seconds`,
its adapter is folded into that engine's weights and proved there like any delivery; from then on its new requests go
there. It keeps its slot, so what is under way ends where it began, and a version promoted later starts in a slot.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from iterpo.errors import IterpoError
from iterpo.types import BASE_VERSION, PolicyVersion
from services.inference.delivery import AdapterDelivery, Source, unpack
from services.inference.engine import VllmEngine
from services.inference.metrics import InferenceMetrics
from services.inference.prover import Logprobs, Prover, Published
from services.inference.registry import PolicyRegistry

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0


class BakingDelivery(AdapterDelivery):
    def __init__(
        self,
        scratch: Path,
        make: Callable[[int], VllmEngine],
        make_plain: Callable[[], VllmEngine],
        base: Path,
        max_rank: int,
        run_slots: int = 0,
    ) -> None:
        super().__init__(scratch, make, run_slots)
        self._make_plain, self._base, self._max_rank = make_plain, base, max_rank
        self._plain: VllmEngine | None = None
        self.baked = BASE_VERSION
        """Whose new requests the second engine answers; 0: nobody's."""

    async def start(self) -> None:
        await super().start()
        self._plain = await asyncio.to_thread(self._make_plain)

    def source(self, version: int) -> Source:
        return self.plain if version == self.baked != BASE_VERSION else super().source(version)

    @property
    def plain(self) -> Source:
        """The second engine."""
        if self._plain is None:
            raise RuntimeError("the second engine is asked for before it was started")
        return Source(self._plain)

    async def merge(self, version: int, found: Published) -> None:
        """Into the second engine, which must be idle and nobody's."""
        directory = await asyncio.to_thread(unpack, self._scratch / "baking", version, found.files)
        try:
            await self.plain.engine.load_merged(self._base, directory, self._max_rank)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def remove(self, version: int) -> None:
        if version == self.baked:
            self.baked = BASE_VERSION
        await super().remove(version)

    @property
    def dead(self) -> bool:
        return super().dead or (self._plain is not None and self._plain.dead)

    def shutdown(self) -> None:
        super().shutdown()
        if self._plain is not None:
            self._plain.shutdown()


class Baker:
    def __init__(
        self,
        registry: PolicyRegistry,
        delivery: BakingDelivery,
        prover: Prover,
        metrics: InferenceMetrics,
        after_seconds: float,
    ) -> None:
        self._registry, self._delivery, self._prover = registry, delivery, prover
        self._metrics, self._after = metrics, after_seconds
        self._base_logprobs: Logprobs = []
        self._failed: set[int] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        self._base_logprobs = await self._prover.measure(self._delivery.plain)
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            self._metrics.version.labels("baked").set(self._delivery.baked)
            policy = self._registry.serving
            if self._is_due(policy):
                try:
                    await self._bake(policy)
                except IterpoError as error:
                    self._failed.add(policy.version)
                    logger.error("version %d is not baked and goes on in its slot: %s", policy.version, error)

    def _is_due(self, policy: PolicyVersion) -> bool:
        version = policy.version
        settled = self._registry.serving_seconds >= self._after and self._registry.trial is None
        return settled and version not in (BASE_VERSION, self._delivery.baked) and version not in self._failed

    async def _bake(self, policy: PolicyVersion) -> None:
        """The version before goes back to its slot, if it still has one; its last requests are waited for."""
        self._delivery.baked = BASE_VERSION
        while self._registry.requests_on(self._delivery.plain.engine):  # noqa: ASYNC110  (a count, not an event)
            await asyncio.sleep(PERIOD_SECONDS)
        found = await self._prover.read(policy.version, policy.digest)
        await self._delivery.merge(policy.version, found)
        measured = await self._prover.measure(self._delivery.plain)
        proof = self._prover.judge(found.manifest, "merged", self._base_logprobs, measured)
        if not proof.proved:
            self._failed.add(policy.version)
            logger.error(
                "version %d is not baked: its probe in the second engine says %s", policy.version, proof.reason
            )
        elif policy.version in self._delivery.loaded():
            self._delivery.baked = policy.version
            self._metrics.baked.inc()
            logger.info("version %d is baked: its new requests are answered at the base's speed", policy.version)
