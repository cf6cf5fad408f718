"""Explain over gRPC: the same numbers as the library, to the last bit, and its errors with their reasons."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from iterpo.clients.learner import LearnerClient
from iterpo.config import Settings
from iterpo.errors import InvalidInput
from iterpo.explain import explain
from iterpo.learner.ledger import Ledger
from iterpo.v1 import learner_pb2_grpc
from services.host import Host, ServerSettings
from services.learner.assembly import Assembly
from services.learner.metrics import LearnerMetrics
from services.learner.runs import RunManager
from services.learner.servicer import LearnerServicer

BATCH = {
    "sequences": [
        {"group": "p", "role": "chosen", "logprobs": [-1.25, -0.3], "reference_logprobs": [-1.0, -0.4]},
        {"group": "p", "role": "rejected", "logprobs": [-0.7], "reference_logprobs": [-0.9], "mask": [1.0]},
    ]
}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[LearnerClient]:
    host = Host("learner", ServerSettings(), CollectorRegistry())
    port, ledger = host.bind(), Ledger(tmp_path / "learner.db")
    runs = RunManager(ledger, Assembly(Settings()), LearnerMetrics(CollectorRegistry()))
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(runs), host.server)
    task = asyncio.create_task(host.run(["iterpo.v1.LearnerService"]))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield LearnerClient(channel)
    host.stop()
    await asyncio.wait_for(task, 20)
    ledger.close()


async def test_the_service_gives_the_librarys_numbers_to_the_last_bit(client):
    found = await asyncio.to_thread(client.explain, "dpo", BATCH, {"beta": "0.3"})
    assert found == explain("dpo", BATCH, {"beta": "0.3"})


async def test_a_batch_that_cannot_work_is_refused_with_row_and_field(client):
    with pytest.raises(InvalidInput, match=r"sequences\[0\].reward") as caught:
        await asyncio.to_thread(client.explain, "grpo", BATCH, {})
    assert caught.value.reason == "BAD_BATCH"
