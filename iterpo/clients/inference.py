"""The inference server as the loop's Generator and PolicyPublisher, over gRPC; synchronous."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from iterpo import wire
from iterpo.clients.channel import translated_errors
from iterpo.errors import Unavailable
from iterpo.policies.replicas import Report, View
from iterpo.types import Completion, GateDecision, Message, PolicyVersion, Prompt, SamplingSettings
from iterpo.v1 import inference_pb2 as pb
from iterpo.v1 import inference_pb2_grpc, policy_pb2, policy_pb2_grpc

SAMPLE_TIMEOUT_SECONDS = 1800.0
LOAD_TIMEOUT_SECONDS = 900.0
CALL_TIMEOUT_SECONDS = 30.0
PAGE = 1000
"""Versions in one message: some kilobytes each, with their decisions."""


class InferenceClient:
    """Implements ports.Generator."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def sample(
        self, prompts: Sequence[Prompt], n: int, settings: SamplingSettings, policy: str = "serving", first: int = 0
    ) -> list[list[Completion]]:
        """`first`: the place of the first prompt in a larger call that this is a part of."""
        request = pb.SampleRequest(
            prompts=[wire.prompt_to_proto(p) for p in prompts],
            n=n,
            sampling=wire.sampling_to_proto(settings),
            policy=policy,
            first_prompt=first,
        )
        found: dict[tuple[int, int], Completion] = {}
        with translated_errors():
            for answer in self._stub.Sample(request, timeout=SAMPLE_TIMEOUT_SECONDS):
                place = answer.prompt_index, answer.sample_index
                found[place] = wire.completion_from_proto(answer.completion)
        if len(found) != len(prompts) * n:
            raise Unavailable(
                f"Inference sent {len(found)} of {len(prompts) * n} completions.", "It is stopping; try again."
            )
        return [[found[p, i] for i in range(n)] for p in range(len(prompts))]

    def generate(
        self, messages: Sequence[Message], settings: SamplingSettings, policy: str = "serving"
    ) -> Iterator[pb.GenerateResponse]:
        request = pb.GenerateRequest(
            messages=[wire.message_to_proto(m) for m in messages],
            sampling=wire.sampling_to_proto(settings),
            policy=policy,
        )
        with translated_errors():
            yield from self._stub.Generate(request, timeout=SAMPLE_TIMEOUT_SECONDS)

    def score(self, sequences: list[tuple[int, ...]], policy: str = "serving") -> list[list[float]]:
        with translated_errors():
            response = self._stub.Score(wire.score_request(sequences, policy), timeout=SAMPLE_TIMEOUT_SECONDS)
        return [list(s.logprobs) for s in response.sequences]

    def model(self) -> pb.GetModelResponse:
        with translated_errors():
            model: pb.GetModelResponse = self._stub.GetModel(pb.GetModelRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return model


class PolicyClient:
    """Implements ports.PolicyPublisher."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = policy_pb2_grpc.PolicyServiceStub(channel)
        self._watching: Any = None
        self._stopped = False

    def load(self, version: int, manifest_digest: str) -> PolicyVersion:
        request = policy_pb2.LoadPolicyRequest(version=version, manifest_digest=manifest_digest)
        with translated_errors():
            return wire.policy_from_proto(self._stub.LoadPolicy(request, timeout=LOAD_TIMEOUT_SECONDS).policy)

    def promote(self, version: int, decision: GateDecision, request_id: str, run: str = "") -> float:
        request = policy_pb2.PromotePolicyRequest(
            version=version, decision=wire.decision_to_proto(decision), request_id=request_id, run=run
        )
        with translated_errors():
            return 1000 * float(self._stub.PromotePolicy(request, timeout=LOAD_TIMEOUT_SECONDS).swap_seconds)

    def reject(self, version: int, decision: GateDecision, request_id: str) -> None:
        request = policy_pb2.RetirePolicyRequest(
            version=version, decision=wire.decision_to_proto(decision), request_id=request_id
        )
        with translated_errors():
            self._stub.RetirePolicy(request, timeout=LOAD_TIMEOUT_SECONDS)

    def rollback(self, reason: str) -> PolicyVersion:
        request = policy_pb2.RollbackPolicyRequest(request_id=uuid.uuid4().hex, reason=reason)
        with translated_errors():
            return wire.policy_from_proto(self._stub.RollbackPolicy(request, timeout=LOAD_TIMEOUT_SECONDS).policy)

    def versions(self, newest: int = 0) -> list[PolicyVersion]:
        """Oldest first: `newest` of them, and all that serve, may serve or are a run's; 0: all, in parts that fit into
        messages."""
        listed = self.listed(newest) if newest else self.everything()
        return [wire.policy_from_proto(policy) for policy in listed.policies]

    def everything(self) -> policy_pb2.ListPoliciesResponse:
        """Every version, however many messages that takes."""
        whole = self.listed(PAGE)
        policies = {policy.version: policy for policy in whole.policies}
        oldest = sorted(policies)[-PAGE:][0]  # those that serve are there as well, however old
        while len(policies) < whole.total and (older := self.listed(PAGE, oldest).policies):
            oldest = older[0].version
            policies |= {policy.version: policy for policy in older}
        del whole.policies[:]
        whole.policies.extend(policies[version] for version in sorted(policies))
        return whole

    def heads(self) -> dict[str, int]:
        return dict(self.listed(1).run_heads)

    def listed(self, newest: int, below: int = 0) -> policy_pb2.ListPoliciesResponse:
        """`newest` versions, of those `below` one."""
        request = policy_pb2.ListPoliciesRequest(newest=newest, below=below)
        with translated_errors():
            response: policy_pb2.ListPoliciesResponse = self._stub.ListPolicies(request, timeout=CALL_TIMEOUT_SECONDS)
        return response

    # What a replica asks its primary.

    def watch(self, replica: str) -> Iterator[View]:
        """What serves, now and at every change, until `stop_watching` or the server goes away (Unavailable)."""
        call = self._stub.WatchPolicies(policy_pb2.WatchPoliciesRequest(replica=replica))
        self._watching = call
        if self._stopped:  # between the decision to watch and this line
            call.cancel()
        try:
            with translated_errors():
                for message in call:
                    yield wire.view_from_proto(message)
        finally:
            call.cancel()

    def stop_watching(self) -> None:
        """For good; from any thread."""
        self._stopped = True
        if self._watching is not None:
            self._watching.cancel()

    def fetch(self, version: int, manifest_digest: str) -> dict[str, bytes]:
        """A version's files, unverified: name -> content."""
        files: dict[str, bytearray] = {}
        request = policy_pb2.FetchPolicyRequest(version=version, manifest_digest=manifest_digest)
        with translated_errors():
            for part in self._stub.FetchPolicy(request, timeout=LOAD_TIMEOUT_SECONDS):
                files.setdefault(part.file_name, bytearray()).extend(part.content)
        return {name: bytes(content) for name, content in files.items()}

    def report(self, report: Report) -> None:
        with translated_errors():
            self._stub.ReportReplica(wire.report_to_proto(report), timeout=CALL_TIMEOUT_SECONDS)
