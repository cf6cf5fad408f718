"""A channel to several servers of one service: they share the calls, and one that is away is left out."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from iterpo.clients.channel import connect, translated_errors
from iterpo.errors import InvalidConfig
from iterpo.v1 import inference_pb2, inference_pb2_grpc
from services.host import ServerSettings
from tests.platform.serving import Running, SmallInference, running
from tests.platform.test_deploy import DEPLOY


class Named(SmallInference):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    async def GetModel(self, request: Any, context: Any) -> inference_pb2.GetModelResponse:
        return inference_pb2.GetModelResponse(name=self._name)


def who_answer(channel: grpc.Channel, calls: int) -> Counter[str]:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    with translated_errors():
        return Counter(stub.GetModel(inference_pb2.GetModelRequest(), timeout=10).name for _ in range(calls))


async def soon(channel: grpc.Channel, true: Callable[[Counter[str]], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true(await asyncio.to_thread(who_answer, channel, 10)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_they_share_the_calls_and_the_rest_answers_when_one_goes() -> None:
    async with AsyncExitStack() as ending:
        first, second = [await ending.enter_async_context(running(servicer=Named(name))) for name in ("one", "two")]
        with connect([first.address, f"localhost:{second.address.rpartition(':')[2]}"]) as channel:
            await soon(channel, lambda answers: len(answers) == 2)
            assert await asyncio.to_thread(who_answer, channel, 40) == {"one": 20, "two": 20}
            await stopped(first)
            assert (await asyncio.to_thread(who_answer, channel, 40))["two"] >= 39, "no call fails"


async def stopped(server: Running) -> None:
    server.host.stop()
    assert server.task is not None
    await asyncio.wait_for(asyncio.shield(server.task), 20)


async def test_one_that_is_not_ready_gets_no_call_until_it_is() -> None:
    ready = asyncio.Event()

    async def prepare() -> None:
        await ready.wait()

    async with AsyncExitStack() as ending:
        first = await ending.enter_async_context(running(servicer=Named("one")))
        late = await ending.enter_async_context(running(servicer=Named("late"), prepare=prepare))
        with connect([first.address, late.address]) as channel:
            assert await asyncio.to_thread(who_answer, channel, 20) == {"one": 20}
            ready.set()
            await soon(channel, lambda answers: len(answers) == 2)


def secrets(folder: Path) -> Path:
    subprocess.run([DEPLOY / "secrets.sh", folder, "inference"], check=True, capture_output=True, timeout=60)
    return folder


async def test_their_certificates_hold_one_name(tmp_path: Path) -> None:
    folder = secrets(tmp_path / "secrets")
    settings = ServerSettings(tls_certificate=folder / "server.pem", tls_key=folder / "server.key")
    async with AsyncExitStack() as ending:
        servers = [await ending.enter_async_context(running(settings, servicer=Named(name))) for name in "ab"]
        addresses = [server.address for server in servers]
        with connect(addresses, None, folder / "authority.pem", tls_name="inference") as channel:
            await soon(channel, lambda answers: len(answers) == 2)


def test_a_name_that_nobody_knows_and_an_empty_list_are_said() -> None:
    with pytest.raises(InvalidConfig, match=r"nowhere.invalid:1 is no IPv4 address"):
        connect(["127.0.0.1:1", "nowhere.invalid:1"])
    with pytest.raises(InvalidConfig, match="no address in the list"):
        connect([])
