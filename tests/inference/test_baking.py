"""A version that served long enough is merged, proved once more, and answers from the second engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from iterpo.policies.folder import PolicyFolder
from iterpo.types import BASE_VERSION
from services.inference import baking
from services.inference.baking import Baker, BakingDelivery
from services.inference.delivery import Source
from services.inference.metrics import InferenceMetrics
from services.inference.prover import Prover
from services.inference.registry import PolicyRegistry
from tests.inference.test_registry import serve
from tests.policies.builders import BASE, BASE_DIGEST, SEQUENCES, shifted


@dataclass
class Engine:
    """Answers the probe as the base until something is merged into it, or a slot is named."""

    merged: bool = False
    broken: bool = False
    log: list = field(default_factory=list)
    dead: bool = False

    async def score(self, token_ids, lora):
        rows = shifted() if (lora or self.merged) and not self.broken else BASE
        return list(dict(zip(SEQUENCES, rows, strict=True))[tuple(token_ids)])

    async def load_merged(self, base, adapter, max_rank):
        self.merged = True
        self.log.append(adapter.name)

    async def add_lora(self, lora):
        self.log.append(f"add {lora}")

    async def remove_lora(self, lora):
        self.log.append(f"remove {lora}")

    def shutdown(self) -> None:
        self.dead = True


class Slots(BakingDelivery):
    """Slots without vLLM's request objects."""

    async def install(self, version, adapter, files):
        if adapter is not None:
            self._loras[version] = f"slot {version}"

    async def remove(self, version):
        if version == self.baked:
            self.baked = BASE_VERSION
        self._loras.pop(version, None)


@pytest.fixture
async def made(tmp_path, monkeypatch):
    monkeypatch.setattr(baking, "PERIOD_SECONDS", 0.005)
    slotted, plain = Engine(), Engine()
    delivery = Slots(tmp_path / "scratch", lambda _slots: slotted, lambda: plain, tmp_path, 16)
    root = tmp_path / "policies"
    root.mkdir()
    prover = Prover(PolicyFolder(root), BASE_DIGEST, SEQUENCES, 16)
    registry = PolicyRegistry(tmp_path / "state.json", delivery, prover)
    await registry.start()
    metrics = InferenceMetrics(CollectorRegistry())
    work = asyncio.create_task(Baker(registry, delivery, prover, metrics, 0.1).run())
    yield registry, delivery, plain
    work.cancel()


async def soon(true) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_it_moves_to_the_second_engine_and_what_is_under_way_ends_in_its_slot(made, tmp_path) -> None:
    registry, delivery, plain = made
    await serve(registry, tmp_path, 1)
    with registry.lease("") as early:
        assert early.source.lora == "slot 1"
        await soon(lambda: delivery.baked == 1)
        with registry.lease("") as late:
            assert late.source == Source(plain)
            assert registry.requests_on(plain) == 1
        assert early.source.lora == "slot 1"
    assert plain.log == ["v000001"]
    assert registry.requests_on(plain) == 0


async def test_a_version_that_was_promoted_just_now_stays_in_its_slot(made, tmp_path) -> None:
    registry, delivery, plain = made
    await serve(registry, tmp_path, 1)
    await soon(lambda: delivery.baked == 1)
    await serve(registry, tmp_path, 2)
    with registry.lease("") as lease:
        assert lease.source.lora == "slot 2"
    assert registry.lease("previous").source == Source(plain)  # the version before still has its speed
    await soon(lambda: delivery.baked == 2)
    assert registry.lease("previous").source.lora == "slot 1"


async def test_the_second_engine_is_not_changed_under_anybody(made, tmp_path) -> None:
    registry, delivery, plain = made
    await serve(registry, tmp_path, 1)
    await soon(lambda: delivery.baked == 1)
    with registry.lease(""):
        await serve(registry, tmp_path, 2)
        await asyncio.sleep(0.3)
        assert plain.log == ["v000001"]
    await soon(lambda: delivery.baked == 2)


async def test_weights_that_fail_their_proof_there_answer_nobody(made, tmp_path) -> None:
    registry, delivery, plain = made
    plain.broken = True
    await serve(registry, tmp_path, 1)
    await soon(lambda: plain.log == ["v000001"])
    await asyncio.sleep(0.2)
    assert delivery.baked == BASE_VERSION
    assert plain.log == ["v000001"]  # and it is not tried again and again
    assert registry.lease("").source.lora == "slot 1"
