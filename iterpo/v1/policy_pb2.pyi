from iterpo.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PolicyState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_STATE_UNSPECIFIED: _ClassVar[PolicyState]
    POLICY_STATE_LOADING: _ClassVar[PolicyState]
    POLICY_STATE_PROVED: _ClassVar[PolicyState]
    POLICY_STATE_SERVING: _ClassVar[PolicyState]
    POLICY_STATE_PREVIOUS: _ClassVar[PolicyState]
    POLICY_STATE_RETIRED: _ClassVar[PolicyState]
    POLICY_STATE_REJECTED: _ClassVar[PolicyState]
    POLICY_STATE_CANARY: _ClassVar[PolicyState]
POLICY_STATE_UNSPECIFIED: PolicyState
POLICY_STATE_LOADING: PolicyState
POLICY_STATE_PROVED: PolicyState
POLICY_STATE_SERVING: PolicyState
POLICY_STATE_PREVIOUS: PolicyState
POLICY_STATE_RETIRED: PolicyState
POLICY_STATE_REJECTED: PolicyState
POLICY_STATE_CANARY: PolicyState

class Proof(_message.Message):
    __slots__ = ("proved", "reason", "error", "noise_floor", "shift", "tokens")
    PROVED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NOISE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    proved: bool
    reason: str
    error: float
    noise_floor: float
    shift: float
    tokens: int
    def __init__(self, proved: bool = ..., reason: _Optional[str] = ..., error: _Optional[float] = ..., noise_floor: _Optional[float] = ..., shift: _Optional[float] = ..., tokens: _Optional[int] = ...) -> None: ...

class PolicyVersion(_message.Message):
    __slots__ = ("version", "digest", "state", "parent", "run_id", "method", "proof", "reason", "metrics", "decision", "in_flight_requests")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    state: PolicyState
    parent: int
    run_id: str
    method: str
    proof: Proof
    reason: str
    metrics: _containers.ScalarMap[str, float]
    decision: _types_pb2.GateDecision
    in_flight_requests: int
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., state: _Optional[_Union[PolicyState, str]] = ..., parent: _Optional[int] = ..., run_id: _Optional[str] = ..., method: _Optional[str] = ..., proof: _Optional[_Union[Proof, _Mapping]] = ..., reason: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., decision: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ..., in_flight_requests: _Optional[int] = ...) -> None: ...

class LoadPolicyRequest(_message.Message):
    __slots__ = ("version", "manifest_digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    manifest_digest: str
    def __init__(self, version: _Optional[int] = ..., manifest_digest: _Optional[str] = ...) -> None: ...

class LoadPolicyResponse(_message.Message):
    __slots__ = ("policy", "load_seconds")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    policy: PolicyVersion
    load_seconds: float
    def __init__(self, policy: _Optional[_Union[PolicyVersion, _Mapping]] = ..., load_seconds: _Optional[float] = ...) -> None: ...

class PromotePolicyRequest(_message.Message):
    __slots__ = ("version", "decision", "request_id", "run")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    version: int
    decision: _types_pb2.GateDecision
    request_id: str
    run: str
    def __init__(self, version: _Optional[int] = ..., decision: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ..., request_id: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class PromotePolicyResponse(_message.Message):
    __slots__ = ("policy", "swap_seconds")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SWAP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    policy: PolicyVersion
    swap_seconds: float
    def __init__(self, policy: _Optional[_Union[PolicyVersion, _Mapping]] = ..., swap_seconds: _Optional[float] = ...) -> None: ...

class RollbackPolicyRequest(_message.Message):
    __slots__ = ("request_id", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RollbackPolicyResponse(_message.Message):
    __slots__ = ("policy", "swap_seconds")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SWAP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    policy: PolicyVersion
    swap_seconds: float
    def __init__(self, policy: _Optional[_Union[PolicyVersion, _Mapping]] = ..., swap_seconds: _Optional[float] = ...) -> None: ...

class RetirePolicyRequest(_message.Message):
    __slots__ = ("version", "decision", "request_id", "run")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    version: int
    decision: _types_pb2.GateDecision
    request_id: str
    run: str
    def __init__(self, version: _Optional[int] = ..., decision: _Optional[_Union[_types_pb2.GateDecision, _Mapping]] = ..., request_id: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class RetirePolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: PolicyVersion
    def __init__(self, policy: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("newest", "below")
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    newest: int
    below: int
    def __init__(self, newest: _Optional[int] = ..., below: _Optional[int] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "serving_version", "replicas", "run_heads", "total")
    class RunHeadsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    SERVING_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RUN_HEADS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[PolicyVersion]
    serving_version: int
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    run_heads: _containers.ScalarMap[str, int]
    total: int
    def __init__(self, policies: _Optional[_Iterable[_Union[PolicyVersion, _Mapping]]] = ..., serving_version: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ..., run_heads: _Optional[_Mapping[str, int]] = ..., total: _Optional[int] = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("name", "connected", "serving_version", "proved", "refused", "address")
    class ProvedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SERVING_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROVED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    connected: bool
    serving_version: int
    proved: _containers.ScalarMap[int, str]
    refused: _containers.ScalarMap[int, str]
    address: str
    def __init__(self, name: _Optional[str] = ..., connected: bool = ..., serving_version: _Optional[int] = ..., proved: _Optional[_Mapping[int, str]] = ..., refused: _Optional[_Mapping[int, str]] = ..., address: _Optional[str] = ...) -> None: ...

class WatchPoliciesRequest(_message.Message):
    __slots__ = ("replica",)
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    replica: str
    def __init__(self, replica: _Optional[str] = ...) -> None: ...

class WatchPoliciesResponse(_message.Message):
    __slots__ = ("base_digest", "policies", "serving_version", "previous_version", "canary_version", "canary_share", "candidate_version", "run_heads")
    class RunHeadsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    SERVING_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_HEADS_FIELD_NUMBER: _ClassVar[int]
    base_digest: str
    policies: _containers.RepeatedCompositeFieldContainer[PolicyVersion]
    serving_version: int
    previous_version: int
    canary_version: int
    canary_share: float
    candidate_version: int
    run_heads: _containers.ScalarMap[str, int]
    def __init__(self, base_digest: _Optional[str] = ..., policies: _Optional[_Iterable[_Union[PolicyVersion, _Mapping]]] = ..., serving_version: _Optional[int] = ..., previous_version: _Optional[int] = ..., canary_version: _Optional[int] = ..., canary_share: _Optional[float] = ..., candidate_version: _Optional[int] = ..., run_heads: _Optional[_Mapping[str, int]] = ...) -> None: ...

class FetchPolicyRequest(_message.Message):
    __slots__ = ("version", "manifest_digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    manifest_digest: str
    def __init__(self, version: _Optional[int] = ..., manifest_digest: _Optional[str] = ...) -> None: ...

class FetchPolicyResponse(_message.Message):
    __slots__ = ("file_name", "content")
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    file_name: str
    content: bytes
    def __init__(self, file_name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class ReportReplicaRequest(_message.Message):
    __slots__ = ("replica", "canary", "serving", "canary_version")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    replica: Replica
    canary: CanaryCounts
    serving: CanaryCounts
    canary_version: int
    def __init__(self, replica: _Optional[_Union[Replica, _Mapping]] = ..., canary: _Optional[_Union[CanaryCounts, _Mapping]] = ..., serving: _Optional[_Union[CanaryCounts, _Mapping]] = ..., canary_version: _Optional[int] = ...) -> None: ...

class CanaryCounts(_message.Message):
    __slots__ = ("answered", "failed")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    answered: int
    failed: int
    def __init__(self, answered: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class ReportReplicaResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
