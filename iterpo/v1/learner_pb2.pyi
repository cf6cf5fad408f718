from google.protobuf import struct_pb2 as _struct_pb2
from iterpo.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_WAITING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_STOPPED: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]
    RUN_STATE_INTERRUPTED: _ClassVar[RunState]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_WAITING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_STOPPED: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_FAILED: RunState
RUN_STATE_INTERRUPTED: RunState

class Run(_message.Message):
    __slots__ = ("run_id", "algorithm", "state", "status", "iteration", "iterations", "policy_version", "heldout_reward_before", "heldout_reward", "replay_of")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_REWARD_BEFORE_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_REWARD_FIELD_NUMBER: _ClassVar[int]
    REPLAY_OF_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    algorithm: str
    state: RunState
    status: str
    iteration: int
    iterations: int
    policy_version: int
    heldout_reward_before: float
    heldout_reward: float
    replay_of: ReplayOf
    def __init__(self, run_id: _Optional[str] = ..., algorithm: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., status: _Optional[str] = ..., iteration: _Optional[int] = ..., iterations: _Optional[int] = ..., policy_version: _Optional[int] = ..., heldout_reward_before: _Optional[float] = ..., heldout_reward: _Optional[float] = ..., replay_of: _Optional[_Union[ReplayOf, _Mapping]] = ...) -> None: ...

class ReplayOf(_message.Message):
    __slots__ = ("run_id", "first_iteration", "without")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ITERATION_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    first_iteration: int
    without: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[str] = ..., first_iteration: _Optional[int] = ..., without: _Optional[_Iterable[str]] = ...) -> None: ...

class IterationRow(_message.Message):
    __slots__ = ("iteration", "policy_version", "promoted", "proved", "train_reward", "heldout_reward", "kl_nats", "swap_seconds", "load_seconds", "tokens_per_second", "seconds", "metrics", "decision")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    PROVED_FIELD_NUMBER: _ClassVar[int]
    TRAIN_REWARD_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_REWARD_FIELD_NUMBER: _ClassVar[int]
    KL_NATS_FIELD_NUMBER: _ClassVar[int]
    SWAP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    policy_version: int
    promoted: bool
    proved: bool
    train_reward: float
    heldout_reward: float
    kl_nats: float
    swap_seconds: float
    load_seconds: float
    tokens_per_second: float
    seconds: float
    metrics: _containers.ScalarMap[str, float]
    decision: _types_pb2.GateDecision
    def __init__(self, iteration: _Optional[int] = ..., policy_version: _Optional[int] = ..., promoted: bool = ..., proved: bool = ..., train_reward: _Optional[float] = ..., heldout_reward: _Optional[float] = ..., kl_nats: _Optional[float] = ..., swap_seconds: _Optional[float] = ..., load_seconds: _Optional[float] = ..., tokens_per_second: _Optional[float] = ..., seconds: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., decision: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("prompt", "answers", "p_first_wins", "difficulty")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    P_FIRST_WINS_FIELD_NUMBER: _ClassVar[int]
    DIFFICULTY_FIELD_NUMBER: _ClassVar[int]
    prompt: _types_pb2.Prompt
    answers: _containers.RepeatedScalarFieldContainer[str]
    p_first_wins: float
    difficulty: float
    def __init__(self, prompt: _Optional[_Union[_types_pb2.Prompt, _Mapping]] = ..., answers: _Optional[_Iterable[str]] = ..., p_first_wins: _Optional[float] = ..., difficulty: _Optional[float] = ...) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("run_id", "config", "examples", "heldout", "request_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    config: _struct_pb2.Struct
    examples: _containers.RepeatedCompositeFieldContainer[Example]
    heldout: _containers.RepeatedCompositeFieldContainer[Example]
    request_id: str
    def __init__(self, run_id: _Optional[str] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., examples: _Optional[_Iterable[_Union[Example, _Mapping]]] = ..., heldout: _Optional[_Iterable[_Union[Example, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class StartRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class PauseRunRequest(_message.Message):
    __slots__ = ("run_id", "request_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    request_id: str
    def __init__(self, run_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PauseRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ResumeRunRequest(_message.Message):
    __slots__ = ("run_id", "request_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    request_id: str
    def __init__(self, run_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResumeRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run_id", "request_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    request_id: str
    def __init__(self, run_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id", "after", "most_rows")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MOST_ROWS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    after: int
    most_rows: int
    def __init__(self, run_id: _Optional[str] = ..., after: _Optional[int] = ..., most_rows: _Optional[int] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run", "rows")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    run: Run
    rows: _containers.RepeatedCompositeFieldContainer[IterationRow]
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[IterationRow, _Mapping]]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("run", "row")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    run: Run
    row: IterationRow
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., row: _Optional[_Union[IterationRow, _Mapping]] = ...) -> None: ...

class ListTouchedRequest(_message.Message):
    __slots__ = ("event_ids", "annotator")
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    annotator: str
    def __init__(self, event_ids: _Optional[_Iterable[str]] = ..., annotator: _Optional[str] = ...) -> None: ...

class TouchedIteration(_message.Message):
    __slots__ = ("run_id", "iteration", "policy_version")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    iteration: int
    policy_version: int
    def __init__(self, run_id: _Optional[str] = ..., iteration: _Optional[int] = ..., policy_version: _Optional[int] = ...) -> None: ...

class ListTouchedResponse(_message.Message):
    __slots__ = ("iterations",)
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    iterations: _containers.RepeatedCompositeFieldContainer[TouchedIteration]
    def __init__(self, iterations: _Optional[_Iterable[_Union[TouchedIteration, _Mapping]]] = ...) -> None: ...

class ReplayRunRequest(_message.Message):
    __slots__ = ("request_id", "run_id", "replay_id", "first_iteration", "without")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAY_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ITERATION_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    run_id: str
    replay_id: str
    first_iteration: int
    without: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., run_id: _Optional[str] = ..., replay_id: _Optional[str] = ..., first_iteration: _Optional[int] = ..., without: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplayRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ListAlgorithmsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AlgorithmInfo(_message.Message):
    __slots__ = ("name", "prompt_sampling", "response_sampling", "gradient_coefficient", "normalizer", "reference", "source", "defaults", "formula", "not_implemented")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_COEFFICIENT_FIELD_NUMBER: _ClassVar[int]
    NORMALIZER_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    NOT_IMPLEMENTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    prompt_sampling: str
    response_sampling: str
    gradient_coefficient: str
    normalizer: str
    reference: str
    source: str
    defaults: _struct_pb2.Struct
    formula: str
    not_implemented: str
    def __init__(self, name: _Optional[str] = ..., prompt_sampling: _Optional[str] = ..., response_sampling: _Optional[str] = ..., gradient_coefficient: _Optional[str] = ..., normalizer: _Optional[str] = ..., reference: _Optional[str] = ..., source: _Optional[str] = ..., defaults: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., formula: _Optional[str] = ..., not_implemented: _Optional[str] = ...) -> None: ...

class ListAlgorithmsResponse(_message.Message):
    __slots__ = ("algorithms",)
    ALGORITHMS_FIELD_NUMBER: _ClassVar[int]
    algorithms: _containers.RepeatedCompositeFieldContainer[AlgorithmInfo]
    def __init__(self, algorithms: _Optional[_Iterable[_Union[AlgorithmInfo, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("method", "batch", "settings")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    method: str
    batch: _struct_pb2.Struct
    settings: _containers.ScalarMap[str, str]
    def __init__(self, method: _Optional[str] = ..., batch: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("explanation",)
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    explanation: _struct_pb2.Struct
    def __init__(self, explanation: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class GetBatchRequest(_message.Message):
    __slots__ = ("run_id", "iteration")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    iteration: int
    def __init__(self, run_id: _Optional[str] = ..., iteration: _Optional[int] = ...) -> None: ...

class GetBatchResponse(_message.Message):
    __slots__ = ("record_json_gzip", "kept_iterations")
    RECORD_JSON_GZIP_FIELD_NUMBER: _ClassVar[int]
    KEPT_ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    record_json_gzip: bytes
    kept_iterations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, record_json_gzip: _Optional[bytes] = ..., kept_iterations: _Optional[_Iterable[int]] = ...) -> None: ...

class ExplainBatchRequest(_message.Message):
    __slots__ = ("run_id", "iteration", "method", "settings")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    iteration: int
    method: str
    settings: _containers.ScalarMap[str, str]
    def __init__(self, run_id: _Optional[str] = ..., iteration: _Optional[int] = ..., method: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ExplainBatchResponse(_message.Message):
    __slots__ = ("explanation_json_gzip",)
    EXPLANATION_JSON_GZIP_FIELD_NUMBER: _ClassVar[int]
    explanation_json_gzip: bytes
    def __init__(self, explanation_json_gzip: _Optional[bytes] = ...) -> None: ...

class DescribeRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class DescribeRunResponse(_message.Message):
    __slots__ = ("description_json",)
    DESCRIPTION_JSON_FIELD_NUMBER: _ClassVar[int]
    description_json: str
    def __init__(self, description_json: _Optional[str] = ...) -> None: ...
