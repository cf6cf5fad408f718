"""/metrics over HTTP: one thread, the service's own registry and the process's memory and CPU."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.registry import Collector

from services.instruments import Described

PROCESS = (
    Described("process_cpu_seconds_total", "counter", "CPU time used.", "Flat: it sleeps, or hangs.", ()),
    Described("process_max_fds", "gauge", "File descriptors allowed.", "Raise the limit (ulimit -n).", ()),
    Described("process_open_fds", "gauge", "File descriptors open.", "Growing for ever: a leak; tell us.", ()),
    Described("process_resident_memory_bytes", "gauge", "Memory in use.", "Growing for ever: a leak; tell us.", ()),
    Described("process_start_time_seconds", "gauge", "When it began.", "Changes often: it dies; its log.", ()),
    Described("process_virtual_memory_bytes", "gauge", "Memory mapped.", "Mapped files count; look at resident.", ()),
)
"""What prometheus_client says of every process."""


class MetricsEndpoint:
    """Serves until `stop`. vLLM's own metrics are not shown: the engines run without statistics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series, which nothing here reads
        self._shown = CollectorRegistry()
        self._shown.register(_Forward(registry))
        ProcessCollector(registry=self._shown)
        self._running: tuple[WSGIServer, threading.Thread] | None = None
        self.tls: ssl.SSLContext | None = None

    def start(self, address: str, certificate: Path | None = None, key: Path | None = None) -> int:
        """Listen on `host:port` and return the port. Raises OSError when it is taken."""
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(
            int(port),
            host.strip("[]"),
            self._shown,
            certfile=str(certificate) if certificate else None,
            keyfile=str(key) if key else None,
        )
        self._running = (server, thread)
        self.tls = server.socket.context if isinstance(server.socket, ssl.SSLSocket) else None
        return server.server_port

    def stop(self) -> None:
        if self._running is not None:
            server, thread = self._running
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)
            self._running = None


class _Forward(Collector):
    """Shows another registry's metrics. It has no `describe`, so names are not claimed at registration."""

    def __init__(self, source: CollectorRegistry) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        return self._source.collect()
