"""`LabelingClient`: the labeling service over a synchronous channel; `ports.FeedbackStore` and `ports.Labeler`.

Errors arrive as the IterpoErrors that the server raised. Unary calls are retried on UNAVAILABLE by the channel; a
stream is not: whoever reads it knows his cursor and asks again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

from iterpo import wire
from iterpo.clients.channel import translated_errors
from iterpo.types import Completion, FeedbackEvent, Group, Lease, Outcome, Prompt
from iterpo.v1 import labeling_pb2, labeling_pb2_grpc

UNARY_SECONDS = 120.0
"""Deadline of a call that only touches the store; scoring gets as long as its labeler takes."""
SCORE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What became of a submitted label; `refused_reason` is empty when it was accepted."""

    accepted: bool
    refused_reason: str
    duplicate: bool
    event_id: str


@dataclass(frozen=True, slots=True)
class LabelerInfo:
    name: str
    kind: str
    """`verifier`, `reward_model` or `people`."""
    description: str


class LabelingClient:
    """The channel is the caller's to close."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = labeling_pb2_grpc.LabelingServiceStub(channel)

    def record(self, run_id: str, labeler: str, groups: Sequence[Group], request_id: str) -> list[str]:
        """Store groups and have them labelled; durable on return. Returns the event ids of the groups, in order."""
        request = labeling_pb2.RecordCompletionsRequest(
            request_id=request_id, run_id=run_id, labeler=labeler, groups=[wire.group_to_proto(g) for g in groups]
        )
        with translated_errors():
            return list(self._stub.RecordCompletions(request, timeout=UNARY_SECONDS).event_ids)

    def stream(self, run_id: str, cursor: int, idle_seconds: float) -> Iterator[FeedbackEvent]:
        """Events of a run ("" is every run) after `cursor`; ends once nothing came for `idle_seconds` (0: never).

        Raises Unavailable when the server goes away or drains: call again with the last event's cursor.
        """
        request = labeling_pb2.StreamFeedbackRequest(run_id=run_id, cursor=cursor, idle_seconds=idle_seconds)
        call = self._stub.StreamFeedback(request)
        try:
            with translated_errors():
                for message in call:
                    yield wire.event_from_proto(message)
        finally:
            call.cancel()

    def score(self, labeler: str, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float | None]:
        """One reward a completion, in order; None where the labeler abstained. Stores nothing."""
        request = labeling_pb2.ScoreCompletionsRequest(
            labeler=labeler,
            items=[
                labeling_pb2.ScoreItem(prompt=wire.prompt_to_proto(p), completion=wire.completion_to_proto(c))
                for p, c in zip(prompts, completions, strict=True)
            ],
        )
        with translated_errors():
            results = self._stub.ScoreCompletions(request, timeout=SCORE_SECONDS).results
        return [result.value if result.HasField("value") else None for result in results]

    def create_tasks(
        self,
        run_id: str,
        pairs: Sequence[tuple[str, str]],
        request_id: str,
        guideline: str = "",
        required_labels: int = 1,
    ) -> list[str]:
        """Ask people to compare recorded completions, given as (first id, second id). Returns the task ids."""
        request = labeling_pb2.CreateTasksRequest(
            request_id=request_id,
            run_id=run_id,
            tasks=[
                labeling_pb2.TaskSpec(
                    first_id=first, second_id=second, guideline=guideline, required_labels=required_labels
                )
                for first, second in pairs
            ],
        )
        with translated_errors():
            return list(self._stub.CreateTasks(request, timeout=UNARY_SECONDS).task_ids)

    def lease(self, annotator: str, max_tasks: int = 1, run_id: str = "") -> tuple[list[Lease], int]:
        """Tasks for this person, and how many tasks still need labels, leased or not."""
        request = labeling_pb2.LeaseTasksRequest(annotator=annotator, max_tasks=max_tasks, run_id=run_id)
        with translated_errors():
            response = self._stub.LeaseTasks(request, timeout=UNARY_SECONDS)
        return [wire.lease_from_proto(lease, annotator) for lease in response.leases], response.open_tasks

    def submit(
        self,
        lease: Lease,
        presented_outcome: Outcome,
        strength: int = 0,
        rationale: str = "",
        duration_seconds: float = 0.0,
        request_id: str | None = None,
    ) -> LabelResult:
        """One label, in the order that the screen showed; the server swaps it back. Durable on return."""
        label = labeling_pb2.LabelSubmission(
            request_id=request_id or uuid.uuid4().hex,
            lease_id=lease.lease_id,
            presented_outcome=wire.outcome_to_proto(presented_outcome),
            strength=strength,
            rationale=rationale,
            duration_seconds=duration_seconds,
        )
        request = labeling_pb2.SubmitLabelsRequest(annotator=lease.annotator, labels=[label])
        with translated_errors():
            (result,) = self._stub.SubmitLabels(request, timeout=UNARY_SECONDS).results
        return LabelResult(result.accepted, result.refused_reason, result.duplicate, result.event_id)

    def labelers(self) -> list[LabelerInfo]:
        with translated_errors():
            answer = self._stub.ListLabelers(labeling_pb2.ListLabelersRequest(), timeout=UNARY_SECONDS)
        return [LabelerInfo(info.name, info.kind, info.description) for info in answer.labelers]
