"""What the run page calls: who may, what is asked of whom, and numbers that JSON can hold."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from iterpo import wire
from iterpo.errors import NotFound, Unavailable
from iterpo.types import GateDecision, PolicyState, PolicyVersion
from iterpo.v1 import learner_pb2 as pb
from iterpo.v1 import policy_pb2
from services.labeling.page.app import page_app
from services.labeling.page.plain_json import plain
from services.tokens import Tokens
from tests.page.run_process import HOSTILE, record

TOKENS = Tokens.named({"annotator-token-1": "annotator", "lead-token-123456": "lead:lea"})
PAGES = [
    "/api/runs",
    "/api/run?run_id=r",
    "/api/policies",
    "/api/methods",
    "/api/batch?run_id=r",
    "/api/explain?run_id=r",
]


class Learner:
    """One run, with a held-out reward that nobody knows yet."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.away = False

    def runs(self) -> list[pb.Run]:
        if self.away:
            raise Unavailable("The learner is away.", "Wait.")
        return [pb.Run(run_id="r", algorithm="grpo", state="RUN_STATE_RUNNING", heldout_reward=math.nan)]

    def get(self, run_id: str, after: int = 0, most_rows: int = 0) -> pb.GetRunResponse:
        self.asked.append((run_id, after, most_rows))
        row = pb.IterationRow(iteration=after + 1, train_reward=math.nan, metrics={"ratio": math.inf, "tokens": 3.0})
        return pb.GetRunResponse(run=self.runs()[0], rows=[row])

    def batch(self, run_id: str, iteration: int = 0) -> tuple[dict[str, Any], list[int]]:
        if iteration == 9:
            raise NotFound("The batch of iteration 9 is not kept.", "", "BATCH_NOT_KEPT")
        return {"iteration": 2, **record(1, 2, 3, HOSTILE)}, [1, 2]

    def explain_batch(self, *asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        return {"method": "grpo"}

    def methods(self) -> list[pb.AlgorithmInfo]:
        return [pb.AlgorithmInfo(name="grpo", formula="c = A")]


VERSION = PolicyVersion(3, "d", PolicyState.SERVING, 2, "r", "grpo", decision=GateDecision(True, (), {"kl": math.nan}))
LISTED = policy_pb2.ListPoliciesResponse(policies=[wire.policy_to_proto(VERSION)], total=7)


@pytest.fixture
def learner() -> Learner:
    return Learner()


@pytest.fixture
def page(learner: Learner) -> Iterator[httpx.AsyncClient]:
    desk = SimpleNamespace(database=SimpleNamespace(clock=lambda: 1_000_000.0))
    policies = SimpleNamespace(listed=lambda _newest: LISTED)
    app = page_app(desk, desk, TOKENS, b"key", False, learner=learner, policies=policies)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def sign_in(page: httpx.AsyncClient, token: str) -> None:
    sent = {"x-iterpo-page": "1", "content-type": "application/json"}
    answer = await page.post("/api/sign-in", json={"token": token, "name": "lea"}, headers=sent)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", PAGES)
async def test_only_leads_may_look_at_runs(page, path: str) -> None:
    assert (await page.get(path)).status_code == 401
    await sign_in(page, "annotator-token-1")
    assert (await page.get(path)).status_code == 403
    page.cookies.clear()
    await sign_in(page, "lead-token-123456")
    assert (await page.get(path)).status_code == 200


async def test_the_first_look_is_thinned_and_later_ones_ask_for_new_rows_alone(page, learner) -> None:
    await sign_in(page, "lead-token-123456")
    await page.get("/api/run?run_id=r")
    found = (await page.get("/api/run?run_id=r&after=7")).json()
    assert learner.asked == [("r", 0, 400), ("r", 7, 0)]
    [row] = found["rows"]
    assert (row["iteration"], row["train_reward"], row["metrics"]) == (8, None, {"ratio": None, "tokens": 3.0})
    assert found["run"]["heldout"] is None


async def test_versions_have_lineage_and_decisions(page) -> None:
    await sign_in(page, "lead-token-123456")
    found = (await page.get("/api/policies")).json()
    [policy] = found["policies"]
    assert found["total"] == 7
    assert (policy["version"], policy["parent"], policy["run_id"], policy["state"]) == (3, 2, "r", "serving")
    assert policy["decision"] == {"promote": True, "reasons": [], "numbers": {"kl": None}}


async def test_texts_of_a_batch_hide_nothing(page) -> None:
    await sign_in(page, "lead-token-123456")
    found = (await page.get("/api/batch?run_id=r&iteration=2")).json()
    assert found["kept"] == [1, 2]
    token, prompt = found["record"]["batch"]["sequences"][0]["tokens"][0], found["record"]["answers"][0]["prompt"]
    assert "⟨U+202E⟩" in token
    assert "⟨U+200B⟩" in prompt


async def test_a_method_and_its_parameters_go_to_the_learner(page, learner) -> None:
    await sign_in(page, "lead-token-123456")
    await page.get("/api/explain?run_id=r&iteration=2&method=dpo&set=beta=0.2&set=normalizer=per_token")
    assert learner.asked == [("r", 2, "dpo", {"beta": "0.2", "normalizer": "per_token"})]


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/api/run", 400, "INVALID_ID"),
        ("/api/run?run_id=r&after=-1", 400, "OUT_OF_RANGE"),
        ("/api/batch?run_id=r&iteration=two", 400, "OUT_OF_RANGE"),
        ("/api/explain?run_id=r&set=beta", 400, "INVALID_SETTING"),
        ("/api/batch?run_id=r&iteration=9", 404, "BATCH_NOT_KEPT"),
    ],
)
async def test_what_cannot_be_is_said(page, path: str, status: int, reason: str) -> None:
    await sign_in(page, "lead-token-123456")
    answer = await page.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


async def test_a_learner_that_is_away_is_said_and_no_crash(page, learner) -> None:
    learner.away = True
    await sign_in(page, "lead-token-123456")
    answer = await page.get("/api/runs")
    assert (answer.status_code, answer.json()["error"]) == (503, "The learner is away.")


def test_numbers_that_json_cannot_hold_are_null() -> None:
    assert plain({"a": [math.nan, 1.5, -math.inf], "b": (True, "NaN", None)}) == {
        "a": [None, 1.5, None],
        "b": [True, "NaN", None],
    }


async def test_a_learner_that_hangs_holds_up_nobody_elses_threads(page, learner) -> None:
    """Annotators' tasks are read in the loop's own threads."""
    released = threading.Event()
    learner.runs = lambda: released.wait(10) and []
    await sign_in(page, "lead-token-123456")
    looking = [asyncio.create_task(page.get("/api/runs")) for _ in range(64)]
    try:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "a task") == "a task"
    finally:
        released.set()
    assert {answer.status_code for answer in await asyncio.gather(*looking)} == {200}
