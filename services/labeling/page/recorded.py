"""The pages' part of the audit log: whatever may change something, who asked for it, and the answer's status."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.audit import Audit
from services.auth import Identity
from services.labeling.page.same_origin import READING


class Recorded:
    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app, self._audit = app, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            session = scope.get("state", {}).get("session")
            who = Identity(session.role, session.name, session.session_id[:8]) if session else None
            seconds = round(time.monotonic() - began, 3)
            self._audit.record(who, f"page {scope['path']}", str(status or "CANCELLED"), seconds=seconds)
