"""The RPCs of LabelingService: validate, convert, one library call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from iterpo import wire
from iterpo.labeling.catalog import PEOPLE
from iterpo.labeling.desk import LabelingDesk, PairRequest, Receipt
from iterpo.labeling.pairs import MAX_REQUIRED_LABELS
from iterpo.store.tasks import Submission
from iterpo.store.work import Verdict
from iterpo.types import Reward
from iterpo.v1 import labeling_pb2 as pb
from iterpo.v1 import labeling_pb2_grpc
from services.ids import need_ids
from services.labeling import limits
from services.labeling.feed import Feed
from services.labeling.metrics import LabelingMetrics

Context = grpc.aio.ServicerContext[Any, Any]


class LabelingServicer(labeling_pb2_grpc.LabelingServiceServicer):
    """Made inside the event loop that serves."""

    def __init__(self, desk: LabelingDesk, metrics: LabelingMetrics, lease_seconds: float = 300.0) -> None:
        self._desk = desk
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._feed = Feed(desk.database)

    async def drain(self) -> None:
        """End the open streams with a reason; calls that are under way finish."""
        self._feed.close()

    async def RecordCompletions(
        self, request: pb.RecordCompletionsRequest, context: Context
    ) -> pb.RecordCompletionsResponse:
        need_ids(request, "request_id", "run_id", "labeler")
        limits.at_most("groups", request.groups, limits.MAX_GROUPS)
        groups = [wire.group_from_proto(group) for group in request.groups]
        stored = self._desk.record(request.run_id, request.labeler, groups, request.request_id)
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
        return pb.ScoreCompletionsResponse(results=[_score_result(verdict) for verdict in verdicts])

    async def CreateTasks(self, request: pb.CreateTasksRequest, context: Context) -> pb.CreateTasksResponse:
        need_ids(request, "request_id")
        limits.at_most("tasks", request.tasks, limits.MAX_GROUPS)
        pairs = [_pair_request(task) for task in request.tasks]
        answer = await asyncio.wrap_future(self._desk.create_tasks(request.run_id, pairs, request.request_id))
        if answer.duplicate:
            self._metrics.on_duplicate("CreateTasks")
        return pb.CreateTasksResponse(task_ids=answer.ids, duplicate=answer.duplicate)

    async def LeaseTasks(self, request: pb.LeaseTasksRequest, context: Context) -> pb.LeaseTasksResponse:
        need_ids(request, "annotator")
        limits.in_range("max_tasks", request.max_tasks, 0, limits.MAX_LEASES)
        limits.in_range("lease_seconds", request.lease_seconds, 0, limits.MAX_LEASE_SECONDS)
        seconds = request.lease_seconds or self._lease_seconds
        leased = self._desk.lease(request.annotator, request.max_tasks or 1, seconds, request.run_id)
        leases, open_tasks = await asyncio.wrap_future(leased)
        return pb.LeaseTasksResponse(leases=[wire.lease_to_proto(lease) for lease in leases], open_tasks=open_tasks)

    async def SubmitLabels(self, request: pb.SubmitLabelsRequest, context: Context) -> pb.SubmitLabelsResponse:
        need_ids(request, "annotator")
        limits.at_most("labels", request.labels, limits.MAX_LABELS)
        labels = [_submission(label) for label in request.labels]
        receipts = await asyncio.wrap_future(self._desk.submit(request.annotator, labels))
        for (_, label), receipt in zip(labels, receipts, strict=True):
            self._count(label, receipt)
        return pb.SubmitLabelsResponse(results=[_submit_result(receipt) for receipt in receipts])

    async def StreamFeedback(
        self, request: pb.StreamFeedbackRequest, context: Context
    ) -> AsyncIterator[pb.StreamFeedbackResponse]:
        limits.in_range("cursor", request.cursor, 0, 2**62)
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

    def _count(self, label: Submission, receipt: Receipt) -> None:
        if receipt.duplicate:
            self._metrics.on_duplicate("SubmitLabels")
        else:
            self._metrics.on_label(label.presented_outcome, receipt.refused_reason)


def _score_result(verdict: Verdict) -> pb.ScoreResult:
    if isinstance(verdict, Reward):
        return pb.ScoreResult(value=verdict.value)
    return pb.ScoreResult(abstained_reason=verdict.reason)


def _pair_request(task: pb.TaskSpec) -> PairRequest:
    need_ids(task, "first_id", "second_id")
    limits.in_range("required_labels", task.required_labels, 0, MAX_REQUIRED_LABELS)
    return PairRequest(task.first_id, task.second_id, task.guideline, task.required_labels or 1)


def _submission(label: pb.LabelSubmission) -> tuple[str, Submission]:
    need_ids(label, "request_id", "lease_id")
    limits.in_range("strength", label.strength, 0, 3)
    limits.in_range("duration_seconds", label.duration_seconds, 0, limits.MAX_LEASE_SECONDS)
    limits.in_range("the rationale's length", len(label.rationale), 0, limits.MAX_RATIONALE_CHARACTERS)
    outcome = wire.outcome_from_proto(label.presented_outcome)
    return label.request_id, Submission(
        label.lease_id, outcome, label.strength, label.rationale, label.duration_seconds
    )


def _submit_result(receipt: Receipt) -> pb.SubmitResult:
    return pb.SubmitResult(
        request_id=receipt.request_id,
        accepted=receipt.accepted,
        refused_reason=receipt.refused_reason,
        duplicate=receipt.duplicate,
        event_id=receipt.event_id,
    )
