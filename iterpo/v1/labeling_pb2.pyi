from iterpo.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordCompletionsRequest(_message.Message):
    __slots__ = ("request_id", "run_id", "labeler", "groups", "implicit_rewards")
    class ImplicitRewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LABELER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_REWARDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    run_id: str
    labeler: str
    groups: _containers.RepeatedCompositeFieldContainer[_types_pb2.Group]
    implicit_rewards: _containers.ScalarMap[str, float]
    def __init__(self, request_id: _Optional[str] = ..., run_id: _Optional[str] = ..., labeler: _Optional[str] = ..., groups: _Optional[_Iterable[_Union[_types_pb2.Group, _Mapping]]] = ..., implicit_rewards: _Optional[_Mapping[str, float]] = ...) -> None: ...

class RecordCompletionsResponse(_message.Message):
    __slots__ = ("event_ids", "duplicate")
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    duplicate: bool
    def __init__(self, event_ids: _Optional[_Iterable[str]] = ..., duplicate: bool = ...) -> None: ...

class ScoreCompletionsRequest(_message.Message):
    __slots__ = ("labeler", "items")
    LABELER_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    labeler: str
    items: _containers.RepeatedCompositeFieldContainer[ScoreItem]
    def __init__(self, labeler: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ScoreItem, _Mapping]]] = ...) -> None: ...

class ScoreItem(_message.Message):
    __slots__ = ("prompt", "completion")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt: _types_pb2.Prompt
    completion: _types_pb2.Completion
    def __init__(self, prompt: _Optional[_Union[_types_pb2.Prompt, _Mapping]] = ..., completion: _Optional[_Union[_types_pb2.Completion, _Mapping]] = ...) -> None: ...

class ScoreCompletionsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ScoreResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ScoreResult, _Mapping]]] = ...) -> None: ...

class ScoreResult(_message.Message):
    __slots__ = ("value", "abstained_reason")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_REASON_FIELD_NUMBER: _ClassVar[int]
    value: float
    abstained_reason: str
    def __init__(self, value: _Optional[float] = ..., abstained_reason: _Optional[str] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("first_id", "second_id", "guideline", "required_labels", "gold", "priority", "language", "uncertainty")
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    SECOND_ID_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_LABELS_FIELD_NUMBER: _ClassVar[int]
    GOLD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    first_id: str
    second_id: str
    guideline: str
    required_labels: float
    gold: _types_pb2.Outcome
    priority: int
    language: str
    uncertainty: float
    def __init__(self, first_id: _Optional[str] = ..., second_id: _Optional[str] = ..., guideline: _Optional[str] = ..., required_labels: _Optional[float] = ..., gold: _Optional[_Union[_types_pb2.Outcome, str]] = ..., priority: _Optional[int] = ..., language: _Optional[str] = ..., uncertainty: _Optional[float] = ...) -> None: ...

class CreateTasksRequest(_message.Message):
    __slots__ = ("request_id", "run_id", "tasks")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    run_id: str
    tasks: _containers.RepeatedCompositeFieldContainer[TaskSpec]
    def __init__(self, request_id: _Optional[str] = ..., run_id: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[TaskSpec, _Mapping]]] = ...) -> None: ...

class CreateTasksResponse(_message.Message):
    __slots__ = ("task_ids", "duplicate")
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    duplicate: bool
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ..., duplicate: bool = ...) -> None: ...

class LeaseTasksRequest(_message.Message):
    __slots__ = ("annotator", "max_tasks", "lease_seconds", "run_id", "guideline", "languages", "resume")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    MAX_TASKS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    max_tasks: int
    lease_seconds: float
    run_id: str
    guideline: str
    languages: _containers.RepeatedScalarFieldContainer[str]
    resume: bool
    def __init__(self, annotator: _Optional[str] = ..., max_tasks: _Optional[int] = ..., lease_seconds: _Optional[float] = ..., run_id: _Optional[str] = ..., guideline: _Optional[str] = ..., languages: _Optional[_Iterable[str]] = ..., resume: bool = ...) -> None: ...

class Guideline(_message.Message):
    __slots__ = ("name", "version", "text", "aspects")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ASPECTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    text: str
    aspects: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., text: _Optional[str] = ..., aspects: _Optional[_Iterable[str]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "task", "expires_at_unix_seconds", "swapped", "guideline")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    task: _types_pb2.Task
    expires_at_unix_seconds: float
    swapped: bool
    guideline: Guideline
    def __init__(self, lease_id: _Optional[str] = ..., task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., expires_at_unix_seconds: _Optional[float] = ..., swapped: bool = ..., guideline: _Optional[_Union[Guideline, _Mapping]] = ...) -> None: ...

class LeaseTasksResponse(_message.Message):
    __slots__ = ("leases", "open_tasks")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    OPEN_TASKS_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    open_tasks: int
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., open_tasks: _Optional[int] = ...) -> None: ...

class ExtendLeaseRequest(_message.Message):
    __slots__ = ("annotator", "lease_id", "lease_seconds")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    lease_id: str
    lease_seconds: float
    def __init__(self, annotator: _Optional[str] = ..., lease_id: _Optional[str] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class ExtendLeaseResponse(_message.Message):
    __slots__ = ("expires_at_unix_seconds",)
    EXPIRES_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    expires_at_unix_seconds: float
    def __init__(self, expires_at_unix_seconds: _Optional[float] = ...) -> None: ...

class ReleaseTaskRequest(_message.Message):
    __slots__ = ("annotator", "lease_id", "reason")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    lease_id: str
    reason: str
    def __init__(self, annotator: _Optional[str] = ..., lease_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReleaseTaskResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LabelSubmission(_message.Message):
    __slots__ = ("request_id", "lease_id", "presented_outcome", "strength", "rationale", "duration_seconds", "presented_aspects")
    class PresentedAspectsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Outcome
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Outcome, str]] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    PRESENTED_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PRESENTED_ASPECTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease_id: str
    presented_outcome: _types_pb2.Outcome
    strength: int
    rationale: str
    duration_seconds: float
    presented_aspects: _containers.ScalarMap[str, _types_pb2.Outcome]
    def __init__(self, request_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., presented_outcome: _Optional[_Union[_types_pb2.Outcome, str]] = ..., strength: _Optional[int] = ..., rationale: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., presented_aspects: _Optional[_Mapping[str, _types_pb2.Outcome]] = ...) -> None: ...

class SubmitLabelsRequest(_message.Message):
    __slots__ = ("annotator", "labels")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    labels: _containers.RepeatedCompositeFieldContainer[LabelSubmission]
    def __init__(self, annotator: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[LabelSubmission, _Mapping]]] = ...) -> None: ...

class SubmitResult(_message.Message):
    __slots__ = ("request_id", "accepted", "refused_reason", "duplicate", "event_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    accepted: bool
    refused_reason: str
    duplicate: bool
    event_id: str
    def __init__(self, request_id: _Optional[str] = ..., accepted: bool = ..., refused_reason: _Optional[str] = ..., duplicate: bool = ..., event_id: _Optional[str] = ...) -> None: ...

class SubmitLabelsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubmitResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SubmitResult, _Mapping]]] = ...) -> None: ...

class UndoLabelRequest(_message.Message):
    __slots__ = ("request_id", "annotator", "event_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    annotator: str
    event_id: str
    def __init__(self, request_id: _Optional[str] = ..., annotator: _Optional[str] = ..., event_id: _Optional[str] = ...) -> None: ...

class UndoLabelResponse(_message.Message):
    __slots__ = ("lease", "duplicate")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    duplicate: bool
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., duplicate: bool = ...) -> None: ...

class AnnotateRequest(_message.Message):
    __slots__ = ("start", "labels", "extend", "release", "credit", "heartbeat")
    START_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    EXTEND_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    start: AnnotateStart
    labels: AnnotateLabels
    extend: ExtendLeaseRequest
    release: ReleaseTaskRequest
    credit: AnnotateCredit
    heartbeat: AnnotateHeartbeat
    def __init__(self, start: _Optional[_Union[AnnotateStart, _Mapping]] = ..., labels: _Optional[_Union[AnnotateLabels, _Mapping]] = ..., extend: _Optional[_Union[ExtendLeaseRequest, _Mapping]] = ..., release: _Optional[_Union[ReleaseTaskRequest, _Mapping]] = ..., credit: _Optional[_Union[AnnotateCredit, _Mapping]] = ..., heartbeat: _Optional[_Union[AnnotateHeartbeat, _Mapping]] = ...) -> None: ...

class AnnotateStart(_message.Message):
    __slots__ = ("annotator", "run_id", "guideline", "languages", "lease_seconds", "credit")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    run_id: str
    guideline: str
    languages: _containers.RepeatedScalarFieldContainer[str]
    lease_seconds: float
    credit: int
    def __init__(self, annotator: _Optional[str] = ..., run_id: _Optional[str] = ..., guideline: _Optional[str] = ..., languages: _Optional[_Iterable[str]] = ..., lease_seconds: _Optional[float] = ..., credit: _Optional[int] = ...) -> None: ...

class AnnotateLabels(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[LabelSubmission]
    def __init__(self, labels: _Optional[_Iterable[_Union[LabelSubmission, _Mapping]]] = ...) -> None: ...

class AnnotateCredit(_message.Message):
    __slots__ = ("credit",)
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    credit: int
    def __init__(self, credit: _Optional[int] = ...) -> None: ...

class AnnotateHeartbeat(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class AnnotateResponse(_message.Message):
    __slots__ = ("leases", "results", "extended", "released_lease_ids", "heartbeat", "open_tasks")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    OPEN_TASKS_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    results: _containers.RepeatedCompositeFieldContainer[SubmitResult]
    extended: _containers.RepeatedCompositeFieldContainer[LeaseEnd]
    released_lease_ids: _containers.RepeatedScalarFieldContainer[str]
    heartbeat: AnnotateHeartbeat
    open_tasks: int
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[SubmitResult, _Mapping]]] = ..., extended: _Optional[_Iterable[_Union[LeaseEnd, _Mapping]]] = ..., released_lease_ids: _Optional[_Iterable[str]] = ..., heartbeat: _Optional[_Union[AnnotateHeartbeat, _Mapping]] = ..., open_tasks: _Optional[int] = ...) -> None: ...

class LeaseEnd(_message.Message):
    __slots__ = ("lease_id", "expires_at_unix_seconds", "refused_reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    expires_at_unix_seconds: float
    refused_reason: str
    def __init__(self, lease_id: _Optional[str] = ..., expires_at_unix_seconds: _Optional[float] = ..., refused_reason: _Optional[str] = ...) -> None: ...

class SubmitFeedbackRequest(_message.Message):
    __slots__ = ("request_id", "run_id", "user", "served", "kept", "thumb", "edited")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    THUMB_FIELD_NUMBER: _ClassVar[int]
    EDITED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    run_id: str
    user: str
    served: _types_pb2.Group
    kept: Kept
    thumb: Thumb
    edited: Edited
    def __init__(self, request_id: _Optional[str] = ..., run_id: _Optional[str] = ..., user: _Optional[str] = ..., served: _Optional[_Union[_types_pb2.Group, _Mapping]] = ..., kept: _Optional[_Union[Kept, _Mapping]] = ..., thumb: _Optional[_Union[Thumb, _Mapping]] = ..., edited: _Optional[_Union[Edited, _Mapping]] = ...) -> None: ...

class Kept(_message.Message):
    __slots__ = ("completion_id", "over_completion_id", "strength")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    OVER_COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    over_completion_id: str
    strength: int
    def __init__(self, completion_id: _Optional[str] = ..., over_completion_id: _Optional[str] = ..., strength: _Optional[int] = ...) -> None: ...

class Thumb(_message.Message):
    __slots__ = ("completion_id", "up")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    up: bool
    def __init__(self, completion_id: _Optional[str] = ..., up: bool = ...) -> None: ...

class Edited(_message.Message):
    __slots__ = ("completion_id", "text")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    text: str
    def __init__(self, completion_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class SubmitFeedbackResponse(_message.Message):
    __slots__ = ("event_ids", "duplicate")
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    duplicate: bool
    def __init__(self, event_ids: _Optional[_Iterable[str]] = ..., duplicate: bool = ...) -> None: ...

class StreamFeedbackRequest(_message.Message):
    __slots__ = ("run_id", "cursor", "idle_seconds")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    cursor: int
    idle_seconds: float
    def __init__(self, run_id: _Optional[str] = ..., cursor: _Optional[int] = ..., idle_seconds: _Optional[float] = ...) -> None: ...

class StreamFeedbackResponse(_message.Message):
    __slots__ = ("cursor", "event_id", "run_id", "created_at_unix_seconds", "group", "reward", "abstention", "task", "label", "retraction", "preference", "standing", "release")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ABSTENTION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    RETRACTION_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    event_id: str
    run_id: str
    created_at_unix_seconds: float
    group: _types_pb2.Group
    reward: _types_pb2.Reward
    abstention: _types_pb2.Abstention
    task: _types_pb2.Task
    label: _types_pb2.Label
    retraction: _types_pb2.Retraction
    preference: _types_pb2.Preference
    standing: _types_pb2.Standing
    release: _types_pb2.Release
    def __init__(self, cursor: _Optional[int] = ..., event_id: _Optional[str] = ..., run_id: _Optional[str] = ..., created_at_unix_seconds: _Optional[float] = ..., group: _Optional[_Union[_types_pb2.Group, _Mapping]] = ..., reward: _Optional[_Union[_types_pb2.Reward, _Mapping]] = ..., abstention: _Optional[_Union[_types_pb2.Abstention, _Mapping]] = ..., task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., label: _Optional[_Union[_types_pb2.Label, _Mapping]] = ..., retraction: _Optional[_Union[_types_pb2.Retraction, _Mapping]] = ..., preference: _Optional[_Union[_types_pb2.Preference, _Mapping]] = ..., standing: _Optional[_Union[_types_pb2.Standing, _Mapping]] = ..., release: _Optional[_Union[_types_pb2.Release, _Mapping]] = ...) -> None: ...

class ListLabelersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LabelerInfo(_message.Message):
    __slots__ = ("name", "kind", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    description: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class ListLabelersResponse(_message.Message):
    __slots__ = ("labelers",)
    LABELERS_FIELD_NUMBER: _ClassVar[int]
    labelers: _containers.RepeatedCompositeFieldContainer[LabelerInfo]
    def __init__(self, labelers: _Optional[_Iterable[_Union[LabelerInfo, _Mapping]]] = ...) -> None: ...

class ListAnnotatorsRequest(_message.Message):
    __slots__ = ("annotator",)
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    def __init__(self, annotator: _Optional[str] = ...) -> None: ...

class Rate(_message.Message):
    __slots__ = ("right", "total")
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    right: int
    total: int
    def __init__(self, right: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("mean", "low", "high")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    mean: float
    low: float
    high: float
    def __init__(self, mean: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Annotator(_message.Message):
    __slots__ = ("annotator", "state", "reasons", "labels", "accuracy", "gold", "self_consistency", "left_share", "median_seconds", "too_fast_share", "weight", "history", "labels_today")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    GOLD_FIELD_NUMBER: _ClassVar[int]
    SELF_CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    LEFT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOO_FAST_SHARE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LABELS_TODAY_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    state: _types_pb2.AnnotatorState
    reasons: _containers.RepeatedScalarFieldContainer[str]
    labels: int
    accuracy: Interval
    gold: Rate
    self_consistency: Rate
    left_share: Interval
    median_seconds: float
    too_fast_share: float
    weight: float
    history: _containers.RepeatedCompositeFieldContainer[AccuracyPoint]
    labels_today: int
    def __init__(self, annotator: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.AnnotatorState, str]] = ..., reasons: _Optional[_Iterable[str]] = ..., labels: _Optional[int] = ..., accuracy: _Optional[_Union[Interval, _Mapping]] = ..., gold: _Optional[_Union[Rate, _Mapping]] = ..., self_consistency: _Optional[_Union[Rate, _Mapping]] = ..., left_share: _Optional[_Union[Interval, _Mapping]] = ..., median_seconds: _Optional[float] = ..., too_fast_share: _Optional[float] = ..., weight: _Optional[float] = ..., history: _Optional[_Iterable[_Union[AccuracyPoint, _Mapping]]] = ..., labels_today: _Optional[int] = ...) -> None: ...

class AccuracyPoint(_message.Message):
    __slots__ = ("unix_seconds", "accuracy")
    UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    unix_seconds: float
    accuracy: float
    def __init__(self, unix_seconds: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...

class ListAnnotatorsResponse(_message.Message):
    __slots__ = ("annotators",)
    ANNOTATORS_FIELD_NUMBER: _ClassVar[int]
    annotators: _containers.RepeatedCompositeFieldContainer[Annotator]
    def __init__(self, annotators: _Optional[_Iterable[_Union[Annotator, _Mapping]]] = ...) -> None: ...

class SetAnnotatorStateRequest(_message.Message):
    __slots__ = ("request_id", "annotator", "state", "reason", "by")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    annotator: str
    state: _types_pb2.AnnotatorState
    reason: str
    by: str
    def __init__(self, request_id: _Optional[str] = ..., annotator: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.AnnotatorState, str]] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class SetAnnotatorStateResponse(_message.Message):
    __slots__ = ("revised_preferences", "duplicate")
    REVISED_PREFERENCES_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    revised_preferences: int
    duplicate: bool
    def __init__(self, revised_preferences: _Optional[int] = ..., duplicate: bool = ...) -> None: ...

class GetLabelReportRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("value", "undefined_because", "items")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNDEFINED_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    value: float
    undefined_because: str
    items: int
    def __init__(self, value: _Optional[float] = ..., undefined_because: _Optional[str] = ..., items: _Optional[int] = ...) -> None: ...

class PairAgreement(_message.Message):
    __slots__ = ("annotator", "other", "kappa")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    KAPPA_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    other: str
    kappa: Agreement
    def __init__(self, annotator: _Optional[str] = ..., other: _Optional[str] = ..., kappa: _Optional[_Union[Agreement, _Mapping]] = ...) -> None: ...

class PolicyStrength(_message.Message):
    __slots__ = ("policy_version", "strength", "low", "high", "win_rate", "comparisons", "note")
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    WIN_RATE_FIELD_NUMBER: _ClassVar[int]
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    policy_version: int
    strength: float
    low: float
    high: float
    win_rate: float
    comparisons: float
    note: str
    def __init__(self, policy_version: _Optional[int] = ..., strength: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., win_rate: _Optional[float] = ..., comparisons: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...

class GetLabelReportResponse(_message.Message):
    __slots__ = ("open_tasks", "leased_tasks", "complete_tasks", "held_tasks", "gold_tasks", "labels_by_outcome", "labels_by_source", "agreement", "machines", "policies")
    class LabelsByOutcomeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class LabelsBySourceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    OPEN_TASKS_FIELD_NUMBER: _ClassVar[int]
    LEASED_TASKS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_TASKS_FIELD_NUMBER: _ClassVar[int]
    HELD_TASKS_FIELD_NUMBER: _ClassVar[int]
    GOLD_TASKS_FIELD_NUMBER: _ClassVar[int]
    LABELS_BY_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    LABELS_BY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    MACHINES_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    open_tasks: int
    leased_tasks: int
    complete_tasks: int
    held_tasks: int
    gold_tasks: int
    labels_by_outcome: _containers.ScalarMap[str, int]
    labels_by_source: _containers.ScalarMap[str, int]
    agreement: Agreement
    machines: _containers.RepeatedCompositeFieldContainer[PairAgreement]
    policies: _containers.RepeatedCompositeFieldContainer[PolicyStrength]
    def __init__(self, open_tasks: _Optional[int] = ..., leased_tasks: _Optional[int] = ..., complete_tasks: _Optional[int] = ..., held_tasks: _Optional[int] = ..., gold_tasks: _Optional[int] = ..., labels_by_outcome: _Optional[_Mapping[str, int]] = ..., labels_by_source: _Optional[_Mapping[str, int]] = ..., agreement: _Optional[_Union[Agreement, _Mapping]] = ..., machines: _Optional[_Iterable[_Union[PairAgreement, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[PolicyStrength, _Mapping]]] = ...) -> None: ...
