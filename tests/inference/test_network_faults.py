"""Late, cut, silent, refused and slow connections between a replica and the primary that it follows, over real gRPC.

ITERPO_FAULT_SECONDS=120 makes it the long form.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from iterpo.clients.channel import connect
from iterpo.clients.inference import PolicyClient
from iterpo.config import ReplicaSettings
from iterpo.policies import manifest
from iterpo.policies.folder import PolicyFolder
from iterpo.v1 import policy_pb2_grpc
from services.host import Host, ServerSettings
from services.inference.follower import Follower
from services.inference.metrics import InferenceMetrics
from services.inference.registry import PolicyRegistry
from services.inference.replicas import Replicas
from services.inference.servicer import PolicyServicer
from tests.inference.test_registry import YES, started
from tests.inference.test_replicas import soon
from tests.policies.builders import publish
from tests.services.fault_proxy import FAULTS, fault_proxy, misbehave

SECONDS = float(os.environ.get("ITERPO_FAULT_SECONDS", "8"))
pytestmark = pytest.mark.timeout(240 + 3 * SECONDS)


@asynccontextmanager
async def following(address: str, replica: PolicyRegistry, folder: Path) -> AsyncIterator[None]:
    with connect(address) as channel:
        follower = Follower(replica, PolicyClient(channel), "one", PolicyFolder(folder), "127.0.0.1:1")
        task = asyncio.create_task(follower.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def policy_service(registry: PolicyRegistry, replicas: Replicas, folder: Path) -> AsyncIterator[str]:
    """Its address."""
    host = Host("inference", ServerSettings(), CollectorRegistry())
    servicer = PolicyServicer(registry, InferenceMetrics(CollectorRegistry()), replicas, PolicyFolder(folder))
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(servicer, host.server)
    address = f"127.0.0.1:{host.bind()}"

    async def drain() -> None:
        replicas.close()

    serving = asyncio.create_task(host.run(["iterpo.v1.PolicyService"], drain))
    try:
        yield address
    finally:
        host.stop()
        await asyncio.wait_for(serving, 30)


async def test_a_replica_serves_what_was_served_and_proved_and_catches_up(tmp_path: Path) -> None:
    primary, _ = await started(tmp_path / "primary")
    replica, _ = await started(tmp_path / "replica")
    theirs, own = tmp_path / "primary" / "policies", tmp_path / "replica" / "policies"
    replicas = Replicas(primary, ReplicaSettings(patience_seconds=0.5))
    served: dict[int, str] = {}
    """Version -> digest of everything that the primary served."""
    seen: dict[int, str] = {}
    """The same of everything that the replica was seen to serve."""

    async def look(faults: asyncio.Task[None]) -> None:
        while not faults.done() or replica.serving.version != primary.serving.version:
            if (now := replica.serving).version:
                assert replica.get(now.version).proof.proved
                seen[now.version] = now.digest
            await asyncio.sleep(0.01)

    async with policy_service(primary, replicas, theirs) as address:
        with fault_proxy(address) as proxy:
            async with following(f"127.0.0.1:{proxy.port}", replica, own):
                faults = asyncio.create_task(asyncio.to_thread(misbehave, [proxy], SECONDS))
                looking = asyncio.create_task(look(faults))
                version = 0
                while not faults.done():
                    version += 1
                    served[version] = (await primary.load(version, publish(theirs, version))).digest
                    await replicas.agree(version)
                    await primary.promote(version, YES, f"promote {version}")
                    if version % 5 == 0:
                        await primary.rollback(f"back {version}")
                    await asyncio.sleep(0.2)
                await asyncio.wait_for(looking, 60)
                last = primary.serving.version
                await soon(lambda: [report.serving for report, _ in replicas.listed()] == [last], 60)
    assert len(seen) > 1
    assert seen.items() <= served.items(), "a version, or bytes, that never served"
    for number, digest in seen.items():
        assert manifest.read_raw(own, number, digest) == manifest.read_raw(theirs, number, digest)
    assert proxy.met >= set(FAULTS) - {"closed"}, "the faults were met"
