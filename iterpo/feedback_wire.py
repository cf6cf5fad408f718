"""Feedback <-> protobuf: rewards, tasks, leases, labels, preferences, and the events that hold them.

As in `wire`: `x_to_proto` never fails on a valid domain object; `x_from_proto` raises InvalidInput for what the domain
cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from iterpo.errors import InvalidInput
from iterpo.types import (
    EVENT_BODIES,
    Abstention,
    AnnotatorState,
    Completion,
    FeedbackEvent,
    Label,
    Lease,
    Outcome,
    Preference,
    Release,
    Retraction,
    Reward,
    Side,
    Standing,
    Task,
    TaskKind,
)
from iterpo.v1 import labeling_pb2, types_pb2
from iterpo.wire import (
    completion_from_proto,
    completion_to_proto,
    group_from_proto,
    group_to_proto,
    prompt_from_proto,
    prompt_to_proto,
)

_OUTCOMES: dict[Outcome, Any] = {outcome: types_pb2.Outcome.Value(f"OUTCOME_{outcome.name}") for outcome in Outcome}
_KINDS: dict[TaskKind, Any] = {kind: types_pb2.TaskKind.Value(f"TASK_KIND_{kind.name}") for kind in TaskKind}
_STATES: dict[AnnotatorState, Any] = {
    state: types_pb2.AnnotatorState.Value(f"ANNOTATOR_STATE_{state.name}") for state in AnnotatorState
}
_OUTCOME_OF = {number: outcome for outcome, number in _OUTCOMES.items()}
_KIND_OF = {number: kind for kind, number in _KINDS.items()} | {0: TaskKind.COMPARISON}
_STATE_OF = {number: state for state, number in _STATES.items()}


def reward_to_proto(reward: Reward) -> types_pb2.Reward:
    return types_pb2.Reward(completion_id=reward.completion_id, value=reward.value, labeler=reward.labeler)


def reward_from_proto(reward: types_pb2.Reward) -> Reward:
    return Reward(reward.completion_id, reward.value, reward.labeler)


def abstention_to_proto(abstention: Abstention) -> types_pb2.Abstention:
    return types_pb2.Abstention(
        completion_id=abstention.completion_id, labeler=abstention.labeler, reason=abstention.reason
    )


def abstention_from_proto(abstention: types_pb2.Abstention) -> Abstention:
    return Abstention(abstention.completion_id, abstention.labeler, abstention.reason)


def outcome_to_proto(outcome: Outcome) -> types_pb2.Outcome:
    return _OUTCOMES[outcome]  # type: ignore[no-any-return]  # an enum value


def outcome_from_proto(outcome: types_pb2.Outcome) -> Outcome:
    found = _OUTCOME_OF.get(outcome)
    if found is None:
        raise InvalidInput(
            f"A label has no outcome that is known ({int(outcome)}).", "Set it to FIRST, SECOND, TIE, BOTH_BAD or SKIP."
        )
    return found


def aspects_to_proto(aspects: Mapping[str, Outcome]) -> dict[str, types_pb2.Outcome]:
    return {name: _OUTCOMES[outcome] for name, outcome in aspects.items()}


def aspects_from_proto(aspects: Mapping[str, types_pb2.Outcome]) -> dict[str, Outcome]:
    """In the order of their names: a protobuf map has none, and a repeated label must look the same every time."""
    return {name: outcome_from_proto(aspects[name]) for name in sorted(aspects)}


def side_to_proto(side: Side) -> types_pb2.Side:
    return types_pb2.Side(
        policy_version=side.policy_version,
        policy_digest=side.policy_digest,
        temperature=side.temperature,
        top_p=side.top_p,
        top_k=side.top_k,
    )


def side_from_proto(side: types_pb2.Side) -> Side:
    return Side(side.policy_version, side.policy_digest, side.temperature, side.top_p or 1.0, side.top_k)


def label_to_proto(label: Label) -> types_pb2.Label:
    return types_pb2.Label(
        label_id=label.label_id,
        task_id=label.task_id,
        group_id=label.group_id,
        first_id=label.first_id,
        second_id=label.second_id,
        outcome=_OUTCOMES[label.outcome],
        annotator=label.annotator,
        strength=label.strength,
        rationale=label.rationale,
        presented_swapped=label.presented_swapped,
        duration_seconds=label.duration_seconds,
        kind=_KINDS[label.kind],
        aspects=aspects_to_proto(label.aspects),
        presented_at_unix_seconds=label.presented_at,
        guideline_version=label.guideline_version,
        propensity=label.propensity,
        first_side=side_to_proto(label.first_side),
        second_side=side_to_proto(label.second_side),
    )


def label_from_proto(label: types_pb2.Label) -> Label:
    return Label(
        label_id=label.label_id,
        task_id=label.task_id,
        group_id=label.group_id,
        first_id=label.first_id,
        second_id=label.second_id,
        outcome=outcome_from_proto(label.outcome),
        annotator=label.annotator,
        strength=label.strength,
        rationale=label.rationale,
        presented_swapped=label.presented_swapped,
        duration_seconds=label.duration_seconds,
        kind=_KIND_OF[label.kind],
        aspects=aspects_from_proto(label.aspects),
        presented_at=label.presented_at_unix_seconds,
        guideline_version=label.guideline_version,
        propensity=label.propensity or 1.0,
        first_side=side_from_proto(label.first_side),
        second_side=side_from_proto(label.second_side),
    )


def preference_to_proto(preference: Preference) -> types_pb2.Preference:
    return types_pb2.Preference(
        group_id=preference.group_id,
        first_id=preference.first_id,
        second_id=preference.second_id,
        p_first_wins=preference.p_first_wins,
        weight=preference.weight,
        strength=preference.strength,
        p_both_bad=preference.p_both_bad,
        task_id=preference.task_id,
    )


def preference_from_proto(preference: types_pb2.Preference) -> Preference:
    return Preference(
        preference.group_id,
        preference.first_id,
        preference.second_id,
        preference.p_first_wins,
        preference.weight,
        preference.strength,
        preference.p_both_bad,
        preference.task_id,
    )


def retraction_to_proto(retraction: Retraction) -> types_pb2.Retraction:
    return types_pb2.Retraction(
        label_id=retraction.label_id,
        task_id=retraction.task_id,
        group_id=retraction.group_id,
        annotator=retraction.annotator,
    )


def retraction_from_proto(retraction: types_pb2.Retraction) -> Retraction:
    return Retraction(retraction.label_id, retraction.task_id, retraction.group_id, retraction.annotator)


def state_to_proto(state: AnnotatorState) -> types_pb2.AnnotatorState:
    return _STATES[state]  # type: ignore[no-any-return]  # an enum value


def state_from_proto(state: types_pb2.AnnotatorState) -> AnnotatorState:
    found = _STATE_OF.get(state)
    if found is None:
        raise InvalidInput(f"There is no annotator state {int(state)}.", "Set it to EXCLUDED, or OK to readmit.")
    return found


def standing_to_proto(standing: Standing) -> types_pb2.Standing:
    return types_pb2.Standing(
        annotator=standing.annotator, state=_STATES[standing.state], reason=standing.reason, by=standing.by
    )


def standing_from_proto(standing: types_pb2.Standing) -> Standing:
    return Standing(standing.annotator, state_from_proto(standing.state), standing.reason, standing.by)


def release_to_proto(release: Release) -> types_pb2.Release:
    return types_pb2.Release(task_id=release.task_id, annotator=release.annotator, reason=release.reason)


def release_from_proto(release: types_pb2.Release) -> Release:
    return Release(release.task_id, release.annotator, release.reason)


def task_to_proto(task: Task) -> types_pb2.Task:
    return types_pb2.Task(
        task_id=task.task_id,
        run_id=task.run_id,
        group_id=task.group_id,
        prompt=prompt_to_proto(task.prompt),
        first=completion_to_proto(task.first),
        second=completion_to_proto(task.second),
        guideline=task.guideline,
        required_labels=task.required_labels,
        kind=_KINDS[task.kind],
        gold=_OUTCOMES[task.gold] if task.gold else types_pb2.OUTCOME_UNSPECIFIED,
        only_for=task.only_for,
        priority=task.priority,
        language=task.language,
        uncertainty=task.uncertainty,
        p_policy=task.p_policy,
    )


def task_from_proto(task: types_pb2.Task) -> Task:
    return Task(
        task_id=task.task_id,
        run_id=task.run_id,
        group_id=task.group_id,
        prompt=prompt_from_proto(task.prompt),
        first=completion_from_proto(task.first),
        second=completion_from_proto(task.second),
        guideline=task.guideline,
        required_labels=task.required_labels,
        kind=_KIND_OF[task.kind],
        gold=_OUTCOME_OF.get(task.gold),
        only_for=task.only_for,
        priority=task.priority,
        language=task.language,
        uncertainty=task.uncertainty if task.HasField("uncertainty") else 1.0,
        p_policy=task.p_policy if task.HasField("p_policy") else None,
    )


def shown(task: Task) -> Task:
    """What an annotator may see of a task: the texts, and neither the right answer nor who wrote what, nor whether it
    is a gold task or a repeat."""
    return replace(
        task,
        run_id="",
        first=_anonymous(task.first),
        second=_anonymous(task.second),
        kind=TaskKind.COMPARISON,
        gold=None,
        only_for="",
        priority=0,
        uncertainty=1.0,
        p_policy=None,
        required_labels=1,
        prompt=replace(task.prompt, reference_answer=""),
    )


def _anonymous(completion: Completion) -> Completion:
    return Completion(
        completion_id=completion.completion_id,
        prompt_id=completion.prompt_id,
        group_id=completion.group_id,
        text=completion.text,
        prompt_token_ids=(),
        token_ids=(),
        logprobs=(),
        finish_reason=completion.finish_reason,
        policy_version=0,
        policy_digest="",
    )


def lease_from_proto(lease: labeling_pb2.Lease, annotator: str) -> Lease:
    return Lease(lease.lease_id, task_from_proto(lease.task), annotator, lease.expires_at_unix_seconds, lease.swapped)


_TO_PROTO: dict[str, Callable[[Any], Any]] = {
    "group": group_to_proto,
    "reward": reward_to_proto,
    "abstention": abstention_to_proto,
    "task": task_to_proto,
    "label": label_to_proto,
    "retraction": retraction_to_proto,
    "preference": preference_to_proto,
    "standing": standing_to_proto,
    "release": release_to_proto,
}
_FROM_PROTO: dict[str, Callable[[Any], Any]] = {
    "group": group_from_proto,
    "reward": reward_from_proto,
    "abstention": abstention_from_proto,
    "task": task_from_proto,
    "label": label_from_proto,
    "retraction": retraction_from_proto,
    "preference": preference_from_proto,
    "standing": standing_from_proto,
    "release": release_from_proto,
}
assert _TO_PROTO.keys() == _FROM_PROTO.keys() == EVENT_BODIES.keys()


def event_to_proto(event: FeedbackEvent) -> labeling_pb2.StreamFeedbackResponse:
    kind = event.kind
    message = event_message(event.event_id, event.run_id, event.created_at, kind, getattr(event, kind))
    message.cursor = event.cursor
    return message


def event_message(
    event_id: str, run_id: str, created_at: float, kind: str, body: Any
) -> labeling_pb2.StreamFeedbackResponse:
    """An event that has no cursor yet; `kind` names its field."""
    return labeling_pb2.StreamFeedbackResponse(
        event_id=event_id, run_id=run_id, created_at_unix_seconds=created_at, **{kind: _TO_PROTO[kind](body)}
    )


def event_from_proto(event: labeling_pb2.StreamFeedbackResponse) -> FeedbackEvent:
    """Raises InvalidInput for an event without a body that this iterpo knows."""
    kind = event.WhichOneof("body")
    if kind is None:
        raise InvalidInput(f"Event {event.event_id!r} has no body.", "Read it with the iterpo that wrote it.")
    body = {kind: _FROM_PROTO[kind](getattr(event, kind))}
    return FeedbackEvent(event.cursor, event.event_id, event.run_id, event.created_at_unix_seconds, **body)
