"""Only the page's own scripts may call its API, and a browser is told to allow the page nothing else.

A foreign site can make a browser send a simple POST here, cookie or not. So what changes something must come with a
header that no foreign site can add without asking first (which is never answered), as JSON, and, where the browser
names an origin, from this host. Without tokens the page also answers only to loopback names: otherwise a foreign site
could point its own name at 127.0.0.1 (DNS rebinding) and be the same origin.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iterpo.errors import InvalidInput, IterpoError, PermissionDenied
from services.http_server import is_loopback_name
from services.labeling.page.answers import error_response

HEADER = "x-iterpo-page"
READING = ("GET", "HEAD")

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class SameOrigin:
    """Wraps the whole page."""

    def __init__(self, app: ASGIApp, loopback_names_only: bool) -> None:
        self._app = app
        self._loopback_names_only = loopback_names_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers["cache-control"] = "no-store" if scope["path"].startswith("/api/") else "no-cache"
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        answer = self._app if refusal is None else error_response(refusal)
        await answer(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> IterpoError | None:
        host = headers.get("host", "")
        if self._loopback_names_only and not is_loopback_name(host):
            return PermissionDenied(
                f"This page does not answer to the name {host[:100]!r}.", "Open it as http://127.0.0.1.", "FOREIGN_HOST"
            )
        if method in READING:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if HEADER not in headers or foreign or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PermissionDenied(
                "Only the page itself may do this.",
                f"Send the header `{HEADER}: 1` from the same origin.",
                "CROSS_SITE",
            )
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return InvalidInput("The body is no JSON.", "Send content-type application/json.", "NOT_JSON")
        return None
