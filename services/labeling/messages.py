"""What the labeling service's answers look like on the wire, and its requests as library values."""

from __future__ import annotations

from collections.abc import Sequence

from iterpo import feedback_wire
from iterpo.labeling.agreement import Agreement
from iterpo.labeling.bradley_terry import Strength
from iterpo.labeling.crowd import Profile
from iterpo.labeling.desk import PairRequest
from iterpo.labeling.guidelines import Guideline
from iterpo.labeling.leads import Report
from iterpo.labeling.pairs import MAX_REQUIRED_LABELS
from iterpo.labeling.people import Receipt
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Held
from iterpo.store.work import Verdict
from iterpo.types import Reward
from iterpo.v1 import labeling_pb2 as pb
from iterpo.v1 import types_pb2
from services.ids import need_ids
from services.labeling import limits


def score_result(verdict: Verdict) -> pb.ScoreResult:
    if isinstance(verdict, Reward):
        return pb.ScoreResult(value=verdict.value)
    return pb.ScoreResult(abstained_reason=verdict.reason)


def pair_request(task: pb.TaskSpec, default_labels: float) -> PairRequest:
    need_ids(task, "first_id", "second_id")
    limits.in_range("required_labels", task.required_labels, 0, MAX_REQUIRED_LABELS)
    limits.in_range("priority", task.priority, -1000, 1000)
    uncertainty = task.uncertainty if task.HasField("uncertainty") else 1.0
    limits.in_range("uncertainty", uncertainty, 0, 1)
    if task.required_labels and task.required_labels < 1:
        limits.in_range("required_labels", task.required_labels, 1, MAX_REQUIRED_LABELS)
    return PairRequest(
        task.first_id,
        task.second_id,
        task.guideline,
        task.required_labels or default_labels,
        feedback_wire.outcome_from_proto(task.gold) if task.gold else None,
        task.priority,
        task.language,
        uncertainty,
    )


def ask(request: pb.LeaseTasksRequest | pb.AnnotateStart, limit: int, lease_seconds: float) -> Ask:
    limits.in_range("lease_seconds", request.lease_seconds, 0, limits.MAX_LEASE_SECONDS)
    limits.in_range("languages", len(request.languages), 0, limits.MAX_LANGUAGES)
    return Ask(
        request.annotator,
        limit,
        request.lease_seconds or lease_seconds,
        request.run_id,
        request.guideline,
        tuple(request.languages),
    )


def submission(label: pb.LabelSubmission) -> tuple[str, Submission]:
    """(request id, label). Raises InvalidInput for what no label may be."""
    need_ids(label, "request_id", "lease_id")
    limits.in_range("strength", label.strength, 0, 3)
    limits.in_range("duration_seconds", label.duration_seconds, 0, limits.MAX_LEASE_SECONDS)
    limits.in_range("the rationale's length", len(label.rationale), 0, limits.MAX_RATIONALE_CHARACTERS)
    limits.in_range("the number of aspects", len(label.presented_aspects), 0, limits.MAX_ASPECTS)
    return label.request_id, Submission(
        label.lease_id,
        feedback_wire.outcome_from_proto(label.presented_outcome),
        label.strength,
        label.rationale,
        label.duration_seconds,
        feedback_wire.aspects_from_proto(label.presented_aspects),
    )


def submit_result(receipt: Receipt) -> pb.SubmitResult:
    return pb.SubmitResult(
        request_id=receipt.request_id,
        accepted=receipt.accepted,
        refused_reason=receipt.refused_reason,
        duplicate=receipt.duplicate,
        event_id=receipt.event_id,
    )


def lease(held: Held, guideline: Guideline) -> pb.Lease:
    return pb.Lease(
        lease_id=held.lease_id,
        task=types_pb2.Task.FromString(held.shown),
        expires_at_unix_seconds=held.expires_at,
        swapped=held.swapped,
        guideline=pb.Guideline(
            name=guideline.name, version=guideline.version, text=guideline.text, aspects=guideline.aspects
        ),
    )


def annotator(profile: Profile, history: Sequence[tuple[float, float]]) -> pb.Annotator:
    return pb.Annotator(
        annotator=profile.annotator,
        state=feedback_wire.state_to_proto(profile.state),
        reasons=profile.reasons,
        labels=profile.labels,
        accuracy=pb.Interval(mean=profile.accuracy.mean, low=profile.accuracy.low, high=profile.accuracy.high),
        gold=pb.Rate(right=profile.gold.right, total=profile.gold.total),
        self_consistency=pb.Rate(right=profile.self_consistency.right, total=profile.self_consistency.total),
        left_share=pb.Interval(mean=profile.left_share.mean, low=profile.left_share.low, high=profile.left_share.high),
        median_seconds=profile.median_seconds,
        too_fast_share=profile.too_fast_share,
        weight=profile.weight,
        history=[pb.AccuracyPoint(unix_seconds=at, accuracy=mean) for at, mean in history],
    )


def agreement(found: Agreement) -> pb.Agreement:
    return pb.Agreement(value=found.value, undefined_because=found.undefined_because, items=found.items)


def report(found: Report) -> pb.GetLabelReportResponse:
    return pb.GetLabelReportResponse(
        open_tasks=found.counts.open,
        leased_tasks=found.counts.leased,
        complete_tasks=found.counts.complete,
        held_tasks=found.counts.held,
        gold_tasks=found.counts.gold,
        labels_by_outcome=found.labels_by_outcome,
        labels_by_source=found.labels_by_source,
        agreement=agreement(found.agreement),
        machines=[
            pb.PairAgreement(annotator=name, other="people", kappa=agreement(kappa))
            for name, kappa in found.machines.items()
        ],
        policies=[strength(row) for row in found.policies],
    )


def strength(row: Strength) -> pb.PolicyStrength:
    return pb.PolicyStrength(
        policy_version=int(row.name),
        strength=row.strength,
        low=row.low,
        high=row.high,
        win_rate=row.win_rate,
        comparisons=row.comparisons,
        note=row.note,
    )
