"""`iterpo up`: the three services in the foreground, kept running until Ctrl-C."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table

READY_SECONDS = 600.0
"""First start included: converting the embedded model, and an engine that compiles."""


@click.command()
@config_option
@json_option
def command(config_path: Path | None, as_json: bool) -> None:
    """Start inference, labeling and learner, restart what dies, and stop them all on Ctrl-C or SIGTERM.

    Logs go to logs/ in data_dir.
    """
    from iterpo.config import load
    from iterpo.embedded_model import model_directory
    from iterpo.supervisor import Event, Supervisor

    settings = load(config_path)

    def say(message: str) -> None:
        if not as_json:
            click.echo(message, err=True)

    def on_event(event: Event) -> None:
        if as_json:
            print_json({"service": event.service, "event": event.kind, "message": event.message})
        else:
            click.echo(event.message, err=True)

    check_nobody_listens(settings)
    model_directory(settings.model.path, settings.data_dir, say)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Supervisor(config_path, on_event) as supervisor:
        _wait_ready(supervisor, stop)
        if not stop.is_set():
            _print_places(settings, supervisor.log_dir, as_json)
        while not stop.wait(0.5):
            supervisor.poll()


def check_nobody_listens(settings: Any) -> None:
    """Raises WrongState (PORT_IN_USE): another one's answers would be taken for those of the services started here."""
    from iterpo.config import SERVICES
    from iterpo.errors import WrongState

    for name in SERVICES:
        host, _, port = getattr(settings, name).address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
        except OSError:
            continue
        raise WrongState(
            f"Somebody listens on {host}:{port} already, another `iterpo up` perhaps.",
            f"Stop it, or set {name}.address in iterpo.toml.",
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


def _print_places(settings: Any, log_dir: Path, as_json: bool) -> None:
    from iterpo.config import SERVICES

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
    if as_json:
        print_json({"event": "ready", "services": places})
        return
    print_table(places)
    click.echo(
        f"Logs: {log_dir}. Try `iterpo chat` or `iterpo run start` in another terminal; Ctrl-C stops everything."
    )


def _url(scheme: str, address: str, path: str) -> str:
    return f"{scheme}://{address}{path}" if address else ""
