"""A service's own part in a trace: what a call's span says, and how long a collector that is away holds the end up."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from iterpo import tracing
from iterpo.clients.channel import connect, translated_errors
from iterpo.demo.free_ports import free_ports
from iterpo.errors import NotFound
from iterpo.v1 import inference_pb2, inference_pb2_grpc
from tests.platform.serving import running
from tests.platform.test_docs import ROOT

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The W3C's own example."""
DEAD_COLLECTOR = """
import sys, time
from iterpo import tracing
from iterpo.config import TraceSettings
from services.traces import Traces
traces = Traces()
traces.start("inference", TraceSettings(endpoint=sys.argv[1]))
for number in range(1500):
    with tracing.span("sample"):
        pass
began = time.monotonic()
traces.end()
print(time.monotonic() - began)
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    return exporter


async def test_a_refused_calls_span_holds_the_errors_own_kind_and_not_its_text(spans: InMemorySpanExporter) -> None:
    async with running() as server:
        server.servicer.error = NotFound("There is no secret prompt.", "Ask for another.")

        def call() -> None:
            with connect(server.address, retries=False) as channel, translated_errors():
                stub = inference_pb2_grpc.InferenceServiceStub(channel)
                stub.GetModel(inference_pb2.GetModelRequest(), timeout=10, metadata=(("traceparent", CALLER),))

        with pytest.raises(NotFound, match="secret prompt"):
            await asyncio.to_thread(call)
    [span] = spans.get_finished_spans()
    assert span.name == "iterpo.v1.InferenceService/GetModel"
    assert f"{span.context.trace_id:032x}" == CALLER.split("-")[1]
    assert (span.status.is_ok, span.status.description) == (False, "NotFound")
    assert "secret" not in span.to_json()


def test_a_collector_that_is_away_holds_a_services_end_up_for_seconds_only() -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-c", DEAD_COLLECTOR, f"http://127.0.0.1:{port}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert float(ended.stdout) < 4.0
