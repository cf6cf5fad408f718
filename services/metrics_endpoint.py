"""/metrics over HTTP: one thread, the service's own registry and the process's memory and CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server
from prometheus_client.registry import Collector


class MetricsEndpoint:
    """Serves until `stop`. vLLM's own metrics are not shown: the engines run without statistics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shown = CollectorRegistry()
        self._shown.register(_Forward(registry))
        ProcessCollector(registry=self._shown)
        self._running: tuple[WSGIServer, threading.Thread] | None = None

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
