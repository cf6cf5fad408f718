"""`iterpo up`: the three services in the foreground, kept running until Ctrl-C."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table
from iterpo.config import SERVICES

READY_SECONDS = 600.0
"""First start included: converting the embedded model, and an engine that compiles."""


@click.command()
@click.option("--monitor", is_flag=True, help="Start a Prometheus too, which reads the services and our alert rules.")
@click.option(
    "--engine",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="Three processes here, or as many as [cluster] says, as Ray actors on its nodes.",
)
@config_option
@json_option
def command(monitor: bool, engine: str, config_path: Path | None, as_json: bool) -> None:
    """Start inference, labeling and learner, restart what dies, and stop them all on Ctrl-C or SIGTERM.

    Logs go to logs/ in data_dir.
    """
    from iterpo.config import load
    from iterpo.embedded_model import model_directory
    from iterpo.monitor import prometheus
    from iterpo.supervisor import Event, Supervisor, service_specs

    settings = load(config_path)

    def say(message: str) -> None:
        if not as_json:
            click.echo(message, err=True)

    def on_event(event: Event) -> None:
        if as_json:
            print_json({"service": event.service, "event": event.kind, "message": event.message})
        else:
            click.echo(event.message, err=True)

    specs = service_specs(settings, config_path)
    keys = [(name, key) for name in SERVICES for key in ("address", "metrics_address")]
    keys += [("inference", "http_address"), ("labeling", "page_address")]
    addresses = {f"{name}.{key}": getattr(getattr(settings, name), key) for name, key in keys}
    if monitor:
        specs.append(prometheus.spec(settings, config_path))
        addresses["monitor.address"] = settings.monitor.address
    check_nobody_listens(addresses)
    model_directory(settings.model.path, settings.data_dir, say)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as running:
        if engine == "ray":
            cluster = running.enter_context(_ray_cluster(config_path, on_event))
            _wait_ready(cluster, stop)
            others = {name: address for name, address in cluster.addresses.items() if name not in SERVICES}
            kept = [cluster]
            if monitor:
                kept.append(running.enter_context(Supervisor(config_path, on_event, specs[-1:])))
        else:
            kept, others = [running.enter_context(Supervisor(config_path, on_event, specs))], {}
        for each in kept:
            _wait_ready(each, stop)
        if not stop.is_set():
            _print_places(settings, settings.data_dir / "logs", monitor, as_json, others)
        while not stop.wait(0.5):
            for each in kept:
                each.poll()


def _ray_cluster(config_path: Path | None, on_event: Any) -> Any:
    from iterpo.config import DEFAULT_FILE
    from iterpo.errors import InvalidConfig

    try:
        from iterpo.ray_cluster import RayCluster
    except ImportError as error:
        raise InvalidConfig(
            f"--engine ray needs Ray, which is not installed: {error}.",
            "pip install 'iterpo[ray]'",
            "RAY_NOT_INSTALLED",
        ) from error
    path = config_path or Path.cwd() / DEFAULT_FILE
    if not path.is_file():
        raise InvalidConfig("A cluster needs a configuration file.", f"Write {DEFAULT_FILE} with [cluster].")
    return RayCluster(path, on_event)


def check_nobody_listens(addresses: Mapping[str, str]) -> None:
    """`addresses`: by their keys in iterpo.toml. Raises WrongState (PORT_IN_USE): another one's answers would be taken
    for those of the services started here."""
    from iterpo.errors import WrongState

    for key, address in addresses.items():
        host, _, port = address.rpartition(":")
        if not port or port == "0":
            continue  # none, or any free one
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
        except OSError:
            continue
        raise WrongState(
            f"Somebody listens on {host}:{port} already, another `iterpo up` perhaps.",
            f"Stop it, or set {key} in iterpo.toml.",
            "PORT_IN_USE",
        )


def _wait_ready(supervisor: Any, stop: threading.Event) -> None:
    """As Supervisor.wait_ready, in slices, so that Ctrl-C during a slow start is heard."""
    from iterpo.errors import Unavailable

    waited = 0.0
    while not stop.is_set():
        try:
            supervisor.wait_ready(timeout=0.5)
        except Unavailable:
            waited += 0.5
            if waited >= READY_SECONDS:
                raise
        else:
            return


def _print_places(
    settings: Any, log_dir: Path, monitor: bool, as_json: bool, others: Mapping[str, str] | None = None
) -> None:
    """`others`: further services of a cluster, and where clients find them."""
    scheme = "https" if settings.auth.tls_certificate else "http"
    http = {
        "inference": _url(scheme, settings.inference.http_address, "/v1"),
        "labeling": _url(scheme, settings.labeling.page_address, "/"),
    }
    places = [
        {
            "service": name,
            "grpc": getattr(settings, name).address,
            "http": http.get(name, ""),
            "metrics": _url(scheme, getattr(settings, name).metrics_address, "/metrics"),
        }
        for name in SERVICES
    ]
    places += [{"service": name, "grpc": at, "http": "", "metrics": ""} for name, at in (others or {}).items()]
    if monitor:
        places.append(
            {"service": "prometheus", "grpc": "", "http": f"http://{settings.monitor.address}/", "metrics": ""}
        )
    if as_json:
        print_json({"event": "ready", "services": places})
        return
    print_table(places)
    click.echo(
        f"Logs: {log_dir}. Try `iterpo chat` or `iterpo run start` in another terminal; Ctrl-C stops everything."
    )


def _url(scheme: str, address: str, path: str) -> str:
    return f"{scheme}://{address}{path}" if address else ""
