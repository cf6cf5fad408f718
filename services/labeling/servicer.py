"""The RPCs of LabelingService: validate, convert, one library call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from iterpo import feedback_wire, wire
from iterpo.errors import InvalidInput, WrongState
from iterpo.labeling.application import ApplicationDesk, Edited, Kept, Thumb, Verdict
from iterpo.labeling.catalog import PEOPLE
from iterpo.labeling.desk import LabelingDesk
from iterpo.store.leases import Held
from iterpo.types import AnnotatorState
from iterpo.v1 import labeling_pb2 as pb
from iterpo.v1 import labeling_pb2_grpc
from services.auth import caller_name, check_speaks_for
from services.ids import need_ids
from services.labeling import limits, messages
from services.labeling.annotating import Bell, Connection
from services.labeling.feed import Feed
from services.labeling.metrics import LabelingMetrics

Context = grpc.aio.ServicerContext[Any, Any]


class LabelingServicer(labeling_pb2_grpc.LabelingServiceServicer):
    """Made inside the event loop that serves."""

    def __init__(self, desk: LabelingDesk, metrics: LabelingMetrics) -> None:
        self._desk, self._people, self._leads = desk, desk.people, desk.leads
        self._application = ApplicationDesk(desk.people)
        self._metrics = metrics
        self._feed = Feed(desk.database)
        self._bell = Bell(desk.database)

    async def drain(self) -> None:
        """End the open streams with a reason; calls that are under way finish."""
        self._feed.close()
        self._bell.close()

    async def RecordCompletions(
        self, request: pb.RecordCompletionsRequest, context: Context
    ) -> pb.RecordCompletionsResponse:
        need_ids(request, "request_id", "run_id", "labeler")
        limits.at_most("groups", request.groups, limits.MAX_GROUPS)
        groups = [wire.group_from_proto(group) for group in request.groups]
        implicit = dict(request.implicit_rewards)
        stored = self._desk.record(request.run_id, request.labeler, groups, request.request_id, implicit)
        answer = await asyncio.wrap_future(stored)
        if answer.duplicate:
            self._metrics.on_duplicate("RecordCompletions")
        return pb.RecordCompletionsResponse(event_ids=answer.ids, duplicate=answer.duplicate)

    async def ScoreCompletions(
        self, request: pb.ScoreCompletionsRequest, context: Context
    ) -> pb.ScoreCompletionsResponse:
        need_ids(request, "labeler")
        limits.at_most("items", request.items, limits.MAX_ITEMS)
        items = [
            (wire.prompt_from_proto(item.prompt), wire.completion_from_proto(item.completion)) for item in request.items
        ]
        verdicts = await asyncio.wrap_future(self._desk.score(request.labeler, items))
        return pb.ScoreCompletionsResponse(results=[messages.score_result(verdict) for verdict in verdicts])

    async def CreateTasks(self, request: pb.CreateTasksRequest, context: Context) -> pb.CreateTasksResponse:
        need_ids(request, "request_id")
        limits.at_most("tasks", request.tasks, limits.MAX_GROUPS)
        pairs = [messages.pair_request(task, self._desk.plan.required_labels) for task in request.tasks]
        answer = await asyncio.wrap_future(self._desk.create_tasks(request.run_id, pairs, request.request_id))
        if answer.duplicate:
            self._metrics.on_duplicate("CreateTasks")
        return pb.CreateTasksResponse(task_ids=answer.ids, duplicate=answer.duplicate)

    async def LeaseTasks(self, request: pb.LeaseTasksRequest, context: Context) -> pb.LeaseTasksResponse:
        self._check_annotator(request)
        limits.in_range("max_tasks", request.max_tasks, 0, limits.MAX_LEASES)
        ask = messages.ask(request, request.max_tasks or 1, self._people.settings.lease_seconds)
        leases, open_tasks = await asyncio.wrap_future(self._people.lease(ask, resume=request.resume))
        return pb.LeaseTasksResponse(leases=[self._lease(held) for held in leases], open_tasks=open_tasks)

    async def ExtendLease(self, request: pb.ExtendLeaseRequest, context: Context) -> pb.ExtendLeaseResponse:
        self._check_annotator(request)
        limits.in_range("lease_seconds", request.lease_seconds, 0, limits.MAX_LEASE_SECONDS)
        extended = self._people.extend(request.annotator, request.lease_id, request.lease_seconds)
        ends = await asyncio.wrap_future(extended)
        if isinstance(ends, str):
            raise _no_lease("extended", ends)
        return pb.ExtendLeaseResponse(expires_at_unix_seconds=ends)

    async def ReleaseTask(self, request: pb.ReleaseTaskRequest, context: Context) -> pb.ReleaseTaskResponse:
        self._check_annotator(request)
        limits.in_range("the reason's length", len(request.reason), 1, limits.MAX_RATIONALE_CHARACTERS)
        released = self._people.release(request.annotator, request.lease_id, request.reason)
        refused = await asyncio.wrap_future(released)
        if refused:
            raise _no_lease("given back", refused)
        return pb.ReleaseTaskResponse()

    async def SubmitLabels(self, request: pb.SubmitLabelsRequest, context: Context) -> pb.SubmitLabelsResponse:
        self._check_annotator(request)
        limits.at_most("labels", request.labels, limits.MAX_LABELS)
        labels = [messages.submission(label) for label in request.labels]
        receipts = await asyncio.wrap_future(self._people.submit(request.annotator, labels))
        for (_, label), receipt in zip(labels, receipts, strict=True):
            self._metrics.on_receipt("SubmitLabels", label.presented_outcome, receipt)
        return pb.SubmitLabelsResponse(results=[messages.submit_result(receipt) for receipt in receipts])

    async def UndoLabel(self, request: pb.UndoLabelRequest, context: Context) -> pb.UndoLabelResponse:
        self._check_annotator(request)
        need_ids(request, "request_id", "event_id")
        undone = self._people.undo(request.annotator, request.event_id, request.request_id)
        held, duplicate = await asyncio.wrap_future(undone)
        return pb.UndoLabelResponse(lease=self._lease(held) if held else None, duplicate=duplicate)

    async def Annotate(self, request_iterator: Any, context: Context) -> AsyncIterator[pb.AnnotateResponse]:
        connection = Connection(self._people, self._bell, self._metrics)
        async with aclosing(connection.responses(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def SubmitFeedback(self, request: pb.SubmitFeedbackRequest, context: Context) -> pb.SubmitFeedbackResponse:
        need_ids(request, "request_id", "run_id", "user")
        check_speaks_for(request.user)
        served = wire.group_from_proto(request.served) if request.HasField("served") else None
        stored = self._application.submit(request.run_id, request.user, _verdict(request), served, request.request_id)
        answer = await asyncio.wrap_future(stored)
        if answer.duplicate:
            self._metrics.on_duplicate("SubmitFeedback")
        return pb.SubmitFeedbackResponse(event_ids=answer.ids, duplicate=answer.duplicate)

    async def StreamFeedback(
        self, request: pb.StreamFeedbackRequest, context: Context
    ) -> AsyncIterator[pb.StreamFeedbackResponse]:
        limits.in_range("cursor", request.cursor, -1, 2**62)
        limits.in_range("idle_seconds", request.idle_seconds, 0, 24 * 3600)
        async for message in self._feed.events(request.run_id, request.cursor, request.idle_seconds):
            yield message

    async def ListLabelers(self, request: pb.ListLabelersRequest, context: Context) -> pb.ListLabelersResponse:
        people = pb.LabelerInfo(name=PEOPLE, kind=PEOPLE, description="People compare pairs: `iterpo annotate`.")
        infos = [
            pb.LabelerInfo(name=labeler.name, kind=labeler.kind, description=labeler.description)
            for labeler in self._desk.labelers.values()
        ]
        return pb.ListLabelersResponse(labelers=[*infos, people])

    async def ListAnnotators(self, request: pb.ListAnnotatorsRequest, context: Context) -> pb.ListAnnotatorsResponse:
        profiles = await asyncio.to_thread(self._leads.profiles, request.annotator)
        history = self._people.crowd.history
        return pb.ListAnnotatorsResponse(annotators=[messages.annotator(p, history(p.annotator)) for p in profiles])

    async def SetAnnotatorState(
        self, request: pb.SetAnnotatorStateRequest, context: Context
    ) -> pb.SetAnnotatorStateResponse:
        need_ids(request, "request_id", "annotator")
        state = feedback_wire.state_from_proto(request.state)
        if state not in (AnnotatorState.EXCLUDED, AnnotatorState.OK):
            raise InvalidInput(
                f"Nobody can be set to {state.value}: the figures decide that.", "Set it to EXCLUDED, or OK to readmit."
            )
        limits.in_range("the reason's length", len(request.reason), 0, limits.MAX_RATIONALE_CHARACTERS)
        by = caller_name() or request.by or "lead"
        done = self._leads.set_state(request.annotator, state, request.reason, by, request.request_id)
        revised, duplicate = await asyncio.wrap_future(done)
        return pb.SetAnnotatorStateResponse(revised_preferences=revised, duplicate=duplicate)

    async def GetLabelReport(self, request: pb.GetLabelReportRequest, context: Context) -> pb.GetLabelReportResponse:
        return messages.report(await asyncio.to_thread(self._leads.report, request.run_id))

    def _lease(self, held: Held) -> pb.Lease:
        return messages.lease(held, self._people.guideline(held.guideline))

    @staticmethod
    def _check_annotator(request: Any) -> None:
        need_ids(request, "annotator")
        check_speaks_for(request.annotator)


def _no_lease(done: str, reason: str) -> WrongState:
    return WrongState(f"The task cannot be {done}: {reason}.", "Lease a task again.", reason)


def _verdict(request: pb.SubmitFeedbackRequest) -> Verdict:
    match request.WhichOneof("verdict"):
        case "kept":
            need_ids(request.kept, "completion_id", "over_completion_id")
            limits.in_range("strength", request.kept.strength, 0, 3)
            return Kept(request.kept.completion_id, request.kept.over_completion_id, request.kept.strength)
        case "thumb":
            need_ids(request.thumb, "completion_id")
            return Thumb(request.thumb.completion_id, request.thumb.up)
        case "edited":
            need_ids(request.edited, "completion_id")
            limits.in_range("the answer's length", len(request.edited.text.strip()), 1, limits.MAX_ANSWER_CHARACTERS)
            return Edited(request.edited.completion_id, request.edited.text)
        case _:
            raise InvalidInput("The feedback says nothing.", "Set kept, thumb or edited.", "NO_VERDICT")
