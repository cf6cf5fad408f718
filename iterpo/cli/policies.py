"""`iterpo policies`: what inference has, what serves, and the two moves that a person may make by hand."""

from __future__ import annotations

import getpass
import uuid
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table


@click.group()
def command() -> None:
    """List, show, promote and roll back policy versions."""


@command.command("list")
@config_option
@json_option
def list_policies(config_path: Path | None, as_json: bool) -> None:
    """Every version that inference knows, the serving one marked."""
    from iterpo.v1 import policy_pb2

    answer = _ask(config_path, "ListPolicies", policy_pb2.ListPoliciesRequest())
    if as_json:
        print_json({"serving_version": answer.serving_version, "policies": [_plain(p) for p in answer.policies]})
        return
    print_table([_row(p, answer.serving_version) for p in answer.policies])


@command.command()
@click.argument("version", type=click.IntRange(0))
@config_option
@json_option
def show(version: int, config_path: Path | None, as_json: bool) -> None:
    """One VERSION: its proof, its metrics and the gate's decision."""
    from iterpo.errors import NotFound
    from iterpo.v1 import policy_pb2

    answer = _ask(config_path, "ListPolicies", policy_pb2.ListPoliciesRequest())
    found = [p for p in answer.policies if p.version == version]
    if not found:
        known = ", ".join(str(p.version) for p in answer.policies)
        raise NotFound(f"Inference has no policy version {version}.", f"It has: {known}.")
    _print_one(found[0], as_json)


@command.command()
@click.argument("version", type=click.IntRange(0))
@click.option("--reason", default="", help="Why; recorded with the decision.")
@click.option("--by", default=getpass.getuser, help="Who; recorded as well.  [default: your login]")
@config_option
@json_option
def promote(version: int, reason: str, by: str, config_path: Path | None, as_json: bool) -> None:
    """Make a proved VERSION serve, whatever the gate said. The decision is recorded as taken by hand."""
    from iterpo.v1 import policy_pb2, types_pb2

    reasons = [f"promoted by hand, by {by}", *([reason] if reason else [])]
    request = policy_pb2.PromotePolicyRequest(
        version=version,
        decision=types_pb2.GateDecision(promote=True, reasons=reasons, numbers={"by_hand": 1.0}),
        request_id=uuid.uuid4().hex,
    )
    answer = _ask(config_path, "PromotePolicy", request)
    _print_swap(answer, as_json)


@command.command()
@click.option("--reason", default="rolled back by hand", show_default=True, help="Why; recorded.")
@config_option
@json_option
def rollback(reason: str, config_path: Path | None, as_json: bool) -> None:
    """Make the previous version serve again."""
    from iterpo.v1 import policy_pb2

    request = policy_pb2.RollbackPolicyRequest(request_id=uuid.uuid4().hex, reason=reason)
    _print_swap(_ask(config_path, "RollbackPolicy", request), as_json)


def _ask(config_path: Path | None, method: str, request: Any) -> Any:
    from iterpo.clients.channel import connect_service, translated_errors
    from iterpo.config import load
    from iterpo.v1 import policy_pb2_grpc

    with connect_service(load(config_path), "inference") as channel, translated_errors():
        return getattr(policy_pb2_grpc.PolicyServiceStub(channel), method)(request, timeout=120)


def _print_swap(answer: Any, as_json: bool) -> None:
    if as_json:
        print_json({"policy": _plain(answer.policy), "swap_ms": answer.swap_seconds * 1000})
    else:
        click.echo(f"Version {answer.policy.version} serves; the swap took {answer.swap_seconds * 1000:.0f} ms.")


def _print_one(policy: Any, as_json: bool) -> None:
    if as_json:
        print_json(_plain(policy))
        return
    import json

    click.echo(json.dumps(_plain(policy), indent=2))


def _row(policy: Any, serving_version: int) -> dict[str, object]:
    return {
        "": "*" if policy.version == serving_version else "",
        "version": policy.version,
        "state": _state(policy),
        "parent": policy.parent,
        "run": policy.run_id,
        "method": policy.method,
        "proved": "yes" if policy.proof.proved else policy.reason,
        "in_flight": policy.in_flight_requests,
        "digest": policy.digest[:12],
    }


def _plain(policy: Any) -> dict[str, Any]:
    """As JSON would have it, numbers as numbers (protobuf's own JSON makes strings of 64-bit integers)."""
    from google.protobuf.json_format import MessageToDict

    plain: dict[str, Any] = MessageToDict(policy, preserving_proto_field_name=True)
    return plain | {"version": policy.version, "parent": policy.parent, "state": _state(policy)}


def _state(policy: Any) -> str:
    from iterpo.v1 import policy_pb2

    return policy_pb2.PolicyState.Name(policy.state).removeprefix("POLICY_STATE_").lower()
