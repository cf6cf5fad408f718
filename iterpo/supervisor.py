"""Keeps the three services running as child processes: start, health, restart with backoff, stop.

    with Supervisor(config_path, on_event=print) as services:
        services.wait_ready(timeout=300)
        ...
        services.poll()      # raises when a service could not be kept alive

A thread does the restarting, so the caller is free to block. Children end with this process even when it is killed:
their standard input is a pipe from here, and `services.host.run_service` ends the process when the pipe closes.
Each child leads a process group of its own, so that what it started (vLLM's engine process) ends with it too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from iterpo import preload
from iterpo.config import SERVICES, Settings, load
from iterpo.errors import InvalidConfig, IterpoError, Unavailable, WrongState, system_error

POLL_SECONDS = 0.2
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
STOP_SECONDS = 20.0
"""How long a service may drain before it is killed."""
SUPERVISED = "ITERPO_SUPERVISED"
"""Environment variable that tells a service to end when its standard input closes."""
EXIT_CONFIGURATION = 2
"""Exit code of a service that met an IterpoError: trying again would not help."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person who watches wants to know."""

    service: str
    kind: str
    """`started`, `ready`, `died`, `restarting`, `gave_up` or `stopped`."""
    message: str


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    """Asked now and then until it says yes; must answer within about a second."""


@dataclass
class _Child:
    spec: ServiceSpec
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    ever_ready: bool = False
    restarts: list[float] = field(default_factory=list)
    """When it was restarted, seconds of the monotonic clock."""
    restart_at: float = 0.0


class Supervisor:
    """Context manager. `on_event` is called from the caller's thread during start, stop, and from the watching one."""

    def __init__(
        self,
        config_path: Path | None,
        on_event: Callable[[Event], None] = lambda _: None,
        specs: Sequence[ServiceSpec] | None = None,
        log_dir: Path | None = None,
    ) -> None:
        settings = load(config_path)
        self.log_dir = log_dir or settings.data_dir / "logs"
        self._on_event = on_event
        self._children = {s.name: _Child(s) for s in specs or service_specs(settings, config_path)}
        self._failure: IterpoError | None = None
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every service and the thread that watches them."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        for child in self._children.values():
            self._spawn(child)
        self._watcher.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once every service answers SERVING. Raises what `poll` raises, or Unavailable after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not all(child.ready for child in self._children.values()):
            self.poll()
            if time.monotonic() > deadline:
                late = ", ".join(name for name, child in self._children.items() if not child.ready)
                raise Unavailable(f"Not ready after {timeout:.0f} s: {late}.", f"Read {self.log_dir}.", "NOT_READY")
            time.sleep(POLL_SECONDS)

    def poll(self) -> None:
        """Raises the error of the service that could not be kept alive; everything is stopped by then."""
        if self._failure is not None:
            raise self._failure

    def pid(self, name: str) -> int:
        """Process id of a service. Raises Unavailable while it waits for its restart."""
        with self._lock:
            process = self._children[name].process
            if process is None or process.poll() is not None:
                raise Unavailable(f"The {name} service is not running at the moment.", "Try again in a moment.")
            return process.pid

    def log_path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def stop(self) -> None:
        """SIGTERM to all, STOP_SECONDS to drain, then SIGKILL to what is left. Safe to call twice."""
        self._stopping.set()
        if self._watcher.is_alive() and threading.current_thread() is not self._watcher:
            self._watcher.join(timeout=STOP_SECONDS)
        with self._lock:
            self._stop_children()

    def _stop_children(self) -> None:
        running = [c for c in self._children.values() if c.process is not None]
        for child in running:
            _signal(child, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in running:
            process = child.process
            if process is None:
                continue
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._tell(child, "died", f"{child.spec.name} did not drain within {STOP_SECONDS:.0f} s: killed")
            self._bury(child)
            self._tell(child, "stopped", f"{child.spec.name} has stopped")

    def _watch(self) -> None:
        """Consumes the children's state; ends when the supervisor stops or gives up."""
        while not self._stopping.wait(POLL_SECONDS):
            try:
                with self._lock:
                    for child in self._children.values():
                        self._look_after(child)
            except Exception as error:  # noqa: BLE001  # nobody else looks after the services: whatever it is, it is told
                try:
                    with self._lock:
                        self._stop_children()
                finally:
                    self._failure = _failure(error)
                return

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.restart_at:
                self._spawn(child)
        elif (code := child.process.poll()) is not None:
            self._bury(child)
            self._plan_restart(child, code, now)
        elif not child.ready and child.spec.is_ready():
            child.ready = child.ever_ready = True
            self._tell(child, "ready", f"{child.spec.name} is ready")

    def _plan_restart(self, child: _Child, code: int, now: float) -> None:
        name = child.spec.name
        self._tell(child, "died", f"{name} ended with code {code}")
        if code == EXIT_CONFIGURATION and not child.ever_ready:
            raise self._given_up(child, f"The {name} service cannot start: {_last_line(self.log_path(name))}")
        child.restarts = [t for t in child.restarts if now - t < RESTART_WINDOW_SECONDS]
        if len(child.restarts) >= MAX_RESTARTS:
            message = f"The {name} service died {MAX_RESTARTS + 1} times within {RESTART_WINDOW_SECONDS:.0f} s."
            raise self._given_up(child, message)
        delay = min(8.0, 0.25 * 2 ** len(child.restarts))
        child.restarts.append(now)
        child.restart_at = now + delay
        self._tell(child, "restarting", f"{name} is started again in {delay:.2g} s")

    def _given_up(self, child: _Child, message: str) -> IterpoError:
        self._tell(child, "gave_up", message)
        return WrongState(message, f"Its log has the details: {self.log_path(child.spec.name)}.", "SERVICE_FAILED")

    def _spawn(self, child: _Child) -> None:
        with self.log_path(child.spec.name).open("ab") as log:
            child.process = subprocess.Popen(
                child.spec.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | preload.environment() | {SUPERVISED: "1", "PYTHONUNBUFFERED": "1"},
            )
        child.ready = False
        self._tell(child, "started", f"{child.spec.name} is starting (process {child.process.pid})")

    def _bury(self, child: _Child) -> None:
        """Kill whatever is left of the child's process group, and forget it."""
        process, child.process, child.ready = child.process, None, False
        if process is not None:
            _kill_group(process.pid)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _tell(self, child: _Child, kind: str, message: str) -> None:
        self._on_event(Event(child.spec.name, kind, message))


def service_specs(settings: Settings, config_path: Path | None) -> list[ServiceSpec]:
    """The three services of a configuration. Raises InvalidConfig for ports that nobody could find."""
    specs = []
    for name in SERVICES:
        address = getattr(settings, name).address
        if address.endswith(":0"):
            raise InvalidConfig(f"{name}.address is {address}: others could not find it.", "Name a port.")
        specs.append(ServiceSpec(name, service_command(name, config_path), HealthCheck(settings, name)))
    return specs


def service_command(name: str, config_path: Path | None, changes: Sequence[str] = ()) -> list[str]:
    """How a service is started. `changes`: of its settings, `KEY=VALUE`."""
    config = ["--config", str(config_path)] if config_path is not None else []
    return [sys.executable, "-m", f"services.{name}", *config, *(part for c in changes for part in ("--set", c))]


class HealthCheck:
    """Whether a service's standard health check says SERVING."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._service = service

    def __call__(self) -> bool:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        from iterpo.clients.channel import connect_service

        with connect_service(self._settings, self._service, retries=False) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.RpcError:
                # Not there yet, or not reachable: either way not ready, and the next look is soon.
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _failure(error: Exception) -> IterpoError:
    if isinstance(error, IterpoError):
        return error
    if isinstance(error, OSError):
        return system_error(error)
    return WrongState(
        f"The services could not be looked after any longer: {type(error).__name__}: {error}.",
        "Start them again; if it comes back, report it.",
        "SUPERVISOR_FAILED",
    )


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.poll() is None:
        child.process.send_signal(number)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing of the group is left: what we want


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("error: ") if lines else "it said nothing."
