"""The three metrics of a gRPC server, under the names that dashboards know. Health and reflection count too."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from services.calls import Method
from services.instruments import Instruments

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
"""Seconds: from a health check to a long token stream."""


class CallMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        made = self.made = Instruments(registry)
        self._started = made.counter(
            "grpc_server_started_total", "Calls that began.", "More than ended, for long: calls hang.", _LABELS
        )
        self._handled = made.counter(
            "grpc_server_handled_total",
            "Calls that ended, by status code.",
            "INTERNAL or UNKNOWN: a bug; the service's log has it. UNAVAILABLE: it starts or stops.",
            (*_LABELS, "grpc_code"),
        )
        self._seconds = made.histogram(
            "grpc_server_handling_seconds",
            "How long calls took.",
            "Growing: look at the CPU, and at what the service waits for.",
            _BUCKETS,
            _LABELS,
        )

    @asynccontextmanager
    async def guard(self, method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        labels = (method.call_type, method.service, method.name)
        self._started.labels(*labels).inc()
        started = time.perf_counter()
        # Anything that ends a call without a status (cancellation, a closed generator) counts as cancelled.
        code = grpc.StatusCode.CANCELLED.name
        try:
            yield
            code = _code(context, default=grpc.StatusCode.OK)
        except Exception:
            code = _code(context, default=grpc.StatusCode.UNKNOWN)
            raise
        finally:
            self._handled.labels(*labels, code).inc()
            self._seconds.labels(*labels).observe(time.perf_counter() - started)


def _code(context: grpc.aio.ServicerContext[Any, Any], default: grpc.StatusCode) -> str:
    """grpc.aio keeps the code as a number, 0 until one is set."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((c.name for c in grpc.StatusCode if code and c.value[0] == code), default.name)
