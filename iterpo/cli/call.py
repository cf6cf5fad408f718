"""`iterpo call`: any RPC of a running service, by reflection, JSON in and out."""

from __future__ import annotations

from pathlib import Path

import click

from iterpo.cli.options import config_option, json_option, print_json


@click.command()
@click.argument("method", required=False)
@click.argument("request_json", required=False, default="{}")
@click.option("--address", default="", help="host:port.  [default: the configured service that has the method]")
@click.option("--list", "list_methods", is_flag=True, help="List the methods of the services that run.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, help="Seconds.")
@config_option
@json_option
def command(
    method: str | None,
    request_json: str,
    address: str,
    list_methods: bool,
    timeout: float,  # a click option, not an async function
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Call METHOD (`PolicyService/ListPolicies`, package optional) with REQUEST_JSON, by default `{}`.

    Prints the response as JSON, a stream as one line each. Fields have the names of the .proto files.
    """
    from iterpo.clients.reflection import RemoteServices
    from iterpo.config import load

    if not (method or list_methods):
        raise click.UsageError("Name a METHOD, or use --list.")
    with RemoteServices.of(load(config_path), address) as services:
        if list_methods:
            _print_methods(services.methods(), as_json)
        elif method:
            for response in services.call(method, request_json, timeout):
                print_json(response)


def _print_methods(methods: list[str], as_json: bool) -> None:
    if as_json:
        print_json(methods)
    else:
        for name in methods:
            click.echo(name)
