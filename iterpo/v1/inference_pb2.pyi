from iterpo.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("messages", "sampling", "policy")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_types_pb2.Message]
    sampling: _types_pb2.SamplingSettings
    policy: str
    def __init__(self, messages: _Optional[_Iterable[_Union[_types_pb2.Message, _Mapping]]] = ..., sampling: _Optional[_Union[_types_pb2.SamplingSettings, _Mapping]] = ..., policy: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("completion_id", "text_delta", "token_ids", "policy_version", "policy_digest", "finish_reason", "prompt_tokens", "completion_tokens")
    COMPLETION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    completion_id: str
    text_delta: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    policy_version: int
    policy_digest: str
    finish_reason: _types_pb2.FinishReason
    prompt_tokens: int
    completion_tokens: int
    def __init__(self, completion_id: _Optional[str] = ..., text_delta: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., policy_version: _Optional[int] = ..., policy_digest: _Optional[str] = ..., finish_reason: _Optional[_Union[_types_pb2.FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("prompts", "n", "sampling", "policy", "first_prompt")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    FIRST_PROMPT_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedCompositeFieldContainer[_types_pb2.Prompt]
    n: int
    sampling: _types_pb2.SamplingSettings
    policy: str
    first_prompt: int
    def __init__(self, prompts: _Optional[_Iterable[_Union[_types_pb2.Prompt, _Mapping]]] = ..., n: _Optional[int] = ..., sampling: _Optional[_Union[_types_pb2.SamplingSettings, _Mapping]] = ..., policy: _Optional[str] = ..., first_prompt: _Optional[int] = ...) -> None: ...

class SampleResponse(_message.Message):
    __slots__ = ("prompt_index", "sample_index", "completion")
    PROMPT_INDEX_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt_index: int
    sample_index: int
    completion: _types_pb2.Completion
    def __init__(self, prompt_index: _Optional[int] = ..., sample_index: _Optional[int] = ..., completion: _Optional[_Union[_types_pb2.Completion, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("sequences", "policy")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TokenSequence]
    policy: str
    def __init__(self, sequences: _Optional[_Iterable[_Union[TokenSequence, _Mapping]]] = ..., policy: _Optional[str] = ...) -> None: ...

class TokenSequence(_message.Message):
    __slots__ = ("token_ids",)
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("sequences", "policy_version", "policy_digest")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TokenLogprobs]
    policy_version: int
    policy_digest: str
    def __init__(self, sequences: _Optional[_Iterable[_Union[TokenLogprobs, _Mapping]]] = ..., policy_version: _Optional[int] = ..., policy_digest: _Optional[str] = ...) -> None: ...

class TokenLogprobs(_message.Message):
    __slots__ = ("logprobs",)
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("name", "base_digest", "max_model_len_tokens", "delivery", "device", "max_lora_rank", "noise_floor", "dtype")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MAX_LORA_RANK_FIELD_NUMBER: _ClassVar[int]
    NOISE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    base_digest: str
    max_model_len_tokens: int
    delivery: str
    device: str
    max_lora_rank: int
    noise_floor: float
    dtype: str
    def __init__(self, name: _Optional[str] = ..., base_digest: _Optional[str] = ..., max_model_len_tokens: _Optional[int] = ..., delivery: _Optional[str] = ..., device: _Optional[str] = ..., max_lora_rank: _Optional[int] = ..., noise_floor: _Optional[float] = ..., dtype: _Optional[str] = ...) -> None: ...
