"""Who may call what: every RPC scanned by strangers, wrong roles and ended tokens; rates, audit log, certificates."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf import message_factory
from prometheus_client import CollectorRegistry

from iterpo.cli import tokens as tokens_command
from iterpo.clients.channel import connect, translated_errors
from iterpo.errors import InvalidConfig, NotFound, ResourceExhausted, Unauthenticated, Unavailable
from iterpo.tokens import ROLES, Grant, digest_of, grant_of, line_of, new_token, read_tokens
from iterpo.v1 import inference_pb2, labeling_pb2, learner_pb2, policy_pb2
from services.audit import READING
from services.auth import ROLE_METHODS
from services.host import Host, ServerSettings
from services.rates import Rates
from services.tokens import Tokens
from tests.platform.serving import SERVICE, running

SERVICES = {
    service.full_name: service
    for module in (inference_pb2, policy_pb2, labeling_pb2, learner_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}
RPCS = [(name, method.name) for name, service in SERVICES.items() for method in service.methods]
EVERY = {role: f"token-of-a-{role:-<12}" for role in ROLES}
ENDED = "token-that-has-ended"
MADE_UP = "a-token-that-somebody-made-up"


def tokens(clock=time.time) -> Tokens:
    grants = [grant_of(token, role) for role, token in EVERY.items()]
    return Tokens([*filter(None, grants), Grant(digest_of(ENDED), "admin", until=date(2020, 1, 31))], clock=clock)


@asynccontextmanager
async def everything(settings: ServerSettings) -> AsyncIterator[str]:
    """A host with every service of the contract; behind the guards no method does anything."""
    host = Host("inference", settings, CollectorRegistry())
    for name, service in SERVICES.items():
        handlers = {method.name: _nothing(method) for method in service.methods}
        host.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    address = f"127.0.0.1:{host.bind()}"
    task = asyncio.create_task(host.run(list(SERVICES)))
    await asyncio.sleep(0.1)
    try:
        yield address
    finally:
        host.stop()
        await asyncio.wait_for(task, 20)


def _nothing(method: Any) -> Any:
    answer, ask = (message_factory.GetMessageClass(kind) for kind in (method.output_type, method.input_type))

    async def one(_request: Any, _context: Any) -> Any:
        return answer()

    async def many(_request: Any, _context: Any) -> AsyncIterator[Any]:
        yield answer()

    shape = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    return make(
        many if method.server_streaming else one,
        request_deserializer=ask.FromString,
        response_serializer=answer.SerializeToString,
    )


async def called(channel: grpc.aio.Channel, service: str, name: str, token: str) -> str:
    """The status of a call with nothing in it."""
    method = SERVICES[service].methods_by_name[name]
    shape = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
    call = getattr(channel, shape)(f"/{service}/{name}")
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    request = iter([b""]) if method.client_streaming else b""
    answer = call(request, timeout=10, metadata=metadata)
    try:
        if method.server_streaming:
            async for _ in answer:
                pass
        else:
            await answer
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_every_rpc_refuses_strangers_wrong_roles_and_ended_tokens_with_the_right_status() -> None:
    async with everything(ServerSettings(tokens=tokens())) as address, grpc.aio.insecure_channel(address) as channel:
        found: dict[tuple[str, str, str], str] = {}
        for service, name in RPCS:
            for caller, token in {"nobody": "", "made up": MADE_UP, "ended": ENDED, **EVERY}.items():
                found[service, name, caller] = await called(channel, service, name, token)
    wrong = []
    for (service, name, caller), status in found.items():
        short = f"{service.rpartition('.')[2]}/{name}"
        may = caller in ROLES and (short in ROLE_METHODS[caller] or "*" in ROLE_METHODS[caller])
        wanted = "OK" if may else "PERMISSION_DENIED" if caller in ROLES else "UNAUTHENTICATED"
        if status != wanted:
            wrong.append((short, caller, status, wanted))
    assert wrong == []
    assert len(found) == len(RPCS) * (3 + len(ROLES)) >= 400


def test_roles_name_rpcs_that_exist_and_every_role_is_in_the_table() -> None:
    there = {f"{service.rpartition('.')[2]}/{name}" for service, name in RPCS}
    named = {method for methods in ROLE_METHODS.values() for method in methods} - {"*"}
    assert named <= there
    assert there >= READING
    assert tuple(ROLE_METHODS) == ROLES


def test_nobody_but_an_admin_may_do_what_no_role_was_given() -> None:
    assert [role for role, methods in ROLE_METHODS.items() if "*" in methods] == ["admin"]


# The tokens file.


def test_a_token_is_kept_as_its_digest_and_shown_once(tmp_path: Path) -> None:
    (tmp_path / "iterpo.toml").write_text('[auth]\ntokens_file = "tokens"\n')
    run = CliRunner()
    config = ["--config", str(tmp_path / "iterpo.toml"), "--json"]
    made = json.loads(
        run.invoke(tokens_command.command, ["new", "annotator", "--person", "ann", "--days", "9", *config]).output
    )
    text = (tmp_path / "tokens").read_text()
    assert made["token"] not in text
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o600
    [grant] = read_tokens(tmp_path / "tokens")
    assert (grant.digest, grant.role, grant.person, grant.token) == (digest_of(made["token"]), "annotator", "ann", "")
    assert str(grant.until) == made["until"]
    known = Tokens(file=tmp_path / "tokens")
    assert known.grant(made["token"]) == grant
    with pytest.raises(Unauthenticated):
        known.grant(made["token"] + "x")
    assert json.loads(run.invoke(tokens_command.command, ["list", *config]).output)[0]["key"] == made["key"]
    run.invoke(tokens_command.command, ["new", "admin", *config])
    assert run.invoke(tokens_command.command, ["revoke", made["key"], *config]).exit_code == 0
    assert [grant.role for grant in read_tokens(tmp_path / "tokens")] == ["admin"]
    assert isinstance(run.invoke(tokens_command.command, ["revoke", "0000", *config]).exception, NotFound)


def test_taking_a_token_back_leaves_those_that_begin_as_it_does_and_what_people_wrote(tmp_path: Path) -> None:
    short, long = "sixteen-letters-", "sixteen-letters-and-more"
    (tmp_path / "iterpo.toml").write_text('[auth]\ntokens_file = "tokens"\n')
    (tmp_path / "tokens").write_text(f"# {short} was lost\n{short} = client\n{long} = lead\n")
    config = ["--config", str(tmp_path / "iterpo.toml")]
    taken = CliRunner().invoke(tokens_command.command, ["revoke", digest_of(short)[:16], *config])
    assert taken.exit_code == 0
    assert (tmp_path / "tokens").read_text() == f"# {short} was lost\n{long} = lead\n"


def test_the_digest_itself_is_no_token(tmp_path: Path) -> None:
    token = new_token()
    (tmp_path / "tokens").write_text(line_of(Grant(digest_of(token), "admin")))
    for stolen in (digest_of(token), f"sha256:{digest_of(token)}"):
        with pytest.raises(Unauthenticated):
            Tokens(file=tmp_path / "tokens").grant(stolen)


@pytest.mark.parametrize(
    "line",
    [
        "sha256:abc = admin",
        f"sha256:{'A' * 64} = admin",
        f"{MADE_UP} = admin until soon",
        f"{MADE_UP} = admin until 2026-13-01",
    ],
)
def test_a_line_that_cannot_work_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens").write_text(line)
    with pytest.raises(InvalidConfig, match="line 1"):
        read_tokens(tmp_path / "tokens")


def test_a_tokens_last_day_is_whole() -> None:
    grant = Grant(digest_of(MADE_UP), "client", until=date(2026, 1, 31))
    midnight = 1769904000.0  # 2026-02-01 00:00 UTC
    assert Tokens([grant], clock=lambda: midnight - 1).grant(MADE_UP) == grant
    with pytest.raises(Unauthenticated) as ended:
        Tokens([grant], clock=lambda: midnight + 1).grant(MADE_UP)
    assert ended.value.reason == "TOKEN_ENDED"


async def test_tokens_are_rotated_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.tokens.LOOK_SECONDS", 0.0)
    old, fresh, file = new_token(), new_token(), tmp_path / "tokens"
    file.write_text(line_of(Grant(digest_of(old), "client")))
    async with running(ServerSettings(tokens=Tokens(file=file))) as server:
        assert await asyncio.to_thread(model, server.address, old) == "small"
        file.write_text(line_of(Grant(digest_of(fresh), "client")))
        assert await asyncio.to_thread(model, server.address, fresh) == "small"
        with pytest.raises(Unauthenticated):
            await asyncio.to_thread(model, server.address, old)
        file.write_text("half a li")  # an editor's accident locks nobody out
        assert await asyncio.to_thread(model, server.address, fresh) == "small"


def model(address: str, token: str, **more: Any) -> str:
    with connect(address, token, retries=False, **more) as channel, translated_errors():
        call = channel.unary_unary(
            f"/{SERVICE}/GetModel",
            request_serializer=inference_pb2.GetModelRequest.SerializeToString,
            response_deserializer=inference_pb2.GetModelResponse.FromString,
        )
        return str(call(inference_pb2.GetModelRequest(), timeout=10).name)


# Rates.


def test_a_bucket_holds_six_seconds_of_calls_and_fills_up_again() -> None:
    now = [0.0]
    rates = Rates(2.0, lambda: now[0])
    for _ in range(12):
        rates.take("a")
    with pytest.raises(ResourceExhausted) as refused:
        rates.take("a")
    assert refused.value.reason == "CALLS_TOO_OFTEN"
    rates.take("b")
    now[0] = 0.5
    rates.take("a")
    with pytest.raises(ResourceExhausted):
        rates.take("a")


async def test_one_caller_who_calls_too_often_holds_up_nobody_else() -> None:
    async with running(ServerSettings(tokens=tokens(), calls_per_second=0.5)) as server:
        for _ in range(3):
            assert await asyncio.to_thread(model, server.address, EVERY["client"]) == "small"
        with pytest.raises(ResourceExhausted):
            await asyncio.to_thread(model, server.address, EVERY["client"])
        assert await asyncio.to_thread(model, server.address, EVERY["learner"]) == "small"


# The audit log.


async def test_every_change_is_recorded_with_who_and_what_became_of_it_and_no_text(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    settings = ServerSettings(tokens=tokens(), audit=path)
    async with everything(settings) as address, grpc.aio.insecure_channel(address) as channel:
        for service, name in RPCS:
            await called(channel, service, name, EVERY["admin"])
        await called(channel, "iterpo.v1.PolicyService", "RollbackPolicy", EVERY["client"])
        await called(channel, "iterpo.v1.PolicyService", "RollbackPolicy", MADE_UP)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changing = {f"{service.rpartition('.')[2]}/{name}" for service, name in RPCS} - READING
    assert {line["what"] for line in lines if line.get("role") == "admin" and line["outcome"] == "OK"} == changing
    *_, by_client, by_stranger = lines
    assert (by_client["role"], by_client["outcome"]) == ("client", "WRONG_ROLE")
    assert ("role" not in by_stranger, by_stranger["outcome"]) == (True, "UNKNOWN_TOKEN")
    assert not [token for token in (*EVERY.values(), MADE_UP) if token in path.read_text()]


async def test_the_audit_log_may_be_moved_away_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with everything(ServerSettings(audit=path)) as address, grpc.aio.insecure_channel(address) as channel:
        await called(channel, "iterpo.v1.LearnerService", "StopRun", "")
        path.rename(tmp_path / "audit.jsonl.1")
        await called(channel, "iterpo.v1.LearnerService", "PauseRun", "")
    assert [json.loads(p.read_text())["what"] for p in (tmp_path / "audit.jsonl.1", path)] == [
        "LearnerService/StopRun",
        "LearnerService/PauseRun",
    ]


# Certificates.


def certificate(folder: Path, name: str, issuer: str = "") -> tuple[Path, Path]:
    """A PEM certificate and its key; without an issuer an authority of its own."""
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", pem]
    if issuer:
        command += ["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return pem, key


async def test_with_mutual_tls_a_caller_without_a_certificate_of_ours_is_not_even_heard(tmp_path: Path) -> None:
    authority, _ = certificate(tmp_path, "authority")
    pem, key = certificate(tmp_path, "server", "authority")
    ours = certificate(tmp_path, "client", "authority")
    certificate(tmp_path, "others")
    theirs = certificate(tmp_path, "stranger", "others")
    settings = ServerSettings(tls_certificate=pem, tls_key=key, tls_client_ca=authority, tokens=tokens())
    async with running(settings) as server:
        address = server.address
        assert await asyncio.to_thread(model, address, EVERY["client"], tls_ca=authority, certificate=ours) == "small"
        for stranger in (None, theirs):
            with pytest.raises(Unavailable):
                await asyncio.to_thread(model, address, EVERY["client"], tls_ca=authority, certificate=stranger)
        with pytest.raises(Unauthenticated):  # a certificate alone is no token
            await asyncio.to_thread(model, address, "", tls_ca=authority, certificate=ours)


async def test_a_certificate_is_replaced_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections get the new one, gRPC's and HTTP's; half a file leaves the one before."""
    monkeypatch.setattr("services.certificates.LOOK_SECONDS", 0.05)
    first, _ = certificate(tmp_path, "first")
    second, _ = certificate(tmp_path, "second")
    shown = {kind: tmp_path / f"shown.{kind}" for kind in ("pem", "key")}

    def show(name: str) -> None:
        for kind, path in shown.items():
            path.write_bytes((tmp_path / f"{name}.{kind}").read_bytes())

    def scrape(authority: Path, port: int | None) -> int:
        context = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", timeout=10, context=context) as page:
            return int(page.status)

    show("first")
    settings = ServerSettings(tls_certificate=shown["pem"], tls_key=shown["key"], tokens=tokens())
    async with running(settings) as server:
        ask = partial(asyncio.to_thread, model, server.address, EVERY["client"])
        assert await ask(tls_ca=first) == "small"
        assert await asyncio.to_thread(scrape, first, server.host.metrics_port) == 200
        show("second")
        assert await ask(tls_ca=second) == "small"
        with pytest.raises(Unavailable):
            await ask(tls_ca=first)
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(scrape, second, server.host.metrics_port) == 200
        shown["pem"].write_text("-----BEGIN CERTIF")
        assert await ask(tls_ca=second) == "small"
