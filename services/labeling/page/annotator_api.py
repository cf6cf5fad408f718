"""What the annotators' page calls: validate, one library call, JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from iterpo.errors import InvalidInput, NotFound, WrongState
from iterpo.labeling.leads import LeadDesk
from iterpo.labeling.people import PeopleDesk, Receipt
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Held
from iterpo.types import Outcome
from services.labeling.limits import MAX_LEASE_SECONDS, MAX_RATIONALE_CHARACTERS
from services.labeling.page.answers import acting, done, reading
from services.labeling.page.body import Body
from services.labeling.page.doorman import Doorman
from services.labeling.page.shown_task import guideline_json, task_json

OnReceipt = Callable[[str, Outcome, Receipt], None]
"""(what was called, the presented outcome, what became of the label): LabelingMetrics.on_receipt."""

METHOD = "page"
OUTCOMES = tuple(outcome.value for outcome in Outcome)
WINNERS = (Outcome.FIRST, Outcome.SECOND)
ASPECT_OUTCOMES = (Outcome.FIRST.value, Outcome.SECOND.value, Outcome.TIE.value)
MAX_REASON_CHARACTERS = 1_000

WORDS: Mapping[str, str] = {
    "LEASE_UNKNOWN": "The server does not know this task any more.",
    "NOT_YOUR_LEASE": "This task was given to somebody else, not to you.",
    "RELEASED": "You gave this task back before.",
    "ALREADY_LABELLED": "You labelled this task before, perhaps in another window.",
    "TASK_COMPLETE": "Your time for this task had run out, and others have completed it meanwhile.",
    "UNKNOWN_ASPECT": "The guideline has changed: an aspect that you rated is no part of it any more.",
    "ANNOTATOR_EXCLUDED": "You were taken out and may not label at the moment. Ask your lead.",
    "LEASE_USED": "You labelled this task or gave it back before.",
    "LEASE_EXPIRED": "Your time for this task has run out.",
}
"""Why the store refuses something, for people."""


class AnnotatorApi:
    def __init__(self, people: PeopleDesk, leads: LeadDesk, doorman: Doorman, on_receipt: OnReceipt) -> None:
        self._people = people
        self._leads = leads
        self._doorman = doorman
        self._on_receipt = on_receipt

    def routes(self) -> list[Route]:
        return [
            reading("/api/me", self.me),
            acting("/api/next", self.next),
            acting("/api/label", self.label),
            acting("/api/undo", self.undo),
            acting("/api/release", self.release),
            acting("/api/extend", self.extend),
            reading("/api/guideline", self.guideline),
        ]

    async def me(self, request: Request) -> JSONResponse:
        session = self._doorman.session(request)
        sitting = await asyncio.wrap_future(self._leads.sitting(session.name))
        return done(
            name=session.name,
            role=session.role,
            labels=sitting.labels,
            today=sitting.today,
            median_seconds=sitting.median_seconds,
        )

    async def next(self, request: Request) -> JSONResponse:
        """A task that the person holds already, `lease_id` if it is one of them, else a new one, else null."""
        name = self._doorman.session(request).name
        wanted = (await Body.of(request)).text("lease_id")
        held = await asyncio.wrap_future(self._people.resume(name))
        # Nothing is leased on top of what is held; the question still answers how many tasks are open, and refuses
        # whoever was taken out.
        ask = Ask(name, 0 if held else 1, self._people.settings.lease_seconds)
        leased, open_tasks = await asyncio.wrap_future(self._people.lease(ask))
        found = [each for each in held if each.lease_id == wanted] or held or leased
        return done(task=await self._shown(found[0]) if found else None, open_tasks=open_tasks)

    async def label(self, request: Request) -> JSONResponse:
        name = self._doorman.session(request).name
        request_id, submission = _submission(await Body.of(request))
        (receipt,) = await asyncio.wrap_future(self._people.submit(name, [(request_id, submission)]))
        self._on_receipt(METHOD, submission.presented_outcome, receipt)
        return done(
            accepted=receipt.accepted,
            duplicate=receipt.duplicate,
            event_id=receipt.event_id,
            reason=receipt.refused_reason,
            explanation=WORDS.get(receipt.refused_reason, receipt.refused_reason),
        )

    async def undo(self, request: Request) -> JSONResponse:
        name = self._doorman.session(request).name
        body = await Body.of(request)
        undone = self._people.undo(name, body.needed_text("event_id"), body.needed_text("request_id"))
        held, duplicate = await asyncio.wrap_future(undone)
        return done(task=await self._shown(held) if held else None, duplicate=duplicate)

    async def release(self, request: Request) -> JSONResponse:
        name = self._doorman.session(request).name
        body = await Body.of(request)
        lease_id, reason = body.needed_text("lease_id"), body.needed_text("reason", MAX_REASON_CHARACTERS)
        refused = await asyncio.wrap_future(self._people.release(name, lease_id, reason))
        if refused:
            raise _refused(refused)
        return done()

    async def extend(self, request: Request) -> JSONResponse:
        name = self._doorman.session(request).name
        lease_id = (await Body.of(request)).needed_text("lease_id")
        end = await asyncio.wrap_future(self._people.extend(name, lease_id))
        if isinstance(end, str):
            raise _refused(end)
        return done(expires_at=end, seconds_left=end - self._people.database.clock())

    async def guideline(self, request: Request) -> JSONResponse:
        """One of the configured guidelines; without a name, what they are called."""
        self._doorman.session(request)
        name = request.query_params.get("name", "")
        names = self._people.guidelines.names()
        if not name:
            return done(names=names)
        if name not in names:
            raise NotFound("There is no such guideline.", f"Name one of {', '.join(names) or 'none'}.")
        return done(**await asyncio.to_thread(guideline_json, self._people.guideline(name)))

    async def _shown(self, held: Held) -> dict[str, Any]:
        people = self._people
        guideline = people.guideline(held.guideline)
        return await asyncio.to_thread(
            task_json, held, guideline, people.database.clock(), people.settings.lease_seconds
        )


def _submission(body: Body) -> tuple[str, Submission]:
    outcome = Outcome(body.choice("outcome", OUTCOMES))
    strength = body.whole_number("strength", 0, 3)
    if strength and outcome not in WINNERS:
        raise InvalidInput(f"{outcome.value} has no strength.", "Send strength 0.", "OUT_OF_RANGE")
    aspects = body.choices("aspects", ASPECT_OUTCOMES)
    return body.needed_text("request_id"), Submission(
        body.needed_text("lease_id"),
        outcome,
        strength,
        body.text("rationale", MAX_RATIONALE_CHARACTERS),
        body.number("duration_seconds", 0, MAX_LEASE_SECONDS),
        {name: Outcome(each) for name, each in aspects.items()},
    )


def _refused(reason: str) -> WrongState:
    return WrongState(WORDS.get(reason, reason), "Take the next task.", reason)
