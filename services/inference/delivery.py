"""How a policy reaches the engine. Two ways, one interface; which one pays depends on the device (DECISIONS.md).

adapter: one engine with LoRA slots. Many versions at once; each request names its own. The default on GPU.
merged:  two engines without LoRA, each holding one whole set of weights. A candidate is merged into the base and
         loaded into the engine that does not serve, proved and judged there, and a promotion merely changes which
         engine new requests go to: no pause, no unproved token, base speed. The default on CPU, where LoRA slots have
         four fifths of it. Price: the weights and the key-value cache twice.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from iterpo.errors import ResourceExhausted, WrongState
from iterpo.policies.adapter import Adapter
from iterpo.policies.merge import check_fits
from iterpo.types import BASE_VERSION
from services.inference.engine import Engine, VllmEngine

LORA_SLOTS = 4
"""Serving, previous, candidate, and one that is still finishing its last requests."""
RUN_SLOTS = 2
"""Of every run beside what serves: its version, and its candidate."""


@dataclass(frozen=True)
class Source:
    """Where a version's tokens come from."""

    engine: Engine
    lora: Any = None


class Delivery(Protocol):
    name: str
    run_slots: int
    """How many runs can be served beside what serves."""

    async def start(self) -> None:
        """Start the engines with the base's weights."""
        ...

    def source(self, version: int) -> Source:
        """Raises WrongState (POLICY_NOT_LOADED)."""
        ...

    def loaded(self) -> set[int]: ...

    def evictions(self, serving: set[int], previous: int) -> set[int]:
        """Versions that must be idle and go before another can be installed. `serving`: what must stay.

        Raises WrongState (CANARY_UNDER_WAY) when nothing can go.
        """
        ...

    async def install(self, version: int, adapter: Adapter | None, files: Mapping[str, bytes]) -> None:
        """Bring a version in; `adapter` is None for the base. Room must have been made."""
        ...

    async def remove(self, version: int) -> None:
        """Take an idle version out."""
        ...

    async def fingerprint(self, version: int) -> str:
        """SHA-256 of the weights in the engine that answers for a version; empty where the base's weights never leave,
        and nothing can have changed them."""
        ...

    @property
    def dead(self) -> bool: ...

    def shutdown(self) -> None: ...


class MergedDelivery:
    """Two engines; `_versions[i]` is what engine i holds."""

    name = "merged"
    run_slots = 0

    def __init__(self, base: Path, scratch: Path, max_rank: int, make: Callable[[], VllmEngine]) -> None:
        self._base, self._scratch, self._max_rank, self._make = base, scratch, max_rank, make
        self._engines: list[VllmEngine] = []
        self._versions: list[int | None] = [BASE_VERSION, None]

    async def start(self) -> None:
        """One after the other: two constructions of vLLM 0.32 at once, in two threads, hung once in eight starts, after
        vLLM's configuration lines and for 240 s. The cause is not known; at once they are some 15 s faster."""
        self._engines = [await asyncio.to_thread(self._make) for _ in range(2)]

    def source(self, version: int) -> Source:
        if version not in self._versions:
            raise not_loaded(version)
        return Source(self._engines[self._versions.index(version)])

    def loaded(self) -> set[int]:
        return {v for v in self._versions if v is not None}

    def evictions(self, serving: set[int], previous: int) -> set[int]:
        if None in self._versions:
            return set()
        if idle := self.loaded() - serving:
            return idle
        raise WrongState(
            "Both engines are taken: by what serves, and by the canary.",
            "Wait for the canary's test, or decide: iterpo policies promote | rollback.",
            "CANARY_UNDER_WAY",
        )

    async def install(self, version: int, adapter: Adapter | None, files: Mapping[str, bytes]) -> None:
        slot = self._versions.index(None)
        if adapter is None:
            await self._engines[slot].load_merged(self._base, None, self._max_rank)
        else:
            await asyncio.to_thread(check_fits, self._base, adapter)
            directory = await asyncio.to_thread(unpack, self._scratch, version, files)
            try:
                await self._engines[slot].load_merged(self._base, directory, self._max_rank)
            finally:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self._versions[slot] = version

    async def remove(self, version: int) -> None:
        self._versions = [None if v == version else v for v in self._versions]

    async def fingerprint(self, version: int) -> str:
        return await self._engines[self._versions.index(version)].weights_digest()

    @property
    def dead(self) -> bool:
        return any(engine.dead for engine in self._engines)

    def shutdown(self) -> None:
        for engine in self._engines:
            engine.shutdown()


class AdapterDelivery:
    """One engine; a new name, id and path for every version, since vLLM's caches are keyed by them."""

    name = "adapter"

    def __init__(self, scratch: Path, make: Callable[[int], VllmEngine], run_slots: int = 0) -> None:
        """`make`: an engine with so many LoRA slots."""
        self._scratch, self._make, self.run_slots = scratch, make, run_slots
        self._engine: VllmEngine | None = None
        self._loras: dict[int, Any] = {}

    async def start(self) -> None:
        self._engine = await asyncio.to_thread(self._make, self._slots)

    @property
    def _slots(self) -> int:
        return LORA_SLOTS + RUN_SLOTS * self.run_slots

    def source(self, version: int) -> Source:
        if self._engine is None or (version != BASE_VERSION and version not in self._loras):
            raise not_loaded(version)
        return Source(self._engine, self._loras.get(version))

    def loaded(self) -> set[int]:
        return {BASE_VERSION, *self._loras}

    def evictions(self, serving: set[int], previous: int) -> set[int]:
        """The oldest that has no role, once all slots are taken: a retired version with its last requests, or a
        candidate that nobody decided about."""
        if len(self._loras) < self._slots:
            return set()
        return set(sorted(self._loras.keys() - serving - {previous})[:1])

    async def install(self, version: int, adapter: Adapter | None, files: Mapping[str, bytes]) -> None:
        from vllm.lora.request import LoRARequest

        if adapter is None or self._engine is None:
            return
        directory = await asyncio.to_thread(unpack, self._scratch, version, files)
        lora = LoRARequest(f"v{version:06d}", version, str(directory))
        await self._engine.add_lora(lora)
        self._loras[version] = lora

    async def remove(self, version: int) -> None:
        lora = self._loras.pop(version, None)
        if lora is not None and self._engine is not None:
            await self._engine.remove_lora(lora)
            await asyncio.to_thread(shutil.rmtree, lora.lora_path, ignore_errors=True)

    async def fingerprint(self, version: int) -> str:
        return ""

    @property
    def dead(self) -> bool:
        return self._engine is not None and self._engine.dead

    def shutdown(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()


def unpack(scratch: Path, version: int, files: Mapping[str, bytes]) -> Path:
    """The version's verified bytes as a directory: an engine takes paths alone."""
    directory = scratch / f"v{version:06d}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise ResourceExhausted(
            f"Version {version} does not fit into {scratch}: {error.strerror or error}.",
            "Free memory there (/dev/shm is memory).",
            "DISK_FULL",
        ) from error
    return directory


def not_loaded(version: int) -> WrongState:
    return WrongState(
        f"Policy version {version} is not loaded.",
        "Load it (PolicyService/LoadPolicy), or ask for one that `iterpo policies list` shows as proved or serving.",
        "POLICY_NOT_LOADED",
    )
