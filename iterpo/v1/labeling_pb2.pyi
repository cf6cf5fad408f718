from iterpo.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordCompletionsRequest(_message.Message):
    __slots__ = ("request_id", "run_id", "labeler", "groups")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LABELER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    run_id: str
    labeler: str
    groups: _containers.RepeatedCompositeFieldContainer[_types_pb2.Group]
    def __init__(self, request_id: _Optional[str] = ..., run_id: _Optional[str] = ..., labeler: _Optional[str] = ..., groups: _Optional[_Iterable[_Union[_types_pb2.Group, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("first_id", "second_id", "guideline", "required_labels")
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    SECOND_ID_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_LABELS_FIELD_NUMBER: _ClassVar[int]
    first_id: str
    second_id: str
    guideline: str
    required_labels: int
    def __init__(self, first_id: _Optional[str] = ..., second_id: _Optional[str] = ..., guideline: _Optional[str] = ..., required_labels: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("annotator", "max_tasks", "lease_seconds", "run_id")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    MAX_TASKS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    max_tasks: int
    lease_seconds: float
    run_id: str
    def __init__(self, annotator: _Optional[str] = ..., max_tasks: _Optional[int] = ..., lease_seconds: _Optional[float] = ..., run_id: _Optional[str] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "task", "expires_at_unix_seconds", "swapped")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SWAPPED_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    task: _types_pb2.Task
    expires_at_unix_seconds: float
    swapped: bool
    def __init__(self, lease_id: _Optional[str] = ..., task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., expires_at_unix_seconds: _Optional[float] = ..., swapped: bool = ...) -> None: ...

class LeaseTasksResponse(_message.Message):
    __slots__ = ("leases", "open_tasks")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    OPEN_TASKS_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    open_tasks: int
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., open_tasks: _Optional[int] = ...) -> None: ...

class LabelSubmission(_message.Message):
    __slots__ = ("request_id", "lease_id", "presented_outcome", "strength", "rationale", "duration_seconds")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    PRESENTED_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease_id: str
    presented_outcome: _types_pb2.Outcome
    strength: int
    rationale: str
    duration_seconds: float
    def __init__(self, request_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., presented_outcome: _Optional[_Union[_types_pb2.Outcome, str]] = ..., strength: _Optional[int] = ..., rationale: _Optional[str] = ..., duration_seconds: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("cursor", "event_id", "run_id", "created_at_unix_seconds", "group", "reward", "abstention", "task", "label")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ABSTENTION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    event_id: str
    run_id: str
    created_at_unix_seconds: float
    group: _types_pb2.Group
    reward: _types_pb2.Reward
    abstention: _types_pb2.Abstention
    task: _types_pb2.Task
    label: _types_pb2.Label
    def __init__(self, cursor: _Optional[int] = ..., event_id: _Optional[str] = ..., run_id: _Optional[str] = ..., created_at_unix_seconds: _Optional[float] = ..., group: _Optional[_Union[_types_pb2.Group, _Mapping]] = ..., reward: _Optional[_Union[_types_pb2.Reward, _Mapping]] = ..., abstention: _Optional[_Union[_types_pb2.Abstention, _Mapping]] = ..., task: _Optional[_Union[_types_pb2.Task, _Mapping]] = ..., label: _Optional[_Union[_types_pb2.Label, _Mapping]] = ...) -> None: ...

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
