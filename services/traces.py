"""Where a service's spans go: an OpenTelemetry collector (or Jaeger, Tempo, ...) over OTLP/gRPC."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from iterpo import __version__, tracing
from iterpo.config import TraceSettings
from iterpo.errors import InvalidConfig
from services.calls import Method

END_SECONDS = 3.0
"""How long a service's end waits for a collector: OpenTelemetry's own time-outs are not kept where one is away."""


class Traces:
    """Of one service. Nothing is traced until `start`."""

    def __init__(self) -> None:
        self._provider: Any = None

    def start(self, service: str, settings: TraceSettings) -> None:
        """Raises InvalidConfig (TRACING_NOT_INSTALLED)."""
        if not settings.endpoint:
            return
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError as error:
            raise InvalidConfig(
                f"trace.endpoint is set, and OpenTelemetry is not installed: {error}.",
                "pip install 'iterpo[trace]', or leave trace.endpoint empty.",
                "TRACING_NOT_INSTALLED",
            ) from error
        about = Resource.create({"service.name": f"iterpo-{service}", "service.version": __version__})
        sampler = ParentBased(TraceIdRatioBased(settings.share))
        self._provider = TracerProvider(resource=about, sampler=sampler, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(settings.endpoint, insecure=settings.endpoint.startswith("http://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(self._provider)

    def end(self) -> None:
        """What is left is sent."""
        if self._provider is not None:
            sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
            sending.start()
            sending.join(END_SECONDS)


@asynccontextmanager
async def trace_guard(method: Method, context: Any) -> AsyncIterator[None]:
    """A span around a call that comes within a trace. Others (health, scrapes of nobody's) begin none."""
    caller = {key: str(value) for key, value in context.invocation_metadata() or () if key == tracing.TRACEPARENT}
    if not caller:
        yield
        return
    with tracing.served(f"{method.service}/{method.name}", caller, method.call_type == "unary"):
        yield
