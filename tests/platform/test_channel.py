"""Channels: tokens, TLS, and statuses that carry no ErrorInfo."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from iterpo.clients.channel import STREAMS, connect, connect_service, is_loopback, translate, translated_errors
from iterpo.config import load
from iterpo.errors import InvalidConfig, InvalidInput, IterpoError, ResourceExhausted, Unavailable
from iterpo.v1 import inference_pb2, inference_pb2_grpc, labeling_pb2, learner_pb2, learner_pb2_grpc, policy_pb2
from services.host import ServerSettings
from services.tokens import Tokens
from tests.platform.serving import running

TOKEN = "a-token-of-thirty-two-characters"


class FailedCall(grpc.RpcError):
    """What gRPC raises, with a plain status: no details in the trailers."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable, "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.CANCELLED, Unavailable, "CANCELLED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted, "MESSAGE_TOO_LARGE"),
        (grpc.StatusCode.UNIMPLEMENTED, InvalidInput, "UNKNOWN_METHOD"),
        (grpc.StatusCode.DATA_LOSS, IterpoError, "DATA_LOSS"),
    ],
)
def test_a_plain_status_becomes_the_error_of_its_code(
    code: grpc.StatusCode, kind: type[IterpoError], reason: str
) -> None:
    error = translate(FailedCall(code, "because"))
    assert type(error) is kind
    assert error.reason == reason
    assert error.message == f"{code.name}: because."


def test_a_server_that_is_away_is_unavailable_with_the_fix() -> None:
    with connect("127.0.0.1:1", retries=False) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(Unavailable) as caught, translated_errors():
            stub.GetModel(inference_pb2.GetModelRequest(), timeout=5)
    assert "iterpo up" in caught.value.fix


async def test_a_method_of_another_service_is_an_unknown_method() -> None:
    def ask(address: str) -> None:
        with connect(address) as channel, translated_errors():
            learner_pb2_grpc.LearnerServiceStub(channel).ListRuns(learner_pb2.ListRunsRequest(), timeout=5)

    async with running() as server:
        with pytest.raises(InvalidInput) as caught:
            await asyncio.to_thread(ask, server.address)
    assert caught.value.reason == "UNKNOWN_METHOD"


def test_other_exceptions_are_left_alone() -> None:
    with pytest.raises(KeyError), translated_errors():
        raise KeyError("x")


def test_streams_are_those_of_the_contract() -> None:
    """None may be retried by gRPC; a new one must be named."""
    services = [
        descriptor
        for module in (inference_pb2, labeling_pb2, learner_pb2, policy_pb2)
        for descriptor in module.DESCRIPTOR.services_by_name.values()
    ]
    streams = {s.name: tuple(m.name for m in s.methods if m.server_streaming) for s in services}
    assert {name: set(methods) for name, methods in streams.items()} == {n: set(m) for n, m in STREAMS.items()}


async def test_a_service_that_comes_up_late_is_found_by_the_retries() -> None:
    started = asyncio.Event()

    def ask(address: str) -> str:
        with connect(address) as channel, translated_errors():
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            return str(stub.GetModel(inference_pb2.GetModelRequest(), timeout=20).name)

    async with running(prepare=_wait(started)) as server:
        answer = asyncio.create_task(asyncio.to_thread(ask, server.address))
        await asyncio.sleep(0.3)
        assert not answer.done()
        started.set()
        assert await asyncio.wait_for(answer, 20) == "small"


def _wait(event: asyncio.Event) -> Any:
    async def wait() -> None:
        await event.wait()

    return wait


def test_a_token_never_crosses_a_network_in_the_clear() -> None:
    with pytest.raises(InvalidConfig) as caught:
        connect("192.0.2.1:50051", TOKEN)
    assert "auth.tls_ca" in caught.value.fix


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/s"])
def test_loopback_addresses_are_known(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", ":1"])
def test_other_addresses_are_not_loopback(address: str) -> None:
    assert not is_loopback(address)


async def test_tls_and_a_token_reach_a_server_that_others_could_reach(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    (tmp_path / "tokens").write_text(f"{TOKEN} = client\n")
    settings = ServerSettings(
        "0.0.0.0:0", tls_certificate=certificate, tls_key=key, tokens=Tokens.named({TOKEN: "client"})
    )

    def ask(port: str) -> str:
        config = tmp_path / "iterpo.toml"
        config.write_text(
            f'[inference]\naddress = "127.0.0.1:{port}"\n[auth]\ntokens_file = "tokens"\ntls_ca = "{certificate}"\n'
        )
        with connect_service(load(config), "inference", "client") as channel, translated_errors():
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            return str(stub.GetModel(inference_pb2.GetModelRequest(), timeout=10).name)

    async with running(settings) as server:
        port = server.address.rpartition(":")[2]
        assert await asyncio.to_thread(ask, port) == "small"


def _self_signed(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "iterpo test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return paths
