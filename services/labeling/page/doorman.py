"""Signing in and out, and who asks: every other call starts at `Doorman.session`."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from iterpo.errors import PermissionDenied, Unauthenticated
from services.labeling.page.answers import acting, done, reading
from services.labeling.page.body import Body
from services.labeling.page.sessions import LIFETIME_SECONDS, ROLES, FailedSignIns, Session, Sessions

LEADS = ("lead", "admin")
MAX_TOKEN_CHARACTERS = 4096


class Doorman:
    def __init__(self, sessions: Sessions, secure_cookies: bool) -> None:
        self._sessions = sessions
        self._secure = secure_cookies
        # A browser takes a `__Host-` cookie from this very host over TLS only: no neighbouring subdomain can set one.
        self._cookie = "__Host-iterpo" if secure_cookies else "iterpo"
        self._failures = FailedSignIns()

    def routes(self) -> list[Route]:
        return [
            reading("/api/sign-in", self.ask),
            acting("/api/sign-in", self.sign_in),
            acting("/api/sign-out", self.sign_out),
        ]

    def session(self, request: Request, roles: Sequence[str] = ROLES) -> Session:
        """Raises Unauthenticated, or PermissionDenied for another role."""
        session = self._sessions.read(request.cookies.get(self._cookie, ""))
        request.state.session = session  # for the audit log
        if session.role not in roles:
            raise PermissionDenied(
                f"The role `{session.role}` may not do this.", f"Sign in with a token of {' or '.join(roles)}."
            )
        return session

    async def ask(self, request: Request) -> JSONResponse:
        """What the sign-in form has to ask for, and whether it is needed at all."""
        try:
            self.session(request)
        except (Unauthenticated, PermissionDenied):
            return done(needs_token=self._sessions.needs_token, signed_in=False)
        return done(needs_token=self._sessions.needs_token, signed_in=True)

    async def sign_in(self, request: Request) -> JSONResponse:
        body = await Body.of(request)
        try:
            session, cookie = self._sessions.sign_in(body.text("token", MAX_TOKEN_CHARACTERS), body.text("name"))
        except (Unauthenticated, PermissionDenied):
            await self._failures.wait()
            raise
        response = done(name=session.name, role=session.role)
        response.set_cookie(
            self._cookie,
            cookie,
            max_age=int(LIFETIME_SECONDS),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )
        return response

    async def sign_out(self, request: Request) -> JSONResponse:
        self._sessions.sign_out(self.session(request))
        response = done()
        response.delete_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="strict")
        return response
