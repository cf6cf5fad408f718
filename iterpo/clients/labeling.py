"""`LabelingClient`: the labeling service over a synchronous channel; `ports.FeedbackStore` and `ports.Labeler`.

Errors arrive as the IterpoErrors that the server raised. Unary calls are retried on UNAVAILABLE by the channel; a
stream is not: whoever reads it knows his cursor and asks again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc

from iterpo import feedback_wire, wire
from iterpo.clients.channel import translated_errors
from iterpo.labeling.imports import Imported
from iterpo.types import AnnotatorState, Completion, FeedbackEvent, FinishReason, Group, Lease, Outcome, Prompt
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
    """`verifier`, `reward_model`, `judge` or `people`."""
    description: str


class LabelingClient:
    """The channel is the caller's to close."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = labeling_pb2_grpc.LabelingServiceStub(channel)
        self._guidelines: dict[str, str] = {}
        """lease_id -> text."""

    def record(
        self,
        run_id: str,
        labeler: str,
        groups: Sequence[Group],
        request_id: str,
        implicit_rewards: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Store groups and have them labelled; durable on return. Returns the event ids of the groups, in order.

        `implicit_rewards`: completion_id -> the policy's summed log-ratio to the base, nats; for `people`.
        """
        request = labeling_pb2.RecordCompletionsRequest(
            request_id=request_id,
            run_id=run_id,
            labeler=labeler,
            groups=[wire.group_to_proto(g) for g in groups],
            implicit_rewards=implicit_rewards,
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
                    yield feedback_wire.event_from_proto(message)
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
        required_labels: float = 0.0,
        gold: Outcome | None = None,
        priority: int = 0,
        language: str = "",
    ) -> list[str]:
        """Ask people to compare recorded completions, given as (first id, second id). Returns the task ids.

        `required_labels` 0 is the server's default. With `gold`, the right answer, the tasks measure annotators.
        """
        request = labeling_pb2.CreateTasksRequest(
            request_id=request_id,
            run_id=run_id,
            tasks=[
                labeling_pb2.TaskSpec(
                    first_id=first,
                    second_id=second,
                    guideline=guideline,
                    required_labels=required_labels,
                    gold=feedback_wire.outcome_to_proto(gold) if gold else None,
                    priority=priority,
                    language=language,
                )
                for first, second in pairs
            ],
        )
        with translated_errors():
            return list(self._stub.CreateTasks(request, timeout=UNARY_SECONDS).task_ids)

    def lease(
        self,
        annotator: str,
        max_tasks: int = 1,
        run_id: str = "",
        guideline: str = "",
        languages: Sequence[str] = (),
        resume: bool = False,
    ) -> tuple[list[Lease], int]:
        """Tasks for this person, and how many tasks still need labels, leased or not. `resume`: those that he holds
        already come first."""
        request = labeling_pb2.LeaseTasksRequest(
            annotator=annotator,
            max_tasks=max_tasks,
            run_id=run_id,
            guideline=guideline,
            languages=languages,
            resume=resume,
        )
        with translated_errors():
            response = self._stub.LeaseTasks(request, timeout=UNARY_SECONDS)
        self._guidelines |= {lease.lease_id: lease.guideline.text for lease in response.leases}
        return [feedback_wire.lease_from_proto(lease, annotator) for lease in response.leases], response.open_tasks

    def guideline(self, lease: Lease) -> str:
        """The text that annotators go by, of a lease that this client got."""
        return self._guidelines.get(lease.lease_id, "")

    def extend(self, lease: Lease, seconds: float = 0.0) -> Lease:
        """The lease with its new end, `seconds` (0: the server's default) from now on."""
        request = labeling_pb2.ExtendLeaseRequest(
            annotator=lease.annotator, lease_id=lease.lease_id, lease_seconds=seconds
        )
        with translated_errors():
            answer = self._stub.ExtendLease(request, timeout=UNARY_SECONDS)
        return replace(lease, expires_at=answer.expires_at_unix_seconds)

    def release(self, lease: Lease, reason: str) -> None:
        """Give a task back; the same person does not get it again."""
        request = labeling_pb2.ReleaseTaskRequest(annotator=lease.annotator, lease_id=lease.lease_id, reason=reason)
        with translated_errors():
            self._stub.ReleaseTask(request, timeout=UNARY_SECONDS)

    def submit(
        self,
        lease: Lease,
        presented_outcome: Outcome,
        strength: int = 0,
        rationale: str = "",
        duration_seconds: float = 0.0,
        request_id: str | None = None,
        presented_aspects: Mapping[str, Outcome] | None = None,
    ) -> LabelResult:
        """One label, in the order that the screen showed; the server swaps it back. Durable on return."""
        label = labeling_pb2.LabelSubmission(
            request_id=request_id or uuid.uuid4().hex,
            lease_id=lease.lease_id,
            presented_outcome=feedback_wire.outcome_to_proto(presented_outcome),
            strength=strength,
            rationale=rationale,
            duration_seconds=duration_seconds,
            presented_aspects=feedback_wire.aspects_to_proto(presented_aspects or {}),
        )
        request = labeling_pb2.SubmitLabelsRequest(annotator=lease.annotator, labels=[label])
        with translated_errors():
            (result,) = self._stub.SubmitLabels(request, timeout=UNARY_SECONDS).results
        return label_result(result)

    def undo(self, annotator: str, event_id: str) -> Lease:
        """Take an own label back; its task, leased again."""
        request = labeling_pb2.UndoLabelRequest(request_id=uuid.uuid4().hex, annotator=annotator, event_id=event_id)
        with translated_errors():
            answer = self._stub.UndoLabel(request, timeout=UNARY_SECONDS)
        self._guidelines[answer.lease.lease_id] = answer.lease.guideline.text
        return feedback_wire.lease_from_proto(answer.lease, annotator)

    def kept(
        self,
        run_id: str,
        user: str,
        group: Group | None,
        kept_id: str,
        over_id: str,
        request_id: str = "",
        strength: int = 0,
    ) -> list[str]:
        """An application's user kept one of two served answers (`group`; None: recorded before). Returns the event
        ids."""
        kept = labeling_pb2.Kept(completion_id=kept_id, over_completion_id=over_id, strength=strength)
        return self._feedback(run_id, user, group, request_id, kept=kept)

    def thumb(
        self, run_id: str, user: str, group: Group | None, completion_id: str, up: bool, request_id: str = ""
    ) -> list[str]:
        """An application's user liked a served answer, or did not. Returns the event ids."""
        thumb = labeling_pb2.Thumb(completion_id=completion_id, up=up)
        return self._feedback(run_id, user, group, request_id, thumb=thumb)

    def edited(
        self, run_id: str, user: str, group: Group | None, completion_id: str, text: str, request_id: str = ""
    ) -> list[str]:
        """An application's user wrote a better answer than a served one. Returns the event ids."""
        edited = labeling_pb2.Edited(completion_id=completion_id, text=text)
        return self._feedback(run_id, user, group, request_id, edited=edited)

    def import_row(self, row: Imported, run_id: str, annotator: str, request_id: str) -> bool:
        """Store a row of another program's file; False when it was there already."""
        served = imported_group(row)
        ids = [c.completion_id for c in served.completions]
        if len(ids) == 2:
            verdict: dict[str, Any] = {"kept": labeling_pb2.Kept(completion_id=ids[0], over_completion_id=ids[1])}
        else:
            verdict = {"thumb": labeling_pb2.Thumb(completion_id=ids[0], up=row.up)}
        request = labeling_pb2.SubmitFeedbackRequest(
            request_id=request_id, run_id=run_id, user=annotator, served=wire.group_to_proto(served), **verdict
        )
        with translated_errors():
            return not self._stub.SubmitFeedback(request, timeout=UNARY_SECONDS).duplicate

    def gold(self, row: Imported, name: str, guideline: str = "", language: str = "") -> None:
        """A gold task of a pair that nobody doubts; which answer stands first is drawn from `name`. Its ids look like
        those of sampled answers: annotators see them, and must not see that it is gold."""
        group = imported_group(row, _disguised(name))
        ids = [c.completion_id for c in group.completions]
        right = Outcome.FIRST
        if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2:
            ids, right = ids[::-1], Outcome.SECOND
        self.record("gold", "none", [group], f"gold/{name}/group")
        self.create_tasks("gold", [(ids[0], ids[1])], f"gold/{name}/task", guideline, gold=right, language=language)

    def annotators(self, annotator: str = "") -> list[labeling_pb2.Annotator]:
        """With their quality; all of them, or one."""
        request = labeling_pb2.ListAnnotatorsRequest(annotator=annotator)
        with translated_errors():
            return list(self._stub.ListAnnotators(request, timeout=UNARY_SECONDS).annotators)

    def set_state(self, annotator: str, state: AnnotatorState, reason: str = "", by: str = "") -> int:
        """Take an annotator out (EXCLUDED) or readmit him (OK); how many preferences were made anew."""
        request = labeling_pb2.SetAnnotatorStateRequest(
            request_id=uuid.uuid4().hex,
            annotator=annotator,
            state=feedback_wire.state_to_proto(state),
            reason=reason,
            by=by,
        )
        with translated_errors():
            return int(self._stub.SetAnnotatorState(request, timeout=UNARY_SECONDS).revised_preferences)

    def report(self, run_id: str = "") -> labeling_pb2.GetLabelReportResponse:
        """Queue, agreement and the policies' Bradley-Terry table; "" is every run."""
        request = labeling_pb2.GetLabelReportRequest(run_id=run_id)
        with translated_errors():
            found: labeling_pb2.GetLabelReportResponse = self._stub.GetLabelReport(request, timeout=UNARY_SECONDS)
        return found

    def _feedback(self, run_id: str, user: str, group: Group | None, request_id: str, **verdict: Any) -> list[str]:
        request = labeling_pb2.SubmitFeedbackRequest(
            request_id=request_id or uuid.uuid4().hex,
            run_id=run_id,
            user=user,
            served=wire.group_to_proto(group) if group else None,
            **verdict,
        )
        with translated_errors():
            return list(self._stub.SubmitFeedback(request, timeout=UNARY_SECONDS).event_ids)

    def labelers(self) -> list[LabelerInfo]:
        with translated_errors():
            answer = self._stub.ListLabelers(labeling_pb2.ListLabelersRequest(), timeout=UNARY_SECONDS)
        return [LabelerInfo(info.name, info.kind, info.description) for info in answer.labelers]


def imported_group(row: Imported, group_id: str = "") -> Group:
    """Texts without tokens, under the digest of the prompt."""
    group_id = group_id or str(row.line)
    told = "\n".join(f"{m.role}: {m.content}" for m in row.prompt)
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    answers = tuple(
        Completion(_disguised(f"{group_id}/{i}"), name, group_id, text, (), (), (), FinishReason.STOP, 0, "")
        for i, text in enumerate(row.answers)
    )
    return Group(group_id, Prompt(name, row.prompt), answers)


def _disguised(name: str) -> str:
    """As unique as the name, and telling nothing of it."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def label_result(result: labeling_pb2.SubmitResult) -> LabelResult:
    return LabelResult(result.accepted, result.refused_reason, result.duplicate, result.event_id)
