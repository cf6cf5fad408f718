"""Every HTTP route, asked for by a stranger, with a forged cookie, by an ended session and by every role."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from iterpo.errors import Unavailable
from iterpo.labeling.desk import LabelingDesk
from iterpo.store.database import open_database
from iterpo.tokens import ROLES
from services.auth import ROLE_METHODS, TokenGuard
from services.labeling.page.app import page_app
from tests.inference.test_openai_door import made  # noqa: F401  # a fixture
from tests.platform.test_security import ENDED, EVERY, MADE_UP, tokens

OPEN = {"/", "/lead", "/runs", "/tokens", "/favicon.ico", "/api/sign-in"}
"""Beside the static files: pages without anything in them, and the door itself."""
LEADS_ONLY = {"report", "tally", "annotators", "exclude", "readmit"}
LEADS_ONLY |= {"runs", "run", "policies", "methods", "batch", "explain"}
DOOR = {  # of the OpenAI-compatible door -> the RPC whose roles it follows
    "/v1/chat/completions": "InferenceService/Generate",
    "/v1/completions": "InferenceService/Generate",
    "/v1/models": "PolicyService/ListPolicies",
    "/v1/models/v0": "PolicyService/ListPolicies",
    "/v1/feedback": "LabelingService/SubmitFeedback",
}
HEADERS = {"x-iterpo-page": "1", "content-type": "application/json"}


class Away:
    """A learner and a registry that nobody reaches: whoever is let through sees that, and nothing else."""

    def __getattr__(self, _name: str) -> Any:
        def call(*_asked: Any, **_settings: Any) -> Any:
            raise Unavailable("Nobody is there.", "Start it.")

        return call


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[tuple[Starlette, Any]]:
    """The page's application and the clock that its sessions are judged by."""
    now = [time.time()]
    database = open_database(tmp_path / "feedback.db", clock=lambda: now[0])
    desk = LabelingDesk(database, {})
    desk.start()
    yield page_app(desk.people, desk.leads, tokens(lambda: now[0]), b"key", False, learner=Away(), policies=Away()), now
    desk.close()
    database.close()


def browser(app: Starlette, cookie: str = "") -> httpx.AsyncClient:
    cookies = {"iterpo": cookie} if cookie else {}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", cookies=cookies, headers=HEADERS)


async def cookie_of(app: Starlette, token: str) -> tuple[int, str]:
    async with browser(app) as http:
        answer = await http.post("/api/sign-in", json={"token": token, "name": "ann"})
        return answer.status_code, answer.cookies.get("iterpo", "")


def asked(app: Starlette) -> list[tuple[str, str]]:
    """(method, path) of everything that the application answers but signing in; signing out, which ends it, last."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    found = [(method, route.path) for route in routes for method in sorted(route.methods or ())]
    return sorted({*found} - {("POST", "/api/sign-in")}, key=lambda each: (each[1] == "/api/sign-out", each))


async def statuses(app: Starlette, cookie: str) -> dict[tuple[str, str], int]:
    found = {}
    for method, path in asked(app):
        async with browser(app, cookie) as http:  # one each: an answer may take the cookie away
            found[method, path] = (await http.request(method, path, json={} if method == "POST" else None)).status_code
    return found


async def test_who_is_not_signed_in_gets_the_empty_pages_and_nothing_of_what_is_in_them(page) -> None:
    app, now = page
    status, theirs = await cookie_of(app, EVERY["lead"])
    assert status == 200
    key, content, _signature = theirs.split(".")
    for cookie in ("", "nonsense", f"{key}.{content}.{'0' * 64}"):
        for (method, path), status in (await statuses(app, cookie)).items():
            free = path in OPEN or path.startswith("/static/")
            assert (status == 401) is not free, (method, path, status)
            assert status < 500
    now[0] += 13 * 3600
    ended = await statuses(app, theirs)
    assert {path for (_method, path), status in ended.items() if status == 401} == {
        path for _method, path in asked(app) if path not in OPEN and not path.startswith("/static/")
    }


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_gets_what_is_its_own(page, role: str) -> None:
    app, _now = page
    status, cookie = await cookie_of(app, EVERY[role])
    if role not in ("annotator", "lead", "admin"):
        assert (status, cookie) == (403, "")
        return
    found = await statuses(app, cookie)
    refused = {path.removeprefix("/api/") for (_method, path), status in found.items() if status == 403}
    assert refused == (LEADS_ONLY if role == "annotator" else set())
    assert 401 not in found.values()


@pytest.mark.parametrize("token", ["", MADE_UP, ENDED])
async def test_nobody_signs_in_without_a_token_that_holds(page, token: str) -> None:
    app, _now = page
    assert await cookie_of(app, token) == (401, "")


async def test_the_openai_door_follows_the_rpcs_roles(made) -> None:  # noqa: F811
    door = await made()
    door.door._guard = TokenGuard(tokens())
    app = door.door.app()
    assert {path for _method, path in asked(app)} == {path.replace("/v0", "/{model:path}") for path in DOOR}
    for path, rpc in DOOR.items():
        method = "GET" if "models" in path else "POST"
        for caller, token in {"nobody": "", "made up": MADE_UP, "ended": ENDED, **EVERY}.items():
            headers = {"authorization": f"Bearer {token}"} if token else {}
            async with browser(app) as http:
                status = (await http.request(method, path, json={}, headers=headers)).status_code
            may = caller in ROLES and bool({rpc, "*"} & set(ROLE_METHODS[caller]))
            wanted = None if may else 403 if caller in ROLES else 401
            assert status == wanted if wanted else status not in (401, 403), (path, caller, status)
