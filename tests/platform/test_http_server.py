"""HttpServer beside whatever else runs in the loop: its port, TLS, and an end that leaves the loop as it was."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from iterpo.errors import InvalidConfig, WrongState
from services.http_server import HttpServer


async def hello(request: Request) -> PlainTextResponse:
    await asyncio.sleep(float(request.query_params.get("seconds", 0)))
    return PlainTextResponse(request.url.scheme)


APP = Starlette(routes=[Route("/", hello)])


async def test_it_serves_until_it_is_stopped_and_leaves_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), asyncio.get_event_loop_policy()
    server = HttpServer(APP, "labeling.page_address", "127.0.0.1:0")
    port = server.bind()
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/")).text == "http"
        assert before == (
            signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGINT),
            asyncio.get_event_loop_policy(),
        )
        under_way = asyncio.create_task(http.get("/?seconds=0.3"))
        await asyncio.sleep(0.1)
        await server.stop()
        assert (await under_way).text == "http"
        with pytest.raises(httpx.ConnectError):
            await http.get("/")
    await server.stop()
    again = HttpServer(APP, "labeling.page_address", f"127.0.0.1:{port}")
    assert again.bind() == port
    await again.stop()


async def test_a_taken_port_names_the_key_to_change() -> None:
    first = HttpServer(APP, "labeling.page_address", "127.0.0.1:0")
    port = first.bind()
    with pytest.raises(WrongState, match=r"labeling\.page_address") as refused:
        HttpServer(APP, "labeling.page_address", f"127.0.0.1:{port}").bind()
    assert refused.value.reason == "PORT_IN_USE"
    await first.stop()


async def test_an_answer_that_hangs_does_not_hold_up_the_end() -> None:
    server = HttpServer(APP, "labeling.page_address", "127.0.0.1:0")
    port = server.bind()
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        hanging = asyncio.create_task(http.get("/?seconds=60"))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(6):
            await server.stop()
        (answer,) = await asyncio.gather(hanging, return_exceptions=True)
    cut_off = isinstance(answer, httpx.HTTPError) or answer.status_code == 500
    assert cut_off, "it was ended, and not waited for"


@pytest.fixture
def self_signed(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=iterpo"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return certificate, key


async def test_with_a_certificate_it_speaks_tls_only(self_signed: tuple[Path, Path]) -> None:
    certificate, key = self_signed
    server = HttpServer(APP, "labeling.page_address", "127.0.0.1:0", certificate, key)
    port = server.bind()
    await server.start()
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with httpx.AsyncClient(verify=trusting) as http:
        assert (await http.get(f"https://127.0.0.1:{port}/")).text == "https"
        with pytest.raises(httpx.TransportError):
            await http.get(f"http://127.0.0.1:{port}/")
    await server.stop()


async def test_an_unusable_certificate_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    server = HttpServer(APP, "labeling.page_address", "127.0.0.1:0", tmp_path / "cert.pem", tmp_path / "missing.pem")
    server.bind()
    with pytest.raises(InvalidConfig, match=r"auth\.tls_certificate"):
        await server.start()
    await server.stop()
