"""/metrics over HTTP: one thread, the service's own registry and those it is asked to show beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server
from prometheus_client.registry import Collector


class MetricsEndpoint:
    """Serves until `stop`. With no extra registry it adds this process's memory and CPU; vLLM's has them already."""

    def __init__(self, registry: CollectorRegistry, extra_registries: Sequence[CollectorRegistry] = ()) -> None:
        self._shown = CollectorRegistry()
        for source in (registry, *extra_registries):
            self._shown.register(_Forward(source))
        if not extra_registries:
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
