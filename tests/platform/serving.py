"""A real server in this process, with one small servicer whose answers the tests choose, and its address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry

from iterpo.v1 import inference_pb2, inference_pb2_grpc
from services.host import Host, ServerSettings

SERVICE = "iterpo.v1.InferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class SmallInference(inference_pb2_grpc.InferenceServiceServicer):
    """GetModel answers or raises; Generate counts to three, then waits for `released` before it ends."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.released = asyncio.Event()
        self.cleaned_up = asyncio.Event()

    async def GetModel(self, request: Any, context: Any) -> inference_pb2.GetModelResponse:
        if self.error is not None:
            raise self.error
        return inference_pb2.GetModelResponse(name="small")

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[inference_pb2.GenerateResponse]:
        try:
            for number in range(3):
                yield inference_pb2.GenerateResponse(text_delta=str(number))
            await self.released.wait()
            yield inference_pb2.GenerateResponse(text_delta=".")
        finally:
            self.cleaned_up.set()

    async def Score(self, request: Any, context: Any) -> inference_pb2.ScoreResponse:
        return inference_pb2.ScoreResponse(policy_digest=request.policy)


@dataclass
class Running:
    host: Host
    servicer: SmallInference
    address: str
    drained: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


@asynccontextmanager
async def running(
    settings: ServerSettings | None = None,
    prepare: Callable[[], Awaitable[None]] | None = None,
    servicer: SmallInference | None = None,
) -> AsyncIterator[Running]:
    """The server, started; it is stopped and waited for at the end."""
    host = Host("inference", replace(settings or ServerSettings(), metrics_address="127.0.0.1:0"), CollectorRegistry())
    servicer = servicer or SmallInference()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, host.server)
    server = Running(host, servicer, f"127.0.0.1:{host.bind()}")

    async def drain() -> None:
        server.drained.append("drained")
        servicer.released.set()

    server.task = asyncio.create_task(host.run([SERVICE], drain, prepare))
    try:
        await asyncio.sleep(0)
        yield server
    finally:
        host.stop()
        await asyncio.wait_for(server.task, 20)
