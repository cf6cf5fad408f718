from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_ABORTED: _ClassVar[FinishReason]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_FIRST: _ClassVar[Outcome]
    OUTCOME_SECOND: _ClassVar[Outcome]
    OUTCOME_TIE: _ClassVar[Outcome]
    OUTCOME_BOTH_BAD: _ClassVar[Outcome]
    OUTCOME_SKIP: _ClassVar[Outcome]

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_KIND_UNSPECIFIED: _ClassVar[TaskKind]
    TASK_KIND_COMPARISON: _ClassVar[TaskKind]
    TASK_KIND_GOLD: _ClassVar[TaskKind]
    TASK_KIND_REPEAT: _ClassVar[TaskKind]
    TASK_KIND_AUDIT: _ClassVar[TaskKind]

class AnnotatorState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANNOTATOR_STATE_UNSPECIFIED: _ClassVar[AnnotatorState]
    ANNOTATOR_STATE_OK: _ClassVar[AnnotatorState]
    ANNOTATOR_STATE_WARNED: _ClassVar[AnnotatorState]
    ANNOTATOR_STATE_QUARANTINED: _ClassVar[AnnotatorState]
    ANNOTATOR_STATE_EXCLUDED: _ClassVar[AnnotatorState]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_ABORTED: FinishReason
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_FIRST: Outcome
OUTCOME_SECOND: Outcome
OUTCOME_TIE: Outcome
OUTCOME_BOTH_BAD: Outcome
OUTCOME_SKIP: Outcome
TASK_KIND_UNSPECIFIED: TaskKind
TASK_KIND_COMPARISON: TaskKind
TASK_KIND_GOLD: TaskKind
TASK_KIND_REPEAT: TaskKind
TASK_KIND_AUDIT: TaskKind
ANNOTATOR_STATE_UNSPECIFIED: AnnotatorState
ANNOTATOR_STATE_OK: AnnotatorState
ANNOTATOR_STATE_WARNED: AnnotatorState
ANNOTATOR_STATE_QUARANTINED: AnnotatorState
ANNOTATOR_STATE_EXCLUDED: AnnotatorState

class Message(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("prompt_id", "messages", "reference_answer")
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_ANSWER_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    reference_answer: str
    def __init__(self, prompt_id: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., reference_answer: _Optional[str] = ...) -> None: ...

class SamplingSettings(_message.Message):
    __slots__ = ("temperature", "max_tokens", "top_p", "top_k", "seed", "stop")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    max_tokens: int
    top_p: float
    top_k: int
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, temperature: _Optional[float] = ..., max_tokens: _Optional[int] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("completion_id", "prompt_id", "group_id", "text", "prompt_token_ids", "token_ids", "logprobs", "finish_reason", "policy_version", "policy_digest", "temperature", "top_p", "top_k", "author")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    prompt_id: str
    group_id: str
    text: str
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    finish_reason: FinishReason
    policy_version: int
    policy_digest: str
    temperature: float
    top_p: float
    top_k: int
    author: str
    def __init__(self, completion_id: _Optional[str] = ..., prompt_id: _Optional[str] = ..., group_id: _Optional[str] = ..., text: _Optional[str] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., policy_version: _Optional[int] = ..., policy_digest: _Optional[str] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., author: _Optional[str] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("group_id", "prompt", "completions", "trace")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    prompt: Prompt
    completions: _containers.RepeatedCompositeFieldContainer[Completion]
    trace: str
    def __init__(self, group_id: _Optional[str] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., completions: _Optional[_Iterable[_Union[Completion, _Mapping]]] = ..., trace: _Optional[str] = ...) -> None: ...

class Reward(_message.Message):
    __slots__ = ("completion_id", "value", "labeler")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LABELER_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    value: float
    labeler: str
    def __init__(self, completion_id: _Optional[str] = ..., value: _Optional[float] = ..., labeler: _Optional[str] = ...) -> None: ...

class Abstention(_message.Message):
    __slots__ = ("completion_id", "labeler", "reason")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    LABELER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    labeler: str
    reason: str
    def __init__(self, completion_id: _Optional[str] = ..., labeler: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Side(_message.Message):
    __slots__ = ("policy_version", "policy_digest", "temperature", "top_p", "top_k")
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    policy_version: int
    policy_digest: str
    temperature: float
    top_p: float
    top_k: int
    def __init__(self, policy_version: _Optional[int] = ..., policy_digest: _Optional[str] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("label_id", "task_id", "group_id", "first_id", "second_id", "outcome", "annotator", "strength", "rationale", "presented_swapped", "duration_seconds", "kind", "aspects", "presented_at_unix_seconds", "guideline_version", "propensity", "first_side", "second_side")
    class AspectsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Outcome
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Outcome, str]] = ...) -> None: ...
    LABEL_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    SECOND_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    RATIONALE_FIELD_NUMBER: _ClassVar[int]
    PRESENTED_SWAPPED_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ASPECTS_FIELD_NUMBER: _ClassVar[int]
    PRESENTED_AT_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    FIRST_SIDE_FIELD_NUMBER: _ClassVar[int]
    SECOND_SIDE_FIELD_NUMBER: _ClassVar[int]
    label_id: str
    task_id: str
    group_id: str
    first_id: str
    second_id: str
    outcome: Outcome
    annotator: str
    strength: int
    rationale: str
    presented_swapped: bool
    duration_seconds: float
    kind: TaskKind
    aspects: _containers.ScalarMap[str, Outcome]
    presented_at_unix_seconds: float
    guideline_version: str
    propensity: float
    first_side: Side
    second_side: Side
    def __init__(self, label_id: _Optional[str] = ..., task_id: _Optional[str] = ..., group_id: _Optional[str] = ..., first_id: _Optional[str] = ..., second_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., annotator: _Optional[str] = ..., strength: _Optional[int] = ..., rationale: _Optional[str] = ..., presented_swapped: bool = ..., duration_seconds: _Optional[float] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., aspects: _Optional[_Mapping[str, Outcome]] = ..., presented_at_unix_seconds: _Optional[float] = ..., guideline_version: _Optional[str] = ..., propensity: _Optional[float] = ..., first_side: _Optional[_Union[Side, _Mapping]] = ..., second_side: _Optional[_Union[Side, _Mapping]] = ...) -> None: ...

class Retraction(_message.Message):
    __slots__ = ("label_id", "task_id", "group_id", "annotator")
    LABEL_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    label_id: str
    task_id: str
    group_id: str
    annotator: str
    def __init__(self, label_id: _Optional[str] = ..., task_id: _Optional[str] = ..., group_id: _Optional[str] = ..., annotator: _Optional[str] = ...) -> None: ...

class Preference(_message.Message):
    __slots__ = ("group_id", "first_id", "second_id", "p_first_wins", "weight", "strength", "p_both_bad", "task_id")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    SECOND_ID_FIELD_NUMBER: _ClassVar[int]
    P_FIRST_WINS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    P_BOTH_BAD_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    first_id: str
    second_id: str
    p_first_wins: float
    weight: float
    strength: float
    p_both_bad: float
    task_id: str
    def __init__(self, group_id: _Optional[str] = ..., first_id: _Optional[str] = ..., second_id: _Optional[str] = ..., p_first_wins: _Optional[float] = ..., weight: _Optional[float] = ..., strength: _Optional[float] = ..., p_both_bad: _Optional[float] = ..., task_id: _Optional[str] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("annotator", "state", "reason", "by")
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    annotator: str
    state: AnnotatorState
    reason: str
    by: str
    def __init__(self, annotator: _Optional[str] = ..., state: _Optional[_Union[AnnotatorState, str]] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("task_id", "annotator", "reason")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    annotator: str
    reason: str
    def __init__(self, task_id: _Optional[str] = ..., annotator: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "run_id", "group_id", "prompt", "first", "second", "guideline", "required_labels", "kind", "gold", "only_for", "priority", "language", "uncertainty", "p_policy")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_LABELS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    GOLD_FIELD_NUMBER: _ClassVar[int]
    ONLY_FOR_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    P_POLICY_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    run_id: str
    group_id: str
    prompt: Prompt
    first: Completion
    second: Completion
    guideline: str
    required_labels: int
    kind: TaskKind
    gold: Outcome
    only_for: str
    priority: int
    language: str
    uncertainty: float
    p_policy: float
    def __init__(self, task_id: _Optional[str] = ..., run_id: _Optional[str] = ..., group_id: _Optional[str] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., first: _Optional[_Union[Completion, _Mapping]] = ..., second: _Optional[_Union[Completion, _Mapping]] = ..., guideline: _Optional[str] = ..., required_labels: _Optional[int] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., gold: _Optional[_Union[Outcome, str]] = ..., only_for: _Optional[str] = ..., priority: _Optional[int] = ..., language: _Optional[str] = ..., uncertainty: _Optional[float] = ..., p_policy: _Optional[float] = ...) -> None: ...

class GateDecision(_message.Message):
    __slots__ = ("promote", "reasons", "numbers")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    promote: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.ScalarMap[str, float]
    def __init__(self, promote: bool = ..., reasons: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Mapping[str, float]] = ...) -> None: ...
