"""`RayCluster`: a cluster's services as Ray actors. Ray places and restarts them; it stays in this file.

An actor keeps one service as `iterpo up` keeps three: the same process, the same health check, started again when it
dies. When the actor or its node dies, Ray makes the actor anew, on another node if need be. The first of each service
is found at the address that iterpo.toml says, so Ray puts it on that node; where the address is a name, on the one that
offers the resource `iterpo-first`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from iterpo.clients.channel import host_of, is_ip, is_loopback
from iterpo.cluster import Member, members
from iterpo.config import Settings, load
from iterpo.demo.free_ports import free_ports
from iterpo.errors import IterpoError, Unavailable, WrongState
from iterpo.supervisor import Event, HealthCheck, ServiceSpec, Supervisor, service_command

PLACE_SECONDS = 60.0
ASK_SECONDS = 10.0
FIRST = "iterpo-first"
POLL_SECONDS = 0.5


class Keeper:
    """The actor: one service, kept running on the node that it is on."""

    def __init__(self, member: Member, config_path: str) -> None:
        self._told: list[tuple[str, str, str]] = []
        host = "127.0.0.1"
        if not is_loopback(getattr(load(Path(config_path)), member.service).address):
            host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        (port,) = free_ports(1)
        self.changes = [change.format(host=host, port=port) for change in member.changes]
        settings = load(Path(config_path), self.changes)
        self.address = str(getattr(settings, member.service).address)
        command = service_command(member.service, Path(config_path), self.changes)
        spec = ServiceSpec(member.name, command, HealthCheck(settings, member.service))
        self._ready = False
        self._supervisor = Supervisor(Path(config_path), self._on_event, [spec])
        self._supervisor.start()

    def _on_event(self, event: Event) -> None:
        self._ready = event.kind == "ready" or (self._ready and event.kind not in ("died", "restarting"))
        self._told.append((event.service, event.kind, event.message))

    def news(self) -> dict[str, Any]:
        """What happened since this was last asked. Raises the error of a service that cannot be kept alive."""
        self._supervisor.poll()
        told, self._told = self._told, []
        return {"events": told, "ready": self._ready, "address": self.address}

    def pid(self, name: str) -> int:
        return self._supervisor.pid(name)

    def stop(self) -> None:
        self._supervisor.stop()


class RayCluster:
    """Used as a Supervisor is: a context, `wait_ready`, `poll`. `only`: these services, for tests."""

    def __init__(
        self,
        config_path: Path,
        on_event: Callable[[Event], None] = lambda _: None,
        only: Sequence[str] = ("inference", "labeling", "learner"),
    ) -> None:
        self._config_path, self._settings = config_path.resolve(), load(config_path)
        self._on_event = on_event
        self._members = [member for member in members(self._settings) if member.service in only]
        self._actors: dict[str, Any] = {}
        self._group: PlacementGroup | None = None
        self.addresses: dict[str, str] = {}
        """Member -> where clients find it, once it is known."""
        self._ready: set[str] = set()
        self._own = False

    def __enter__(self) -> Self:
        self._join()
        try:
            self._place()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_ready(self, timeout: float) -> None:
        """Raises what `poll` raises, or Unavailable after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self.poll()
            late = [member.name for member in self._members if member.name not in self._ready]
            if not late:
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Not ready after {timeout:.0f} s: {', '.join(late)}.", "Read their logs.", "NOT_READY"
                )
            time.sleep(POLL_SECONDS)

    def poll(self) -> None:
        """Tell what happened. Raises the error of a service that could not be kept alive."""
        for name, actor in self._actors.items():
            try:
                news = ray.get(actor.news.remote(), timeout=ASK_SECONDS)
            except (RayActorError, GetTimeoutError):
                if name in self._ready:
                    self._tell(name, "restarting", f"{name}'s actor is gone: Ray starts it again")
                self._ready.discard(name)
                continue
            except ray.exceptions.RayTaskError as error:
                raise _own_error(error) from error
            self.addresses[name] = news["address"]
            for service, kind, message in news["events"]:
                self._tell(service, kind, message)
            (self._ready.add if news["ready"] else self._ready.discard)(name)

    def actor(self, name: str) -> Any:
        return self._actors[name]

    def stop(self) -> None:
        """Drain every service, then let go of the actors, and of Ray itself when it was started here."""
        stopping = [actor.stop.remote() for actor in self._actors.values()]
        ray.wait(stopping, num_returns=len(stopping), timeout=60.0) if stopping else None
        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None
        if self._own:
            ray.shutdown()
            self._own = False

    def _join(self) -> None:
        if ray.is_initialized():
            return
        address = self._settings.cluster.ray_address
        try:
            if address:
                _knock(address)
                ray.init(address=address, log_to_driver=False)
            else:
                ray.init(address="local", include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        except (OSError, RuntimeError) as error:
            raise Unavailable(
                f"There is no Ray cluster at {address!r}: {error}.",
                "Start one (ray start --head), or leave cluster.ray_address empty.",
                "RAY_AWAY",
            ) from error
        self._own = True

    def _place(self) -> None:
        bundles = [_bundle(member, self._settings) for member in self._members]
        self._group = placement_group(bundles, strategy="SPREAD")
        if not self._group.wait(PLACE_SECONDS):
            raise _no_place(bundles)
        remote = ray.remote(Keeper)
        for number, member in enumerate(self._members):
            self._actors[member.name] = remote.options(
                num_cpus=member.cpus,
                num_gpus=member.gpus,
                max_restarts=-1,
                max_concurrency=4,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, number),
            ).remote(member, str(self._config_path))

    def _tell(self, service: str, kind: str, message: str) -> None:
        self._on_event(Event(service, kind, message))


def _knock(address: str) -> None:
    """Raises OSError when nobody listens at `host:port`: Ray itself would try for minutes, in many lines."""
    port = address.rpartition(":")[2]
    if port.isdecimal() and "://" not in address:
        socket.create_connection((host_of(address), int(port)), ASK_SECONDS).close()


def _bundle(member: Member, settings: Settings) -> dict[str, float]:
    bundle = {"CPU": member.cpus or 0.001}
    if member.gpus:
        bundle["GPU"] = member.gpus
    address = getattr(settings, member.service).address
    if member.is_first and not is_loopback(address):
        host = host_of(address)
        bundle[f"node:{host}" if is_ip(host) else FIRST] = 0.001
    return bundle


def _no_place(bundles: Sequence[dict[str, float]]) -> WrongState:
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {name for bundle in bundles for name in bundle if name == FIRST or name.startswith("node:")}
    unknown = sorted(wanted - have.keys())
    if unknown:
        return WrongState(
            f"Ray cannot place the services: no node offers {', '.join(unknown)}.",
            f"Set each address to a node's, or start the node that its name leads to with the resource {FIRST}.",
            "NO_PLACE",
        )
    asked = [sum(bundle.get(kind, 0) for bundle in bundles) for kind in ("CPU", "GPU")]
    return WrongState(
        f"Ray cannot place the services: they ask for {asked[0]:g} CPUs and {asked[1]:g} GPUs, the cluster has "
        f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}.",
        "Lower cluster.*_cpus and *_gpus, or add nodes.",
        "NO_PLACE",
    )


def _own_error(error: ray.exceptions.RayTaskError) -> IterpoError:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, IterpoError) else WrongState(str(error), "Read the log.", "SERVICE_FAILED")
