"""`iterpo policies`: what inference has, what serves and where, and the two moves that a person may make by hand."""

from __future__ import annotations

import getpass
import uuid
from pathlib import Path
from typing import Any

import click

from iterpo.cli.options import config_option, json_option, print_json, print_table
from iterpo.types import RUN


@click.group()
def command() -> None:
    """List, show, promote, roll back, retire, merge and evaluate policy versions."""


@command.command("list")
@config_option
@json_option
def list_policies(config_path: Path | None, as_json: bool) -> None:
    """Every version that inference knows, the serving one marked."""

    answer = _everything(config_path)
    if as_json:
        found = {"serving_version": answer.serving_version, "run_heads": dict(answer.run_heads)}
        print_json(found | {"policies": [_plain(p) for p in answer.policies]})
        return
    print_table([_row(p, answer.serving_version) for p in answer.policies])
    for run, version in sorted(answer.run_heads.items()):
        click.echo(f"{RUN}{run} is version {version}.")


@command.command()
@click.argument("version", type=click.IntRange(0))
@config_option
@json_option
def show(version: int, config_path: Path | None, as_json: bool) -> None:
    """One VERSION: its proof, its metrics and the gate's decision."""
    from iterpo.errors import NotFound

    answer = _everything(config_path)
    found = [p for p in answer.policies if p.version == version]
    if not found:
        known = ", ".join(str(p.version) for p in answer.policies)
        raise NotFound(f"Inference has no policy version {version}.", f"It has: {known}.")
    _print_one(found[0], as_json)


@command.command()
@config_option
@json_option
def history(config_path: Path | None, as_json: bool) -> None:
    """Every decision about a version: what became of it, the numbers that it rests on, and why."""

    answer = _everything(config_path)
    decided = [p for p in answer.policies if p.HasField("decision") or p.reason]
    if as_json:
        print_json([_plain(policy) for policy in decided])
    elif not decided:
        click.echo("Nothing has been decided yet. A run's candidates are: iterpo run start")
    else:
        print_table([_decided(policy) for policy in decided], folding="why")


@command.command()
@config_option
@json_option
def replicas(config_path: Path | None, as_json: bool) -> None:
    """The inference services that follow this one, what each has proved, refuses and serves."""

    answer = _everything(config_path)
    rows: list[dict[str, object]] = [
        {
            "replica": replica.name,
            "address": replica.address,
            "connected": replica.connected,
            "serving": replica.serving_version,
            "proved": dict(replica.proved),
            "refused": dict(replica.refused),
        }
        for replica in answer.replicas
    ]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("No replica follows this service. One is another inference service with inference.follow set to")
        click.echo("this one's address.")
    else:
        print_table([_plainly(row) for row in rows])


@command.command()
@click.argument("version", type=click.IntRange(0))
@click.option("--run", default="", help="Serve it to requests for run/NAME alone, and leave what serves.")
@click.option("--reason", default="", help="Why; recorded with the decision.")
@click.option("--by", default=getpass.getuser, help="Who; recorded as well.  [default: your login]")
@config_option
@json_option
def promote(version: int, run: str, reason: str, by: str, config_path: Path | None, as_json: bool) -> None:
    """Make VERSION serve, whatever the gate said; one that has left the engine is loaded and proved first. The decision
    is recorded as taken by hand."""
    from iterpo.v1 import policy_pb2, types_pb2

    known = {p.version: p for p in _everything(config_path).policies}
    if version in known and known[version].state == policy_pb2.POLICY_STATE_RETIRED and version:
        if not as_json:
            click.echo(f"Version {version} is loaded and proved once more ...", err=True)
        _load(config_path, version, known[version].digest)
    reasons = [f"promoted by hand, by {by}", *([reason] if reason else [])]
    request = policy_pb2.PromotePolicyRequest(
        version=version,
        decision=types_pb2.GateDecision(promote=True, reasons=reasons, numbers={"by_hand": 1.0}),
        request_id=uuid.uuid4().hex,
        run=run,
    )
    answer = _ask(config_path, "PromotePolicy", request)
    if run and not as_json:
        click.echo(f"{RUN}{run} is version {version} now.")
    else:
        _print_swap(answer, as_json)


@command.command()
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--run", default="", help="Take its name, run/NAME, away from this run instead.")
@config_option
@json_option
def retire(version: int | None, run: str, config_path: Path | None, as_json: bool) -> None:
    """Take VERSION out of the engine, and its names away. What serves, or what a rollback would return to, stays."""
    from iterpo.v1 import policy_pb2

    if (version is None) == (not run):
        raise click.UsageError("Name a VERSION, or a run with --run.")
    request = policy_pb2.RetirePolicyRequest(version=version or 0, request_id=uuid.uuid4().hex, run=run)
    policy = _ask(config_path, "RetirePolicy", request).policy
    if as_json:
        _print_one(policy, as_json)
    else:
        named = f"{RUN}{run} names nothing any more; " if run else ""
        click.echo(f"{named}version {policy.version} is {_state(policy)}.")


@command.command()
@click.argument("parts", nargs=-1, required=True, metavar="VERSION=WEIGHT...")
@click.option("--rank", type=click.IntRange(1), default=None, help="Cut to it.  [default: inference.max_lora_rank]")
@config_option
@json_option
def merge(parts: tuple[str, ...], rank: int | None, config_path: Path | None, as_json: bool) -> None:
    """Publish the weighted sum of policy versions as a new one, and have inference prove it.

    For example `iterpo policies merge 3=0.7 5=0.3`: a soup of two policies, each trained for one value. It serves
    nobody until it is promoted. Runs where the policies lie (data_dir) and loads the base model.
    """
    from iterpo.config import load
    from iterpo.learner.mixing import publish_merge
    from iterpo.policies.folder import PolicyFolder

    settings = load(config_path)
    weights = dict(_part(text) for text in parts)
    known = {p.version: p for p in _everything(config_path).policies}
    _known_only(known, list(weights))
    if not as_json:
        click.echo("Loading the base model to measure the merge ...", err=True)
    made = publish_merge(
        settings.model.path, settings.data_dir, weights, rank or settings.inference.max_lora_rank, max(known)
    )
    PolicyFolder.of(settings.data_dir, settings.shared_policies).share(made.version, made.digest)
    policy = _load(config_path, made.version, made.digest)
    if as_json:
        print_json({"version": made.version, "digest": made.digest, "rank": made.rank, "cut_error": made.error})
    else:
        cut = f", {100 * made.error:.1f} % of the update cut off" if made.error else ""
        click.echo(f"Version {made.version} (rank {made.rank}{cut}) is {_state(policy)}. Serve it with:")
        click.echo(f"  iterpo policies promote {made.version}")


@command.command()
@click.argument("versions", nargs=-1, required=True, type=click.IntRange(0))
@click.option("--labeler", "labelers", multiple=True, required=True, help="A value's judge; repeat for several values.")
@click.option("--heldout", type=click.Path(path_type=Path), default=None, help="Prompts.  [default: run.heldout]")
@config_option
@json_option
def evaluate(
    versions: tuple[int, ...], labelers: tuple[str, ...], heldout: Path | None, config_path: Path | None, as_json: bool
) -> None:
    """Judge VERSIONS by several labelers on held-out prompts, and mark those that no other one beats (Pareto)."""
    from iterpo.config import load
    from iterpo.policies.soup import pareto

    settings = load(config_path)
    known = {p.version: p for p in _everything(config_path).policies}
    _known_only(known, list(versions))
    points = {}
    for version in dict.fromkeys(versions):
        if version:
            _load(config_path, version, known[version].digest)
        points[str(version)] = _judge(settings, version, labelers, heldout)
        if not as_json:
            click.echo(f"version {version} is judged", err=True)
    best = pareto(points)
    rows: list[dict[str, object]] = [
        {"version": int(name), **dict(zip(labelers, values, strict=True)), "pareto": name in best}
        for name, values in points.items()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table([{k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])


@command.command()
@click.option("--reason", default="by hand", show_default=True, help="Why; recorded.")
@config_option
@json_option
def rollback(reason: str, config_path: Path | None, as_json: bool) -> None:
    """Make the previous version serve again."""
    from iterpo.v1 import policy_pb2

    request = policy_pb2.RollbackPolicyRequest(request_id=uuid.uuid4().hex, reason=reason)
    _print_swap(_ask(config_path, "RollbackPolicy", request), as_json)


def _plainly(row: dict[str, Any]) -> dict[str, object]:
    refused = ", ".join(f"{version}: {reason}" for version, reason in sorted(row["refused"].items()))
    proved = ", ".join(map(str, sorted(row["proved"])))
    return row | {"connected": "yes" if row["connected"] else "no", "proved": proved, "refused": refused}


def _part(text: str) -> tuple[int, float]:
    from iterpo.errors import InvalidInput

    version, _, weight = text.partition("=")
    try:
        return int(version), float(weight)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no VERSION=WEIGHT.", "Write for example 3=0.5.") from error


def _known_only(known: dict[int, Any], versions: list[int]) -> None:
    from iterpo.errors import NotFound

    for version in versions:
        if version not in known:
            listed = ", ".join(map(str, known))
            raise NotFound(f"Inference has no policy version {version}.", f"It has: {listed}.", "POLICY_NOT_FOUND")


def _everything(config_path: Path | None) -> Any:
    """Every version, what serves, and the replicas."""
    from iterpo.clients.channel import connect_service
    from iterpo.clients.inference import PolicyClient
    from iterpo.config import load

    with connect_service(load(config_path), "inference") as channel:
        return PolicyClient(channel).everything()


def _load(config_path: Path | None, version: int, digest: str) -> Any:
    from iterpo.v1 import policy_pb2

    return _ask(config_path, "LoadPolicy", policy_pb2.LoadPolicyRequest(version=version, manifest_digest=digest)).policy


def _judge(settings: Any, version: int, labelers: tuple[str, ...], heldout: Path | None) -> list[float]:
    """Mean reward of a version's greedy held-out answers, one a labeler. Raises InvalidInput when one abstained on
    all."""
    from iterpo import prompts
    from iterpo.clients.channel import connect_service
    from iterpo.clients.inference import InferenceClient
    from iterpo.clients.labeling import LabelingClient
    from iterpo.errors import InvalidInput
    from iterpo.run_data import demo_file
    from iterpo.types import SamplingSettings

    path = heldout or (Path(settings.run.heldout) if settings.run.heldout else demo_file("heldout.jsonl"))
    asked = [e.prompt for e in prompts.read(path)]
    greedy = SamplingSettings(temperature=0.0, max_tokens=settings.run.max_tokens)
    with connect_service(settings, "inference") as inference, connect_service(settings, "labeling") as labeling:
        answers = [g[0] for g in InferenceClient(inference).sample(asked, 1, greedy, str(version))]
        means = []
        for labeler in labelers:
            known = [r for r in LabelingClient(labeling).score(labeler, asked, answers) if r is not None]
            if not known:
                raise InvalidInput(
                    f"Labeler {labeler!r} abstained on every answer.", "Look at its log, or use another."
                )
            means.append(sum(known) / len(known))
    return means


def _ask(config_path: Path | None, method: str, request: Any) -> Any:
    from iterpo.clients.channel import connect_service, translated_errors
    from iterpo.config import load
    from iterpo.v1 import policy_pb2_grpc

    with connect_service(load(config_path), "inference") as channel, translated_errors():
        return getattr(policy_pb2_grpc.PolicyServiceStub(channel), method)(request, timeout=900)


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


def _decided(policy: Any) -> dict[str, object]:
    numbers = dict(policy.decision.numbers)

    def number(name: str, form: str) -> str:
        return format(numbers[name], form) if name in numbers else ""

    return {
        "version": policy.version,
        "state": _state(policy),
        "parent": policy.parent,
        "run": policy.run_id,
        "held-out": number("heldout_candidate", ".3f"),
        "gain": number("heldout_gain", "+.3f"),
        "wins": number("win_rate", ".2f"),
        "KL": number("kl", ".3f"),
        "length": number("length_ratio", ".2f"),
        "norm": number("update_relative_norm", ".4f"),
        "why": " ".join([*policy.decision.reasons, policy.reason]).strip() or "every rule was kept",
    }


def _plain(policy: Any) -> dict[str, Any]:
    """As JSON would have it, numbers as numbers (protobuf's own JSON makes strings of 64-bit integers)."""
    from google.protobuf.json_format import MessageToDict

    plain: dict[str, Any] = MessageToDict(policy, preserving_proto_field_name=True)
    return plain | {"version": policy.version, "parent": policy.parent, "state": _state(policy)}


def _state(policy: Any) -> str:
    from iterpo.v1 import policy_pb2

    return policy_pb2.PolicyState.Name(policy.state).removeprefix("POLICY_STATE_").lower()
