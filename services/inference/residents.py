"""Which versions are in the engine, how many requests hold each, and when one leaves: after its last request."""

from __future__ import annotations

import asyncio
from collections import Counter

from iterpo.errors import Unavailable
from iterpo.types import BASE_VERSION, PolicyState
from services.inference.delivery import Delivery
from services.inference.engine import Engine
from services.inference.lease import Lease
from services.inference.roster import OVER, SERVABLE, Roster

IDLE_TIMEOUT_SECONDS = 120.0
"""How long a load waits for the last requests of the version whose place it takes."""


class Residents:
    def __init__(self, delivery: Delivery, roster: Roster, change: asyncio.Lock) -> None:
        """`change` is held by whoever changes policies, and here while a version that nobody needs is taken out."""
        self._delivery, self._roster, self._change = delivery, roster, change
        self._in_flight: Counter[int] = Counter()
        self._on_engine: Counter[int] = Counter()
        self._leaving: set[int] = set()
        self._dropping: set[asyncio.Future[None]] = set()
        self._went_idle = asyncio.Event()

    def enter(self, lease: Lease) -> None:
        self._in_flight[lease.version.version] += 1
        self._on_engine[id(lease.source.engine)] += 1

    def leave(self, lease: Lease) -> None:
        version = lease.version.version
        self._in_flight[version] -= 1
        self._on_engine[id(lease.source.engine)] -= 1
        if not self._in_flight[version]:
            del self._in_flight[version]
            self._went_idle.set()
            self.drop_idle()

    def requests_of(self, version: int) -> int:
        """In flight."""
        return self._in_flight[version]

    @property
    def requests(self) -> int:
        """In flight, of all versions. May be asked from any thread."""
        return sum(tuple(self._in_flight.values()))

    def requests_on(self, engine: Engine) -> int:
        """In flight there."""
        return self._on_engine[id(engine)]

    def can_answer(self, version: int) -> bool:
        """Whether a request may start on it now. Unproved versions, and those about to leave, serve nobody."""
        servable = self._roster.get(version).state in SERVABLE or version == BASE_VERSION
        return servable and version in self._delivery.loaded() and version not in self._leaving

    def is_ready(self, version: int, digest: str = "") -> bool:
        """Proved, and in the engine now; with a digest, these very bytes."""
        entry = self._roster.versions.get(version)
        known = entry is not None and entry.state in SERVABLE and digest in ("", entry.digest)
        return known and version in self._delivery.loaded()

    async def make_room(self) -> None:
        """For one more version. Raises WrongState (CANARY_UNDER_WAY), Unavailable (STILL_IN_USE)."""
        roster = self._roster
        for version in self._delivery.evictions(roster.live() | set(roster.heads.values()), roster.previous):
            if roster.get(version).state in (PolicyState.PROVED, PolicyState.PREVIOUS):
                roster.set_state(version, PolicyState.RETIRED)
            await self.evict(version)

    def drop_idle(self) -> None:
        """Versions that nobody needs leave as soon as their last request is over, so that the next load finds room."""
        for version in self._delivery.loaded() - {BASE_VERSION}:
            if self._is_over(version):
                task = asyncio.ensure_future(self._drop(version))
                self._dropping.add(task)
                task.add_done_callback(self._dropping.discard)

    async def _drop(self, version: int) -> None:
        async with self._change:
            if self._is_over(version):
                await self.evict(version)

    def _is_over(self, version: int) -> bool:
        entry = self._roster.versions.get(version)
        return entry is not None and entry.state in OVER and not self._in_flight[version]

    async def evict(self, version: int) -> None:
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
