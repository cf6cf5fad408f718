"""What the run page calls: runs, their rows, versions with lineage, and what an iteration was trained on.

None of it is this service's: it is asked of the learner and of inference, over gRPC, as any client would. When they are
away the page says so, and goes on when they are back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from iterpo import wire
from iterpo.errors import InvalidInput
from iterpo.v1 import learner_pb2 as pb
from iterpo.v1 import policy_pb2
from services.ids import MAX_ID_CHARACTERS
from services.labeling.page.answers import done, reading
from services.labeling.page.doorman import LEADS, Doorman
from services.labeling.page.plain_json import plain
from services.labeling.page.visible import visible

MOST_ROWS = 400
"""Of a run at first sight: a curve is drawn with no more points than a screen has."""
MOST_VERSIONS = 200
CALLS = 4
"""Under way at the same time; further ones wait."""
T = TypeVar("T")


class Learner(Protocol):
    """`iterpo.clients.learner.LearnerClient`."""

    def runs(self) -> list[pb.Run]: ...

    def get(self, run_id: str, after: int = 0, most_rows: int = 0) -> pb.GetRunResponse: ...

    def batch(self, run_id: str, iteration: int = 0) -> tuple[dict[str, Any], list[int]]: ...

    def explain_batch(
        self, run_id: str, iteration: int = 0, method: str = "", settings: Mapping[str, str] | None = None
    ) -> dict[str, Any]: ...

    def methods(self) -> list[pb.AlgorithmInfo]: ...


class Policies(Protocol):
    """`iterpo.clients.inference.PolicyClient`."""

    def listed(self, newest: int, below: int = 0) -> policy_pb2.ListPoliciesResponse: ...


class RunApi:
    def __init__(self, learner: Learner, policies: Policies, doorman: Doorman) -> None:
        self._learner, self._policies, self._doorman = learner, policies, doorman
        # Threads of its own: calls to a learner that hangs must not take those that annotators' tasks are read with.
        self._threads = ThreadPoolExecutor(CALLS, "iterpo-run-page")

    async def _ask(self, call: Callable[..., T], *asked: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *asked)

    def routes(self) -> list[Route]:
        return [
            reading("/api/runs", self.runs),
            reading("/api/run", self.run),
            reading("/api/policies", self.policies),
            reading("/api/methods", self.methods),
            reading("/api/batch", self.batch),
            reading("/api/explain", self.explain),
        ]

    async def runs(self, request: Request) -> JSONResponse:
        self._doorman.session(request, LEADS)
        return done(runs=[_run(run) for run in await self._ask(self._learner.runs)])

    async def run(self, request: Request) -> JSONResponse:
        """`run_id`, and `after`: rows of later iterations alone. The first look at a long run is thinned."""
        self._doorman.session(request, LEADS)
        after = _whole(request, "after")
        most = 0 if after else MOST_ROWS
        found = await self._ask(self._learner.get, _id(request, "run_id"), after, most)
        rows = [wire.row_from_proto(found.run.run_id, row) for row in found.rows]
        return done(run=_run(found.run), rows=plain([asdict(row) for row in rows]))

    async def policies(self, request: Request) -> JSONResponse:
        """The newest, and all that serve or may serve; `total` says how many there are."""
        self._doorman.session(request, LEADS)
        listed = await self._ask(self._policies.listed, MOST_VERSIONS)
        versions = [wire.policy_from_proto(policy) for policy in listed.policies]
        return done(policies=plain([asdict(version) for version in versions]), total=listed.total)

    async def methods(self, request: Request) -> JSONResponse:
        self._doorman.session(request, LEADS)
        methods = await self._ask(self._learner.methods)
        return done(methods=[{"name": m.name, "formula": m.formula} for m in methods])

    async def batch(self, request: Request) -> JSONResponse:
        """`run_id`, and `iteration` (default: the latest that is kept). Texts with nothing hidden in them."""
        self._doorman.session(request, LEADS)
        asked = _id(request, "run_id"), _whole(request, "iteration")
        record, kept = await self._ask(self._learner.batch, *asked)
        for sequence in record["batch"]["sequences"]:
            sequence["tokens"] = [visible(token) for token in sequence.get("tokens") or ()]
        for answer in record["answers"]:
            answer |= {"prompt": visible(answer["prompt"]), "text": visible(answer["text"])}
        return done(record=plain(record), kept=kept)

    async def explain(self, request: Request) -> JSONResponse:
        """`run_id`, `iteration`, `method` (default: the run's own), and any number of `set`: `name=value`."""
        self._doorman.session(request, LEADS)
        settings = dict(_setting(text) for text in request.query_params.getlist("set")[:50])
        method = request.query_params.get("method", "")[:MAX_ID_CHARACTERS]
        asked = _id(request, "run_id"), _whole(request, "iteration"), method, settings
        return done(explanation=await self._ask(self._learner.explain_batch, *asked))


def _run(run: pb.Run) -> Any:
    return plain(
        {
            "run_id": run.run_id,
            "algorithm": run.algorithm,
            "state": pb.RunState.Name(run.state).removeprefix("RUN_STATE_").lower(),
            "status": visible(run.status),
            "iteration": run.iteration,
            "iterations": run.iterations,
            "policy_version": run.policy_version,
            "heldout_before": run.heldout_reward_before,
            "heldout": run.heldout_reward,
        }
    )


def _id(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if not value or len(value) > MAX_ID_CHARACTERS:
        raise InvalidInput(f"{name} is missing or too long.", f"Name it: ?{name}=...", "INVALID_ID")
    return value


def _whole(request: Request, name: str) -> int:
    """0 when it is absent."""
    value = request.query_params.get(name, "0")
    if not value.isascii() or not value.isdecimal() or len(value) > 9:
        raise InvalidInput(f"{name} is {value[:20]!r}, no whole number.", "Use one from 0.", "OUT_OF_RANGE")
    return int(value)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or len(text) > MAX_ID_CHARACTERS:
        raise InvalidInput(f"{text[:40]!r} sets nothing.", "Write set=beta=0.2.", "INVALID_SETTING")
    return name, value
