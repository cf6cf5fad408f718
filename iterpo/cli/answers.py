"""One streamed answer, for the commands that talk with the serving policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from iterpo.clients.channel import translated_errors
from iterpo.types import Message, SamplingSettings
from iterpo.v1 import inference_pb2, inference_pb2_grpc, types_pb2
from iterpo.wire import message_to_proto, sampling_to_proto


class Answer:
    """Iterate for the text as it comes; afterwards `text` and `summary` are complete. Iterating raises IterpoErrors."""

    def __init__(self, responses: Iterator[inference_pb2.GenerateResponse]) -> None:
        self._responses = responses
        self._last = inference_pb2.GenerateResponse()
        self.text = ""

    def __iter__(self) -> Iterator[str]:
        with translated_errors():
            for response in self._responses:
                self._last = response
                self.text += response.text_delta
                yield response.text_delta

    def summary(self) -> dict[str, Any]:
        last = self._last
        return {
            "text": self.text,
            "policy_version": last.policy_version,
            "policy_digest": last.policy_digest,
            "finish_reason": types_pb2.FinishReason.Name(last.finish_reason).removeprefix("FINISH_REASON_").lower(),
            "prompt_tokens": last.prompt_tokens,
            "completion_tokens": last.completion_tokens,
        }


def stream_answer(
    channel: grpc.Channel, messages: Sequence[Message], sampling: SamplingSettings, policy: str = "serving"
) -> Answer:
    """Ask `policy`; the call is made when the answer is iterated over."""
    request = inference_pb2.GenerateRequest(
        messages=[message_to_proto(m) for m in messages], sampling=sampling_to_proto(sampling), policy=policy
    )
    return Answer(inference_pb2_grpc.InferenceServiceStub(channel).Generate(request))
