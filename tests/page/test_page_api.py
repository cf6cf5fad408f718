"""The pages' JSON API, over the real application and a real store, without a network."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from iterpo.errors import InvalidConfig
from iterpo.labeling.crowd import Crowd
from iterpo.labeling.guidelines import Guideline, Guidelines
from iterpo.labeling.leads import LeadDesk
from iterpo.labeling.people import PeopleDesk, PeopleSettings, Receipt
from iterpo.store.database import FeedbackDatabase, open_database
from iterpo.types import FeedbackEvent, FinishReason, Message, Outcome, Prompt, Task
from services.labeling.limits import MAX_RATIONALE_CHARACTERS
from services.labeling.page import sessions
from services.labeling.page.app import page_app
from services.tokens import Tokens
from tests.conftest import Place
from tests.labeling.builders import completion

ANNOTATOR, LEAD, BOUND, LEARNER = "annotator-token-1", "lead-token-123456", "bound-token-12345", "learner-token-123"
TOKENS = Tokens.named({ANNOTATOR: "annotator", LEAD: "lead:lea", BOUND: "annotator:bea", LEARNER: "learner"})
KEY = b"the server's session key"
OURS = {"x-iterpo-page": "1", "content-type": "application/json"}


def task(number: int = 1, **changes: Any) -> Task:
    first = replace(completion(f"left {number}", f"f{number}"), policy_version=3, policy_digest="secret-3")
    second = replace(completion(f"right {number}", f"s{number}"), policy_version=4, finish_reason=FinishReason.LENGTH)
    prompt = Prompt("p1", (Message("system", "Be *kind*."), Message("user", "How?")), reference_answer="secret-answer")
    return replace(Task(f"t{number}", "run", f"g{number}", prompt, first, second, guideline="care"), **changes)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Page:
    """The application and browsers on it."""

    def __init__(self, database: FeedbackDatabase, clock: Clock, tokens: Tokens = TOKENS) -> None:
        self.database = database
        self.clock = clock
        self.receipts: list[tuple[str, Outcome, Receipt]] = []
        guidelines = Guidelines([Guideline("care", "Prefer **care**.", ("kind", "true"))])
        settings = PeopleSettings(lease_seconds=60, undo_seconds=600)
        self.people = PeopleDesk(database, Crowd(), guidelines, settings, random.Random(5))
        self.leads = LeadDesk(database, self.people.crowd)
        self.people.start()
        self.tokens = tokens
        self.app = self.fresh_app()

    def fresh_app(self) -> ASGIApp:
        """As after a restart: nothing remembered."""
        return page_app(self.people, self.leads, self.tokens, KEY, False, lambda *seen: self.receipts.append(seen))

    def add(self, *tasks: Task) -> None:
        for each in tasks:
            self.database.write(lambda tx, each=each: self.people.ask(tx, each)).result()

    def events(self) -> list[FeedbackEvent]:
        return self.database.events("", 0).result()

    def browser(self, app: ASGIApp | None = None) -> Browser:
        transport = httpx.ASGITransport(app or self.app)
        return Browser(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9202"))

    async def signed_in(self, token: str = ANNOTATOR, name: str = "ann") -> Browser:
        browser = self.browser()
        answer = await browser.act("sign-in", token=token, name=name)
        assert answer.status == 200, answer
        return browser


@dataclass
class Answer:
    status: int
    json: Any

    @property
    def reason(self) -> str:
        return str(self.json["reason"])


@dataclass
class Browser:
    http: httpx.AsyncClient

    async def read(self, name: str) -> Answer:
        response = await self.http.get(f"/api/{name}")
        return Answer(response.status_code, response.json())

    async def act(self, call: str, **body: Any) -> Answer:
        response = await self.http.post(f"/api/{call}", content=json.dumps(body), headers=OURS)
        return Answer(response.status_code, response.json())

    async def lease(self) -> Any:
        return (await self.act("next")).json["task"]

    async def label(self, lease_id: str, /, **body: Any) -> Answer:
        return await self.act("label", **({"request_id": "r1", "lease_id": lease_id, "outcome": "first"} | body))


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.FailedSignIns.__init__, "__defaults__", (0.01,))


@pytest.fixture
async def page(place: Place) -> AsyncIterator[Page]:
    clock = Clock()
    database = open_database(place("feedback.db"), clock)
    made = Page(database, clock)
    yield made
    made.people.close()
    database.close()


async def test_a_person_signs_in_labels_and_sees_own_figures(page: Page) -> None:
    page.add(task())
    ann = await page.signed_in()
    shown = await ann.lease()
    answer = await ann.label(shown["lease_id"], strength=2, rationale="because", duration_seconds=7.5)
    assert answer.json["accepted"]
    (label,) = [e.label for e in page.events() if e.label]
    assert (label.annotator, label.strength, label.rationale, label.duration_seconds) == ("ann", 2, "because", 7.5)
    assert label.outcome is (Outcome.SECOND if label.presented_swapped else Outcome.FIRST)
    me = (await ann.read("me")).json
    assert me == {"name": "ann", "role": "annotator", "labels": 1, "today": 1, "median_seconds": 7.5}
    assert [(method, outcome) for method, outcome, _ in page.receipts] == [("page", Outcome.FIRST)]


async def test_a_task_tells_nothing_of_who_wrote_what(page: Page) -> None:
    page.add(task(gold=Outcome.FIRST), task(2))
    ann = await page.signed_in()
    response = await ann.http.post("/api/next", json={}, headers=OURS)
    for secret in ("secret", "policy", '"f1"', '"s1"', '"g1"', '"gold"', "completion", '"run', '"kind":'):
        assert secret not in response.text, secret
    shown = response.json()["task"]
    assert set(shown) == {
        "lease_id", "task_id", "expires_at", "seconds_left", "lease_seconds", "prompt", "answers", "diff", "guideline",
    }  # fmt: skip
    assert shown["prompt"][0]["html"] == '<p dir="auto">Be <em>kind</em>.</p>\n'
    assert shown["guideline"] == {
        "name": "care",
        "version": page.people.guideline("care").version,
        "html": '<p dir="auto">Prefer <strong>care</strong>.</p>\n',
        "aspects": ["kind", "true"],
    }


async def test_answers_come_in_the_presented_order(page: Page) -> None:
    page.add(*(task(number) for number in range(12)))
    ann = await page.signed_in()
    seen = set()
    for number in range(12):
        shown = await ann.lease()
        first, second = shown["answers"]
        swapped = first["text"].startswith("right")
        assert second["text"].startswith("left" if swapped else "right")
        assert (first["truncated"], second["truncated"]) == (swapped, not swapped)
        answer = await ann.label(shown["lease_id"], request_id=f"r{number}", aspects={"kind": "second", "true": "tie"})
        label = next(e.label for e in page.events() if e.event_id == answer.json["event_id"])
        assert label is not None
        assert label.presented_swapped is swapped
        assert label.outcome is (Outcome.SECOND if swapped else Outcome.FIRST)
        assert label.aspects == {"kind": Outcome.FIRST if swapped else Outcome.SECOND, "true": Outcome.TIE}
        seen.add(swapped)
    assert seen == {True, False}


async def test_a_reload_comes_back_to_the_same_task(page: Page) -> None:
    page.add(task(), task(2))
    ann = await page.signed_in()
    first = await ann.lease()
    again = await ann.act("next")
    assert (again.json["task"]["lease_id"], again.json["open_tasks"]) == (first["lease_id"], 2)


async def test_undo_leases_the_task_again_beside_the_one_that_was_held(page: Page) -> None:
    page.add(task(), task(2))
    ann = await page.signed_in()
    first = await ann.lease()
    event_id = (await ann.label(first["lease_id"])).json["event_id"]
    second = await ann.lease()
    undone = await ann.act("undo", event_id=event_id, request_id="u1")
    again = await ann.act("undo", event_id=event_id, request_id="u1")
    assert undone.json["task"]["task_id"] == first["task_id"]
    assert (again.json["duplicate"], again.json["task"]["lease_id"]) == (True, undone.json["task"]["lease_id"])
    assert (await ann.lease())["lease_id"] == second["lease_id"]
    wanted = await ann.act("next", lease_id=undone.json["task"]["lease_id"])
    assert wanted.json["task"]["task_id"] == first["task_id"]


async def test_undo_refuses_what_is_not_ones_own_or_too_old(page: Page) -> None:
    page.add(task())
    ann, bob = await page.signed_in(), await page.signed_in(name="bob")
    event_id = (await ann.label((await ann.lease())["lease_id"])).json["event_id"]
    assert (await bob.act("undo", event_id=event_id, request_id="u1")).reason == "NOT_YOUR_LABEL"
    page.clock.now += 601
    late = await ann.act("undo", event_id=event_id, request_id="u2")
    assert (late.status, late.reason) == (409, "TOO_LATE")
    missing = await ann.act("undo", event_id="nothing", request_id="u3")
    assert (missing.status, missing.reason) == (404, "LABEL_UNKNOWN")


async def test_a_task_given_back_does_not_come_again(page: Page) -> None:
    page.add(task())
    ann = await page.signed_in()
    lease_id = (await ann.lease())["lease_id"]
    assert (await ann.act("release", lease_id=lease_id, reason=" ")).reason == "EMPTY"
    assert (await ann.act("release", lease_id=lease_id, reason="too hard")).status == 200
    assert (await ann.act("release", lease_id=lease_id, reason="too hard")).reason == "LEASE_USED"
    assert (await ann.act("next")).json == {"task": None, "open_tasks": 1}
    assert [e.release.reason for e in page.events() if e.release] == ["too hard"]


async def test_a_lease_is_extended_until_it_has_run_out(page: Page) -> None:
    page.add(task())
    ann = await page.signed_in()
    lease_id = (await ann.lease())["lease_id"]
    page.clock.now += 50
    assert (await ann.act("extend", lease_id=lease_id)).json["seconds_left"] == 60
    page.clock.now += 61
    late = await ann.act("extend", lease_id=lease_id)
    assert (late.status, late.reason) == (409, "LEASE_EXPIRED")


async def test_a_label_after_the_lease_counts_only_while_there_is_room(page: Page) -> None:
    page.add(task(), task(2))
    ann, bob = await page.signed_in(), await page.signed_in(name="bob")
    first = await ann.lease()
    page.clock.now += 61
    assert (await ann.label(first["lease_id"])).json["accepted"]
    second = await ann.lease()
    page.clock.now += 61
    taken = await bob.lease()
    assert taken["task_id"] == second["task_id"]
    refused = (await ann.label(second["lease_id"], request_id="r2")).json
    assert (refused["accepted"], refused["reason"]) == (False, "TASK_COMPLETE")
    assert "others" in refused["explanation"]


async def test_a_foreign_lease_is_refused(page: Page) -> None:
    page.add(task())
    ann, bob = await page.signed_in(), await page.signed_in(name="bob")
    lease_id = (await ann.lease())["lease_id"]
    assert (await bob.label(lease_id)).json["reason"] == "NOT_YOUR_LEASE"
    assert (await bob.act("extend", lease_id=lease_id)).reason == "NOT_YOUR_LEASE"
    assert (await bob.act("release", lease_id=lease_id, reason="x")).reason == "NOT_YOUR_LEASE"
    assert (await bob.label("made-up")).json["reason"] == "LEASE_UNKNOWN"
    assert [e for e in page.events() if e.label or e.release] == []


async def test_a_label_sent_twice_counts_once(page: Page) -> None:
    page.add(task())
    ann = await page.signed_in()
    lease_id = (await ann.lease())["lease_id"]
    first, again = await ann.label(lease_id), await ann.label(lease_id)
    assert (first.json["duplicate"], again.json["duplicate"]) == (False, True)
    assert first.json["event_id"] == again.json["event_id"]
    other = await ann.label(lease_id, outcome="second")
    assert (other.status, other.reason) == (409, "REQUEST_ID_REUSED")
    assert sum(e.label is not None for e in page.events()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"strength": 4}, "OUT_OF_RANGE"),
        ({"strength": -1}, "OUT_OF_RANGE"),
        ({"strength": 1.5}, "OUT_OF_RANGE"),
        ({"strength": "3"}, "OUT_OF_RANGE"),
        ({"strength": True}, "OUT_OF_RANGE"),
        ({"strength": 10**400}, "OUT_OF_RANGE"),
        ({"strength": 2, "outcome": "tie"}, "OUT_OF_RANGE"),
        ({"duration_seconds": -1}, "OUT_OF_RANGE"),
        ({"duration_seconds": 1e9}, "OUT_OF_RANGE"),
        ({"rationale": "x" * (MAX_RATIONALE_CHARACTERS + 1)}, "TEXT_TOO_LONG"),
        ({"rationale": "x" * 300_000}, "BODY_TOO_LARGE"),
        ({"rationale": 7}, "NOT_TEXT"),
        ({"rationale": "\ud800"}, "NOT_TEXT"),
        ({"outcome": "left"}, "UNKNOWN_CHOICE"),
        ({"outcome": None}, "UNKNOWN_CHOICE"),
        ({"outcome": ["first"]}, "UNKNOWN_CHOICE"),
        ({"request_id": ""}, "INVALID_ID"),
        ({"request_id": "x" * 257}, "TEXT_TOO_LONG"),
        ({"lease_id": " "}, "INVALID_ID"),
        ({"aspects": []}, "NOT_AN_OBJECT"),
        ({"aspects": {"kind": "skip"}}, "UNKNOWN_CHOICE"),
        ({"aspects": {str(n): "tie" for n in range(65)}}, "NOT_AN_OBJECT"),
    ],
)
async def test_impossible_labels_are_refused(page: Page, change: dict[str, Any], reason: str) -> None:
    page.add(task())
    ann = await page.signed_in()
    lease_id = (await ann.lease())["lease_id"]
    refused = await ann.label(lease_id, **change)
    assert (refused.status, refused.reason) == (400, reason)
    assert refused.json["fix"]
    assert [e for e in page.events() if e.label] == []


async def test_an_aspect_that_the_guideline_does_not_have_is_refused_in_words(page: Page) -> None:
    page.add(task())
    ann = await page.signed_in()
    refused = (await ann.label((await ann.lease())["lease_id"], aspects={"funny": "first"})).json
    assert (refused["reason"], refused["accepted"]) == ("UNKNOWN_ASPECT", False)
    assert "guideline" in refused["explanation"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a": ' * 20_000])
async def test_what_is_no_object_is_refused(page: Page, content: bytes) -> None:
    ann = await page.signed_in()
    response = await ann.http.post("/api/label", content=content, headers=OURS)
    assert response.status_code == 400


def test_the_session_key_is_made_once_for_all_servers_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "session.key"
    with ThreadPoolExecutor(8) as servers:
        [key] = set(servers.map(lambda _: sessions.session_key(path), range(8)))
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_session_key_that_could_be_guessed_signs_nothing(tmp_path: Path, content: bytes) -> None:
    """A server that died while it wrote its key would otherwise sign with nothing, which everybody knows."""
    (tmp_path / "session.key").write_bytes(content)
    with pytest.raises(InvalidConfig, match="signs the pages' cookies"):
        sessions.session_key(tmp_path / "session.key")


async def test_unknown_tokens_and_roles_without_a_page_are_refused(page: Page) -> None:
    browser = page.browser()
    wrong = await browser.act("sign-in", token="wrong-token-12345", name="ann")
    assert (wrong.status, wrong.reason) == (401, "UNKNOWN_TOKEN")
    none = await browser.act("sign-in", name="ann")
    assert (none.status, none.reason) == (401, "UNKNOWN_TOKEN")
    learner = await browser.act("sign-in", token=LEARNER, name="ann")
    assert (learner.status, learner.reason) == (403, "WRONG_ROLE")
    assert (await browser.read("me")).reason == "NOT_SIGNED_IN"


async def test_failed_sign_ins_wait_and_a_long_line_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = sessions.FailedSignIns(0.0)
    monkeypatch.setattr(failures, "_waiting", sessions.MOST_WAITING)
    with pytest.raises(sessions.ResourceExhausted) as refused:
        await failures.wait()
    assert refused.value.reason == "TOO_MANY_FAILURES"


async def test_a_bound_token_speaks_for_its_person_only(page: Page) -> None:
    assert (await page.browser().act("sign-in", token=BOUND)).json["name"] == "bea"
    other = await page.browser().act("sign-in", token=BOUND, name="ann")
    assert (other.status, other.reason) == (403, "WRONG_NAME")


@pytest.mark.parametrize("name", ["", "  ", "judge/llm", "a\u202eb", "a\nb", "x" * 256 + "y"])
async def test_impossible_names_are_refused(page: Page, name: str) -> None:
    assert (await page.browser().act("sign-in", token=ANNOTATOR, name=name)).status == 400


async def test_annotators_do_not_get_the_leads_calls(page: Page) -> None:
    ann = await page.signed_in()
    for refused in (
        await ann.read("report"),
        await ann.read("annotators"),
        await ann.act("exclude", annotator="bob", reason="x", request_id="r"),
        await ann.act("readmit", annotator="bob", reason="x", request_id="r"),
    ):
        assert (refused.status, refused.reason) == (403, "WRONG_ROLE")


async def test_nothing_is_answered_without_a_session(page: Page) -> None:
    stranger = page.browser()
    for name in ("me", "guideline", "report", "annotators"):
        assert (await stranger.read(name)).status == 401, name
    for name in ("next", "label", "undo", "release", "extend", "exclude", "readmit", "sign-out"):
        assert (await stranger.act(name)).status == 401, name


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        OURS | {"origin": "https://evil.example"},
        OURS | {"origin": "null"},
        OURS | {"origin": "http://127.0.0.1:9999"},
        OURS | {"sec-fetch-site": "cross-site"},
        OURS | {"sec-fetch-site": "same-site"},
        {"x-iterpo-page": "1", "content-type": "text/plain"},
    ],
)
async def test_foreign_pages_change_nothing(page: Page, headers: dict[str, str]) -> None:
    page.add(task())
    ann = await page.signed_in()
    response = await ann.http.post("/api/next", content=b"{}", headers=headers)
    assert response.status_code in (400, 403)
    assert response.json()["reason"] in ("CROSS_SITE", "NOT_JSON")
    ours = OURS | {"origin": "http://127.0.0.1:9202", "sec-fetch-site": "same-origin"}
    assert (await ann.http.post("/api/next", content=b"{}", headers=ours)).status_code == 200


async def test_a_cookie_outlives_a_restart_but_not_twelve_hours_nor_a_sign_out(page: Page) -> None:
    ann, bob = await page.signed_in(), await page.signed_in(name="bob")
    app = page.fresh_app()
    again = page.browser(app)
    again.http.cookies = ann.http.cookies
    assert (await again.read("me")).json["name"] == "ann"
    stolen = httpx.Cookies(again.http.cookies)
    assert (await again.act("sign-out")).status == 200
    thief = page.browser(app)
    thief.http.cookies = stolen
    assert (await thief.read("me")).reason == "SESSION_ENDED"
    later = page.browser(page.fresh_app())
    later.http.cookies = bob.http.cookies
    page.clock.now += 12 * 3600 + 1
    assert (await later.read("me")).reason == "SESSION_ENDED"


async def test_a_cookie_cannot_be_made_up(page: Page) -> None:
    ann = await page.signed_in()
    (cookie,) = ann.http.cookies.jar
    assert cookie.value is not None
    signer, content, signature = cookie.value.split(".")
    lead = await page.signed_in(LEAD, "lea")
    (lead_cookie,) = lead.http.cookies.jar
    assert lead_cookie.value is not None
    forged = [
        f"{lead_cookie.value.split('.')[0]}.{content}.{signature}",
        f"{signer}.{lead_cookie.value.split('.')[1]}.{signature}",
        f"{signer}.{content}.",
        f"{signer}.{content}.{signature[:-1]}",
        "..",
        "",
    ]
    for value in forged:
        browser = page.browser()
        browser.http.cookies.set(cookie.name, value)
        assert (await browser.read("me")).reason == "NOT_SIGNED_IN", value


async def test_cookies_and_headers_are_strict(page: Page) -> None:
    browser = page.browser()
    response = await browser.http.post("/api/sign-in", json={"token": ANNOTATOR, "name": "ann"}, headers=OURS)
    cookie = response.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert "Secure" not in cookie
    assert response.headers["cache-control"] == "no-store"
    secure = page_app(page.people, page.leads, TOKENS, KEY, True)
    response = await page.browser(secure).http.post(
        "/api/sign-in", json={"token": ANNOTATOR, "name": "ann"}, headers=OURS
    )
    assert response.headers["set-cookie"].startswith("__Host-iterpo=")
    assert "Secure" in response.headers["set-cookie"]
    for path in ("/", "/lead", "/static/annotate.js", "/api/me", "/nothing"):
        headers = (await browser.http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


async def test_only_the_pages_files_are_served(page: Page) -> None:
    browser = page.browser()
    assert (await browser.http.get("/static/annotate.js")).headers["content-type"].startswith("text/javascript")
    for path in ("/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/static/app.py", "/app.py"):
        assert (await browser.http.get(path)).status_code == 404, path


async def test_without_tokens_a_name_is_enough_on_loopback_names_only(page: Page) -> None:
    app = page_app(page.people, page.leads, Tokens(), KEY, False)
    browser = page.browser(app)
    assert (await browser.read("sign-in")).json == {"needs_token": False, "signed_in": False}
    assert (await browser.act("sign-in", name="ann")).json == {"name": "ann", "role": "admin"}
    assert (await browser.read("sign-in")).json == {"needs_token": False, "signed_in": True}
    assert (await browser.read("report")).status == 200
    for host, status in (
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("localhost", 200),
        ("[::1]:9202", 200),
    ):
        response = await browser.http.get("/", headers={"host": host})
        assert response.status_code == status, host


async def test_a_lead_takes_somebody_out_and_readmits_him(page: Page) -> None:
    page.add(task(), task(2))
    ann, lead = await page.signed_in(), await page.signed_in(LEAD, "")
    assert (await ann.label((await ann.lease())["lease_id"])).json["accepted"]
    held = await ann.lease()
    assert (await lead.act("exclude", annotator="ann", reason="", request_id="x1")).reason == "EMPTY"
    out = await lead.act("exclude", annotator="ann", reason="guesses", request_id="x1")
    assert out.json == {"state": "excluded", "revised_preferences": 1, "duplicate": False}
    assert (await lead.act("exclude", annotator="ann", reason="guesses", request_id="x1")).json["duplicate"]
    assert (await ann.act("next")).reason == "ANNOTATOR_EXCLUDED"
    assert (await ann.label(held["lease_id"], request_id="r2")).json["reason"] == "ANNOTATOR_EXCLUDED"
    (profile,) = (await lead.read("annotators")).json["annotators"]
    assert (profile["annotator"], profile["state"], profile["weight"]) == ("ann", "excluded", 0.0)
    assert profile["reasons"] == ["guesses"]
    assert (await lead.act("readmit", annotator="ann", reason="talked", request_id="x2")).status == 200
    assert (await ann.act("next")).status == 200
    standings = [e.standing for e in page.events() if e.standing]
    assert [(s.annotator, s.state.value, s.by) for s in standings] == [("ann", "excluded", "lea"), ("ann", "ok", "lea")]


async def test_the_report_is_json_even_when_nothing_is_known(page: Page) -> None:
    lead = await page.signed_in(LEAD, "")
    report = (await lead.read("report")).json
    assert report["agreement"]["value"] is None
    assert report["agreement"]["undefined_because"]
    assert (report["policies"], report["machines"]) == ([], {})
    page.add(*(task(number) for number in range(4)))
    ann = await page.signed_in()
    for number in range(3):
        await ann.label((await ann.lease())["lease_id"], request_id=f"r{number}")
    report = (await lead.read("report?run_id=run")).json
    assert (report["counts"]["complete"], report["counts"]["open"]) == (3, 1)
    assert sum(report["labels_by_outcome"].values()) == 3
    assert report["labels_by_source"] == {"people": 3}
    assert {policy["policy"] for policy in report["policies"]} == {"3", "4"}


async def test_guidelines_are_read_by_name(page: Page) -> None:
    ann = await page.signed_in()
    assert (await ann.read("guideline")).json == {"names": ["care"]}
    assert (await ann.read("guideline?name=care")).json["aspects"] == ["kind", "true"]
    assert (await ann.read("guideline?name=<b>x</b>")).status == 404


async def test_what_nobody_foresaw_is_an_incident_with_an_id(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await page.signed_in()
    monkeypatch.setattr(page.leads, "sitting", lambda _name: 1 / 0)
    answer = await ann.read("me")
    assert (answer.status, answer.reason) == (500, "INTERNAL")
    assert "incident" in answer.json["error"]
