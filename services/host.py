"""What the three services share: a grpc.aio server with health, reflection, roles, rich errors, /metrics and drain.

A service's `__main__` makes a Host, adds its servicers to `host.server`, binds and runs:

    host = Host("labeling", ServerSettings.of(settings, "labeling"), registry)
    add_LabelingServiceServicer_to_server(servicer, host.server)
    host.bind()
    await host.run(["iterpo.v1.LabelingService"], drain=servicer.drain)

and the whole coroutine goes through `run_service`, which turns errors into exit codes.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from iterpo.clients.channel import MAX_MESSAGE_BYTES, is_loopback
from iterpo.errors import InvalidConfig, IterpoError, Unavailable, WrongState, system_error
from iterpo.supervisor import STOP_SECONDS, SUPERVISED
from services import logs
from services.audit import Audit
from services.auth import OPEN_SERVICES, TokenGuard
from services.call_metrics import CallMetrics
from services.calls import GuardInterceptor, Method, Parsing, Writing
from services.certificates import GrpcCertificate, keep_fresh
from services.metrics_endpoint import MetricsEndpoint
from services.status import error_guard
from services.tokens import Tokens
from services.traces import Traces, trace_guard

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS = 5.0
"""How long calls may go on after the drain before they are cut."""

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it silently
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),  # long silent calls otherwise die with too_many_pings
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    address: str = "127.0.0.1:0"
    """`host:port`; port 0 takes a free one."""
    metrics_address: str = ""
    """`host:port` of /metrics over HTTP; empty: none."""
    tls_certificate: Path | None = None
    """PEM. Together with `tls_key`: TLS on both ports."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """PEM of the authority that clients' certificates must come from (mutual TLS). None: none is asked for."""
    tokens: Tokens = field(default_factory=Tokens)
    """Without any everybody may do everything, which only a loopback address is allowed."""
    calls_per_second: float = 0.0
    """Of one token. 0: any number."""
    audit: Path | None = None
    """Where mutations are recorded. None: nowhere."""

    @classmethod
    def of(cls, settings: Any, service: str) -> ServerSettings:
        """From iterpo.config.Settings; `service` is `inference`, `labeling` or `learner`."""
        section = getattr(settings, service)
        return cls(
            section.listen or section.address,
            section.metrics_address,
            settings.auth.tls_certificate,
            settings.auth.tls_key,
            settings.auth.tls_client_ca,
            Tokens(file=settings.auth.tokens_file),
            settings.auth.calls_per_second,
            settings.data_dir / "logs" / f"audit-{service}.jsonl",
        )


class Host:
    """One gRPC server on one event loop; make it inside the running loop. `server` takes servicers until `run`."""

    def __init__(self, name: str, settings: ServerSettings, registry: CollectorRegistry) -> None:
        check_settings(settings)
        self.name = name
        self.settings = settings
        self.stopping = asyncio.Event()
        """Set when the process was asked to end: streams that wait for news should watch it."""
        self.metrics_port: int | None = None
        self.ready = False
        """Whether calls are answered."""
        self.traces = Traces()
        self._metrics = MetricsEndpoint(registry)
        self.guard = TokenGuard(settings.tokens, settings.calls_per_second)
        self.audit = Audit(settings.audit)
        # A span holds an error's own kind: error_guard, outside of it, makes every error gRPC's.
        guards = (
            CallMetrics(registry).guard,
            error_guard,
            self.audit.guard,
            trace_guard,
            self._only_when_ready,
            self.guard,
        )
        self.server = grpc.aio.server(
            interceptors=[Writing(), *(GuardInterceptor(g) for g in guards), Parsing()], options=OPTIONS
        )
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)

    def bind(self) -> int:
        """Take both ports and return the gRPC one. Raises WrongState (PORT_IN_USE) when another process has one."""
        try:
            port = self._bind_grpc()
        except RuntimeError as error:
            raise _port_in_use(self.name, "address", self.settings.address) from error
        if self.settings.metrics_address:
            self._bind_metrics()
        return port

    async def run(
        self,
        service_names: Sequence[str],
        drain: Callable[[], Awaitable[None]] | None = None,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Serve until SIGTERM, SIGINT or `stop()`. Health says NOT_SERVING, and calls are refused as UNAVAILABLE,
        until `prepare` (loading an engine, for example) is through, and again from the moment of the stop;
        then `drain` ends open streams with a reason, calls get GRACE_SECONDS more, and `run` returns."""
        await self._announce(service_names, serving=False)
        reflection.enable_server_reflection((*service_names, *OPEN_SERVICES), self.server)
        await self.server.start()
        fresh = asyncio.create_task(self._keep_metrics_fresh())
        try:
            with _leaving_at_once():
                prepared = prepare is None or await self._unless_stopped(prepare())
            self._catch_signals()
            if prepared:
                await self._announce(service_names, serving=True)
                logger.info("%s is serving on %s", self.name, self.settings.address)
                await self.stopping.wait()
        finally:
            fresh.cancel()
            await self._shut_down(drain)

    async def _keep_metrics_fresh(self) -> None:
        context, certificate, key = self._metrics.tls, self.settings.tls_certificate, self.settings.tls_key
        if context is not None and certificate is not None and key is not None:
            await keep_fresh(context, certificate, key)

    def stop(self) -> None:
        """Ask `run` to drain and return. Safe to call twice."""
        self.stopping.set()

    def _bind_grpc(self) -> int:
        certificate, key = self.settings.tls_certificate, self.settings.tls_key
        if certificate is None or key is None:
            return self.server.add_insecure_port(self.settings.address)
        credentials = GrpcCertificate(certificate, key, self.settings.tls_client_ca).credentials()
        return self.server.add_secure_port(self.settings.address, credentials)

    def _bind_metrics(self) -> None:
        address = self.settings.metrics_address
        try:
            self.metrics_port = self._metrics.start(address, self.settings.tls_certificate, self.settings.tls_key)
        except OSError as error:
            raise _port_in_use(self.name, "metrics_address", address) from error

    async def _announce(self, service_names: Sequence[str], *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *service_names):
            await self._health.set(name, status)
        self.ready = serving

    async def _shut_down(self, drain: Callable[[], Awaitable[None]] | None) -> None:
        self.ready = False
        await self._health.enter_graceful_shutdown()
        try:
            if drain is not None:
                await drain()
        finally:
            await self.server.stop(GRACE_SECONDS)
            self.audit.close()
            self._metrics.stop()
            await asyncio.to_thread(self.traces.end)
            logger.info("%s has stopped", self.name)

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Wait for `work`; cancel it and answer False when the process is asked to end before it is through."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _catch_signals(self) -> None:
        try:
            for number in STOP_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
        except (ValueError, RuntimeError):
            # As above: outside the main thread only `stop()` ends a host.
            logger.debug("%s handles no signals outside the main thread", self.name)

    @asynccontextmanager
    async def _only_when_ready(self, method: Method, context: Any) -> AsyncIterator[None]:
        if not self.ready and method.service not in OPEN_SERVICES:
            reason = "STOPPING" if self.stopping.is_set() else "STARTING"
            raise Unavailable(f"The {self.name} service is {reason.lower()}.", "Try again in a moment.", reason)
        yield


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """SIGTERM and SIGINT end the process while it prepares. An engine that starts keeps the event loop busy for half
    a minute, and a handler of the loop would wait for it; nothing is served yet, so nothing needs a drain. An
    exception would have to cross gRPC's poller, which crashes on it."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(0)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only; a host in another one ends by `stop()`
        return
    before = {number: signal.signal(number, leave) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def check_settings(settings: ServerSettings) -> None:
    """Raises InvalidConfig when a port would be open to others without TLS and tokens."""
    tls = settings.tls_certificate is not None and settings.tls_key is not None
    if not is_loopback(settings.address) and (settings.tokens.open_to_all or not tls):
        raise InvalidConfig(
            f"{settings.address} can be reached by other machines, and TLS or tokens are missing.",
            "Bind to 127.0.0.1, or set auth.tokens_file, auth.tls_certificate and auth.tls_key.",
            "INSECURE_ADDRESS",
        )
    if settings.metrics_address and not is_loopback(settings.metrics_address) and not tls:
        raise InvalidConfig(
            f"The metrics on {settings.metrics_address} can be reached by other machines, and TLS is missing.",
            "Bind metrics_address to 127.0.0.1, or set auth.tls_certificate and auth.tls_key.",
            "INSECURE_ADDRESS",
        )


def run_service(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a service's main coroutine; the exit code of the process: 0 after a drain, 2 after an IterpoError or what the
    operating system refuses (a path that cannot be written, a full disk)."""
    if os.environ.get(SUPERVISED):
        threading.Thread(target=_end_with_supervisor, name="supervisor-watch", daemon=True).start()
    logs.start("")  # until the configuration says how
    try:
        asyncio.run(main())
    except IterpoError as error:
        return _refused(error)
    except OSError as error:
        if error.filename is None:
            logger.exception("the operating system refused something that is no file")
        return _refused(system_error(error))
    except KeyboardInterrupt:
        # SIGINT before `Host.run` took over the signals: nothing is open yet, so nothing needs a drain.
        return 0
    return 0


def _refused(error: IterpoError) -> int:
    print(f"error: {error} [{error.reason}]", file=sys.stderr)
    return 2


def _end_with_supervisor() -> None:
    """Standard input is a pipe from `iterpo up`; it closes when that process ends, however it ends."""
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)  # the drain hangs, and nobody is left who could kill this process


def _port_in_use(name: str, key: str, address: str) -> WrongState:
    return WrongState(
        f"The {name} service cannot listen on {address}: the port is taken or the address is not this machine's.",
        f"Stop the other process, or set {name}.{key} in iterpo.toml.",
        "PORT_IN_USE",
    )
