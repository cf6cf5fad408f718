"""What every service gets from its host: roles, rich errors, metrics, health, drain. Over real sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from iterpo.clients.channel import connect, translated_errors
from iterpo.config import Settings
from iterpo.errors import (
    InvalidConfig,
    IterpoError,
    PermissionDenied,
    PolicyRejected,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from iterpo.tokens import ROLES
from iterpo.v1 import inference_pb2, inference_pb2_grpc
from services.auth import ROLE_METHODS, check_role
from services.calls import Method
from services.host import Host, ServerSettings, run_service
from services.tokens import Tokens
from tests.platform.serving import NOT_SERVING, SERVICE, SERVING, Running, SmallInference, running

TOKENS = Tokens.named({"token-of-an-app-1": "client", "token-of-a-person": "annotator", "token-of-a-boss-1": "admin"})


def get_model(address: str, token: str | None = None, timeout: float = 10.0) -> str:
    with connect(address, token, retries=False) as channel, translated_errors():
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        return str(stub.GetModel(inference_pb2.GetModelRequest(), timeout=timeout).name)


def score(address: str, policy: str, token: str | None = None) -> str:
    with connect(address, token, retries=False) as channel, translated_errors():
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        return str(stub.Score(inference_pb2.ScoreRequest(policy=policy), timeout=10).policy_digest)


def health(address: str, service: str = "") -> int:
    with connect(address, retries=False) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


def metrics(server: Running) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.host.metrics_port}/metrics", timeout=10) as page:
        return str(page.read().decode())


async def refused(call: Any, *arguments: Any) -> IterpoError:
    with pytest.raises(IterpoError) as caught:
        await asyncio.to_thread(call, *arguments)
    return caught.value


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def test_without_tokens_a_loopback_server_serves_everybody() -> None:
    async with running() as server:
        assert await asyncio.to_thread(get_model, server.address) == "small"


async def test_a_call_without_a_token_is_unauthenticated_and_told_how_to_send_one() -> None:
    async with running(ServerSettings(tokens=TOKENS)) as server:
        error = await refused(get_model, server.address)
        assert isinstance(error, Unauthenticated)
        assert error.reason == "MISSING_TOKEN"
        assert "authorization: Bearer" in error.fix


async def test_an_unknown_token_is_unauthenticated() -> None:
    async with running(ServerSettings(tokens=TOKENS)) as server:
        assert (await refused(get_model, server.address, "guessed")).reason == "UNKNOWN_TOKEN"


async def test_a_role_may_call_its_own_methods_and_is_told_who_may_call_the_others() -> None:
    async with running(ServerSettings(tokens=TOKENS)) as server:
        assert await asyncio.to_thread(get_model, server.address, "token-of-an-app-1") == "small"
        error = await refused(score, server.address, "x", "token-of-an-app-1")
        assert isinstance(error, PermissionDenied)
        assert error.reason == "WRONG_ROLE"
        assert "learner or admin" in error.fix
        assert (await refused(get_model, server.address, "token-of-a-person")).reason == "WRONG_ROLE"
        assert await asyncio.to_thread(score, server.address, "x", "token-of-a-boss-1") == "x"


async def test_health_needs_no_token() -> None:
    async with running(ServerSettings(tokens=TOKENS)) as server:
        await until(lambda: health(server.address, SERVICE) == SERVING)
        assert await asyncio.to_thread(health, server.address, SERVICE) == SERVING


def test_an_annotator_may_not_promote_and_only_an_admin_may_roll_back() -> None:
    with pytest.raises(PermissionDenied):
        check_role("annotator", Method("iterpo.v1.PolicyService", "PromotePolicy", "unary"))
    with pytest.raises(PermissionDenied):
        check_role("learner", Method("iterpo.v1.PolicyService", "RollbackPolicy", "unary"))
    check_role("learner", Method("iterpo.v1.PolicyService", "PromotePolicy", "unary"))
    check_role("admin", Method("iterpo.v1.PolicyService", "RollbackPolicy", "unary"))


def test_the_roles_of_the_host_are_those_of_the_configuration() -> None:
    assert tuple(ROLE_METHODS) == ROLES


async def test_an_iterpo_error_arrives_as_the_same_class_with_message_fix_and_reason() -> None:
    async with running() as server:
        server.servicer.error = PolicyRejected("The probe disagrees.", "Publish it again.", "PROBE_DISAGREES")
        error = await refused(get_model, server.address)
        assert type(error) is PolicyRejected
        assert (error.message, error.fix, error.reason) == (
            "The probe disagrees.",
            "Publish it again.",
            "PROBE_DISAGREES",
        )


async def test_a_very_long_message_still_arrives() -> None:
    async with running() as server:
        server.servicer.error = WrongState("long " * 10_000, "short")
        error = await refused(get_model, server.address)
        assert isinstance(error, WrongState)
        assert 900 < len(error.message) <= 1000


async def test_an_unexpected_exception_shows_an_incident_id_and_its_traceback_stays_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as server:
        server.servicer.error = KeyError("a secret of the server")
        error = await refused(get_model, server.address)
        assert error.reason == "INTERNAL"
        assert "secret" not in str(error)
        incident = error.message.partition("incident ")[2][:12]
        assert f"incident {incident}" in caplog.text
        assert "a secret of the server" in caplog.text


async def test_an_oversized_message_is_refused_with_the_limit() -> None:
    async with running() as server:
        error = await refused(score, server.address, "x" * (17 * 1024 * 1024))
        assert isinstance(error, ResourceExhausted)
        assert error.reason == "MESSAGE_TOO_LARGE"
        assert "16 MiB" in error.fix


async def test_a_peer_that_ignores_the_limit_is_refused_by_the_server_and_others_are_still_served() -> None:
    def send_anyway(address: str) -> None:
        with grpc.insecure_channel(address) as channel, translated_errors():
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            stub.Score(inference_pb2.ScoreRequest(policy="x" * (17 * 1024 * 1024)), timeout=10)

    async with running() as server:
        assert (await refused(send_anyway, server.address)).reason == "MESSAGE_TOO_LARGE"
        assert await asyncio.to_thread(get_model, server.address) == "small"


async def scraped(server: Any, line: str) -> str:
    """The metrics' page, once it has the line: a refusal reaches its caller a moment before it is counted."""
    page = ""
    for _ in range(50):
        page = await asyncio.to_thread(metrics, server)
        if line in page:
            break
        await asyncio.sleep(0.1)
    return page


async def test_calls_are_counted_by_method_and_code_under_the_names_that_dashboards_know() -> None:
    labels = f'grpc_method="GetModel",grpc_service="{SERVICE}",grpc_type="unary"'
    async with running() as server:
        await asyncio.to_thread(get_model, server.address)
        server.servicer.error = WrongState("no")
        await refused(get_model, server.address)
        page = await scraped(server, f'grpc_server_handled_total{{grpc_code="FAILED_PRECONDITION",{labels}}} 1.0')
    assert f"grpc_server_started_total{{{labels}}} 2.0" in page
    assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 1.0' in page
    assert f'grpc_server_handled_total{{grpc_code="FAILED_PRECONDITION",{labels}}} 1.0' in page
    assert f"grpc_server_handling_seconds_count{{{labels}}} 2.0" in page
    assert "process_resident_memory_bytes" in page


async def test_a_stream_cut_while_it_sends_is_cleaned_up_before_its_call_is_over() -> None:
    """Afterwards the call is freed: whoever asked it for its peer, as the audit log did, ended the process."""
    events: list[str] = []

    class Talkative(SmallInference):
        async def Generate(self, request: Any, context: Any) -> AsyncIterator[inference_pb2.GenerateResponse]:
            context.add_done_callback(lambda _: events.append("over"))
            try:
                while True:
                    yield inference_pb2.GenerateResponse(text_delta="x" * 65536)
            finally:
                context.peer()
                events.append("cleaned up")

    async with running(servicer=Talkative()) as server, grpc.aio.insecure_channel(server.address) as channel:
        stream = inference_pb2_grpc.InferenceServiceStub(channel).Generate(inference_pb2.GenerateRequest())
        await stream.read()
        await asyncio.sleep(0.3)  # nothing is read: the handler waits inside a write
        stream.cancel()
        await until(lambda: "over" in events)
        assert await asyncio.to_thread(get_model, server.address) == "small", "everybody else is served on"
    assert events == ["cleaned up", "over"]


async def test_a_cancelled_stream_runs_the_handlers_cleanup_at_once_and_counts_as_cancelled() -> None:
    def read_one(address: str) -> str:
        with connect(address) as channel:
            stream = inference_pb2_grpc.InferenceServiceStub(channel).Generate(inference_pb2.GenerateRequest())
            first = next(stream).text_delta
            stream.cancel()
            return str(first)

    async with running() as server:
        assert await asyncio.to_thread(read_one, server.address) == "0"
        await asyncio.wait_for(server.servicer.cleaned_up.wait(), 5)
        await until(lambda: 'grpc_code="CANCELLED",grpc_method="Generate"' in metrics(server))


async def test_until_it_is_prepared_a_host_says_not_serving_and_refuses_calls_as_unavailable() -> None:
    prepared = asyncio.Event()

    async def prepare() -> None:
        await prepared.wait()

    async with running(prepare=prepare) as server:
        await until(lambda: health(server.address) == NOT_SERVING)
        error = await refused(get_model, server.address)
        assert isinstance(error, Unavailable)
        assert error.reason == "STARTING"
        prepared.set()
        await until(lambda: health(server.address) == SERVING)
        assert await asyncio.to_thread(get_model, server.address) == "small"


async def test_stopping_drains_an_open_stream_to_its_end() -> None:
    def read_all(address: str) -> str:
        with connect(address) as channel, translated_errors():
            stream = inference_pb2_grpc.InferenceServiceStub(channel).Generate(inference_pb2.GenerateRequest())
            return "".join(response.text_delta for response in stream)

    async with running() as server:
        reading = asyncio.create_task(asyncio.to_thread(read_all, server.address))
        await until(lambda: 'started_total{grpc_method="Generate"' in metrics(server))
        server.host.stop()
        assert await asyncio.wait_for(reading, 10) == "012."
        assert server.drained == ["drained"]


async def test_a_taken_port_is_a_clear_error() -> None:
    async with running() as server:
        second = Host("labeling", ServerSettings(address=server.address), CollectorRegistry())
        with pytest.raises(WrongState) as caught:
            second.bind()
        assert caught.value.reason == "PORT_IN_USE"
        assert "labeling.address" in caught.value.fix


async def test_a_taken_metrics_port_is_a_clear_error() -> None:
    async with running() as server:
        taken = f"127.0.0.1:{server.host.metrics_port}"
        second = Host("labeling", ServerSettings(metrics_address=taken), CollectorRegistry())
        with pytest.raises(WrongState, match="taken") as caught:
            second.bind()
        assert "labeling.metrics_address" in caught.value.fix


@pytest.mark.parametrize(
    "settings",
    [
        ServerSettings(address="0.0.0.0:0"),
        ServerSettings(address="0.0.0.0:0", tokens=TOKENS),
        ServerSettings(address="[::]:0", tls_certificate=Path("c"), tls_key=Path("k")),
        ServerSettings(metrics_address="0.0.0.0:0"),
    ],
)
async def test_an_address_that_others_reach_needs_tls_and_tokens(settings: ServerSettings) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Host("inference", settings, CollectorRegistry())
    assert caught.value.reason == "INSECURE_ADDRESS"
    assert "127.0.0.1" in caught.value.fix


def test_a_role_that_does_not_exist_is_refused_at_the_start() -> None:
    with pytest.raises(InvalidConfig, match="emperor"):
        Tokens.named({"token-of-an-emperor": "emperor"})


PROGRAM = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from services.host import Host, ServerSettings, run_service

async def serve():
    host = Host("labeling", ServerSettings(address=sys.argv[1]), CollectorRegistry())
    print(host.bind(), flush=True)
    async def drain():
        print("drained", flush=True)
    await host.run(["iterpo.v1.LabelingService"], drain=drain)

sys.exit(run_service(serve))
"""


def test_sigterm_drains_and_exits_with_zero(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), "127.0.0.1:0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root)}) as process:
        assert process.stdout is not None
        address = f"127.0.0.1:{process.stdout.readline().strip()}"
        with connect(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
            assert health(address) == SERVING
            process.terminate()
            assert process.wait(timeout=20) == 0
        assert process.stdout.read() == "drained\n"


def test_sigterm_ends_a_service_that_is_still_busy_preparing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    busy = "async def prepare():\n        print('preparing', flush=True)\n        time.sleep(600)\n    await host.run("
    text = PROGRAM.replace("import asyncio", "import time, asyncio").replace("await host.run(", busy)
    program.write_text(text.replace("drain=drain", "drain=drain, prepare=prepare"))
    command = [sys.executable, str(program), "127.0.0.1:0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root)}) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)][1] == "preparing\n"
        process.terminate()
        assert process.wait(timeout=20) == 0


async def test_a_service_that_cannot_start_exits_with_two_and_says_why(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    async with running() as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            server.address,
            stderr=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert b"PORT_IN_USE" in stderr
    assert b"Traceback" not in stderr


def test_server_settings_come_from_the_configuration() -> None:
    settings = ServerSettings.of(Settings(), "labeling")
    assert (settings.address, settings.metrics_address) == ("127.0.0.1:50052", "127.0.0.1:9102")
    assert settings.tokens.open_to_all


def test_a_data_directory_that_is_refused_ends_the_service_with_two_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        (tmp_path / "file" / "policies").mkdir(parents=True)

    assert run_service(main) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: Not a directory: {tmp_path}/file/policies.")
    assert "data_dir" in shown
