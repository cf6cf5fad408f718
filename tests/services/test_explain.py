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
from iterpo.errors import InvalidInput, NotFound, WrongState
from iterpo.explain import explain
from iterpo.learner.batch_record import BatchFiles
from iterpo.learner.ledger import Ledger
from iterpo.run_config import RunConfig
from iterpo.types import IterationRow, Progress
from iterpo.v1 import learner_pb2_grpc
from services.host import Host, ServerSettings
from services.learner import servicer
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
    runs = RunManager(ledger, Assembly(Settings(data_dir=tmp_path)), LearnerMetrics(CollectorRegistry()))
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_a_number_that_is_none_is_the_callers_mistake_not_the_services(client, value):
    batch = {"sequences": [{"group": "p", "logprobs": [value], "reward": 1.0}]}
    with pytest.raises(InvalidInput, match="batch holds a number") as caught:
        await asyncio.to_thread(client.explain, "grpo", batch, {})
    assert caught.value.reason == "NOT_A_NUMBER"
    with pytest.raises(InvalidInput, match="config holds a number"):
        await asyncio.to_thread(client.start, "r", {"learning_rate": value}, [], [])


async def test_a_batch_that_cannot_work_is_refused_with_row_and_field(client):
    with pytest.raises(InvalidInput, match=r"sequences\[0\].reward") as caught:
        await asyncio.to_thread(client.explain, "grpo", BATCH, {})
    assert caught.value.reason == "BAD_BATCH"


RECORD = {
    "method": "online_dpo",
    "settings": {"gradient_coefficient.beta": "0.5"},
    "batch": {"sequences": BATCH["sequences"], "pairs": [{"chosen": 0, "rejected": 1}], "normalizer_constant": 8},
    "answers": [],
}


@pytest.fixture
def trained(tmp_path: Path, client) -> None:
    """A run whose second iteration's batch is kept."""
    ledger = Ledger(tmp_path / "learner.db")
    ledger.create("r", RunConfig(algorithm="online_dpo").model_dump(), [], [])
    row = IterationRow("r", 2, 2, True, True, 0.5, 0.5, 0.1, 1.0, 1.0, 100.0, 10.0, {}, None)
    ledger.commit(row, Progress(iteration=2), "c", [])
    ledger.close()
    BatchFiles(tmp_path / "runs" / "r" / "batches", 10).write(2, lambda: RECORD)


async def test_a_recorded_batch_is_explained_by_the_runs_own_method_with_its_parameters(trained, client):
    found = await asyncio.to_thread(client.explain_batch, "r")
    assert found == explain("online_dpo", RECORD["batch"], {"beta": "0.5"})
    assert found["parameters"]["beta"] == 0.5
    again = await asyncio.to_thread(client.explain_batch, "r", 2, "online_dpo", {"gradient_coefficient.beta": "0.2"})
    assert again == explain("online_dpo", RECORD["batch"], {"beta": "0.2"})


async def test_and_by_another_method_with_its_published_ones(trained, client):
    found = await asyncio.to_thread(client.explain_batch, "r", 2, "ipo")
    assert found == explain("ipo", RECORD["batch"])


async def test_a_batch_can_be_read_and_a_missing_one_says_which_are_kept(trained, client):
    assert await asyncio.to_thread(client.batch, "r") == ({"iteration": 2} | RECORD, [2])
    asked = (("r", 1, "BATCH_NOT_KEPT"), ("r", 3, "ITERATION_UNKNOWN"), ("nobody", 0, "RUN_NOT_FOUND"))
    for run_id, iteration, reason in asked:
        with pytest.raises(NotFound) as missing:
            await asyncio.to_thread(client.batch, run_id, iteration)
        assert missing.value.reason == reason


async def test_a_batch_that_no_message_holds_is_refused_with_where_it_lies(trained, client, monkeypatch):
    monkeypatch.setattr(servicer, "MOST_BYTES", 100)
    with pytest.raises(WrongState, match="runs/RUN/batches") as refused:
        await asyncio.to_thread(client.batch, "r")
    assert refused.value.reason == "BATCH_TOO_LARGE"
