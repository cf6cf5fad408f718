"""`iterpo health`: what a container's probe asks, with TLS where the configuration has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json


@click.command()
@click.argument("service", type=click.Choice(["inference", "labeling", "learner"]))
@click.option("--address", help="Where it listens.  [default: SERVICE.address]")
@click.option("--timeout", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds.")
@config_option
@json_option
def command(service: str, address: str | None, timeout: float, config_path: Path | None, as_json: bool) -> None:
    """Whether SERVICE answers calls: `serving`, and exit code 0; or what it says instead, and 1.

    Needs no token. With mutual TLS it needs the caller's certificate, as any caller.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from iterpo.clients.channel import connect_at
    from iterpo.config import load

    settings = load(config_path)
    where = address or getattr(settings, service).address
    with connect_at(where, settings, retries=False) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
            status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).lower()
        except grpc.RpcError as error:
            status = f"no answer: {error.code().name.lower()}"
    if as_json:
        print_json({"service": service, "address": where, "status": status})
    else:
        click.echo(status)
    if status != "serving":
        sys.exit(1)
