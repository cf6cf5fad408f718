"""What the leads' page calls: the report, the annotators, and who may label."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from iterpo.labeling.leads import LeadDesk
from iterpo.types import AnnotatorState
from services.ids import MAX_ID_CHARACTERS
from services.labeling.page.answers import acting, done, reading
from services.labeling.page.body import Body
from services.labeling.page.doorman import LEADS, Doorman
from services.labeling.page.lead_json import profile_json, report_json

MAX_REASON_CHARACTERS = 1_000


class LeadApi:
    def __init__(self, leads: LeadDesk, doorman: Doorman) -> None:
        self._leads = leads
        self._doorman = doorman

    def routes(self) -> list[Route]:
        return [
            reading("/api/report", self.report),
            reading("/api/tally", self.tally),
            reading("/api/annotators", self.annotators),
            acting("/api/exclude", self.exclude),
            acting("/api/readmit", self.readmit),
        ]

    async def report(self, request: Request) -> JSONResponse:
        """Of every run, or of the one in `run_id`."""
        self._doorman.session(request, LEADS)
        run_id = request.query_params.get("run_id", "")[:MAX_ID_CHARACTERS]
        # Its first table is computed when it is asked for: a thread keeps labels flowing meanwhile.
        report = await asyncio.to_thread(self._leads.report, run_id, fresh=False)
        return JSONResponse(report_json(report))

    async def tally(self, request: Request) -> JSONResponse:
        """Of every run, or of the one in `run_id`: what the run page asks for every other second."""
        self._doorman.session(request, LEADS)
        run_id = request.query_params.get("run_id", "")[:MAX_ID_CHARACTERS]
        counts, _, sources = await asyncio.to_thread(self._leads.tally, run_id)
        return done(counts=asdict(counts), labels_by_source=sources)

    async def annotators(self, request: Request) -> JSONResponse:
        self._doorman.session(request, LEADS)
        profiles = await asyncio.to_thread(self._leads.profiles)
        history = self._leads.crowd.history
        return done(annotators=[profile_json(profile, history(profile.annotator)) for profile in profiles])

    async def exclude(self, request: Request) -> JSONResponse:
        return await self._set(request, AnnotatorState.EXCLUDED)

    async def readmit(self, request: Request) -> JSONResponse:
        return await self._set(request, AnnotatorState.OK)

    async def _set(self, request: Request, state: AnnotatorState) -> JSONResponse:
        by = self._doorman.session(request, LEADS).name
        body = await Body.of(request)
        annotator, reason = body.needed_text("annotator"), body.needed_text("reason", MAX_REASON_CHARACTERS)
        changed = self._leads.set_state(annotator, state, reason, by, body.needed_text("request_id"))
        revised, duplicate = await asyncio.wrap_future(changed)
        return done(state=state.value, revised_preferences=revised, duplicate=duplicate)
