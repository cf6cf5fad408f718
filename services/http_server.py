"""`HttpServer`: uvicorn as a guest in the loop that gRPC runs in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator, Mapping
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from iterpo.clients.channel import is_loopback
from iterpo.config import Settings
from iterpo.errors import InvalidConfig, WrongState
from services.certificates import keep_fresh

GRACE_SECONDS = 2
"""How long answers may take to go out after `stop`."""
MOST_CONNECTIONS = 512
"""Beyond them a client gets 503, and tries again."""


STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
"""IterpoError.code -> HTTP status; any other is 500. A client may send again what got 429 or 5xx."""


def is_loopback_name(host: str) -> bool:
    """Of a Host header. Whoever asks for no tokens answers to no other name: a foreign site could point its own at
    127.0.0.1 (DNS rebinding)."""
    return is_loopback(host if ":" in host.rpartition("]")[2] else f"{host}:0")


def check_address(setting: str, address: str, settings: Settings) -> None:
    """Raises InvalidConfig (INSECURE_ADDRESS) when it would be open to others without TLS and tokens."""
    if address and not is_loopback(address) and not (settings.auth.tls_certificate and settings.grants()):
        raise InvalidConfig(
            f"{setting} is {address}, which other machines can reach, and TLS or tokens are missing.",
            f"Bind {setting} to 127.0.0.1, or set auth.tokens_file, auth.tls_certificate and auth.tls_key.",
            "INSECURE_ADDRESS",
        )


class HttpServer:
    """Bind, start, stop; once. Made anywhere, started in the running loop."""

    def __init__(
        self, app: ASGIApp, setting: str, address: str, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        """`setting`: the key of iterpo.toml that holds the address, for complaints."""
        self._setting, self._address = setting, address
        self._certificate, self._key = certificate, key
        self._fresh: asyncio.Task[None] | None = None
        self._config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._socket: socket.socket | None = None
        self._server: _Guest | None = None
        self._serving: asyncio.Task[None] | None = None

    def bind(self) -> int:
        """Take the port and return it. Raises WrongState (PORT_IN_USE)."""
        host, _, port = self._address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named, because asyncio sends small answers at once (TCP_NODELAY) on sockets that say that they are TCP's:
        # without it, each answer waits 40 ms for the acknowledgement of its own head.
        taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((host, int(port)))
            # Listening at once: two sockets with SO_REUSEADDR may be bound to one port until one of them listens.
            taken.listen(self._config.backlog)
        except OSError as error:
            taken.close()
            raise WrongState(
                f"{self._setting} cannot be {self._address}: the port is taken or the address is not this machine's.",
                f"Stop the other process, or set {self._setting} in iterpo.toml.",
                "PORT_IN_USE",
            ) from error
        self._socket = taken
        bound: int = taken.getsockname()[1]
        return bound

    async def start(self) -> None:
        """Serve from now on; returns once requests are answered. Raises InvalidConfig for an unusable certificate."""
        assert self._socket is not None, "bind first"
        try:
            self._config.load()
        except OSError as error:  # ssl.SSLError is one
            raise InvalidConfig(
                f"The certificate cannot be used on {self._setting}: {error}.",
                "Set auth.tls_certificate and auth.tls_key to a PEM certificate and its key.",
            ) from error
        if isinstance(self._config.ssl, ssl.SSLContext) and self._certificate and self._key:
            self._fresh = asyncio.create_task(keep_fresh(self._config.ssl, self._certificate, self._key))
        self._server = _Guest(self._config)
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise RuntimeError("uvicorn ended before it started")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Let answers go out, then close. Safe to call twice, and before `start`."""
        if self._fresh is not None:
            self._fresh.cancel()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        elif self._socket is not None:
            self._socket.close()
        self._server = self._serving = self._socket = None


class _Guest(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """The host's signal handlers stay: it stops this server as a part of its drain."""
        yield
