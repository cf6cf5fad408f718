"""The two services of inference: validate, convert, one library call, convert."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from iterpo import wire
from iterpo.errors import IterpoError, PolicyRejected, WrongState
from iterpo.policies.folder import PolicyFolder
from iterpo.types import BASE_VERSION, GateDecision
from iterpo.v1 import inference_pb2 as pb
from iterpo.v1 import inference_pb2_grpc, policy_pb2, policy_pb2_grpc
from services.auth import caller_key, caller_name
from services.ids import check_run, need_ids
from services.inference.admission import Quota
from services.inference.answering import Answering
from services.inference.metrics import InferenceMetrics
from services.inference.registry import PolicyRegistry
from services.inference.replicas import Replicas

PART_BYTES = 1024 * 1024
"""Of a version's file, in one message."""


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(
        self, answering: Answering, registry: PolicyRegistry, model: pb.GetModelResponse, quota: Quota | None = None
    ) -> None:
        self._answering, self._registry, self._model = answering, registry, model
        self._quota = quota or Quota(0)

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        messages = [wire.message_from_proto(m) for m in request.messages]
        settings = wire.sampling_from_proto(request.sampling)
        completion_id, total, caller = uuid.uuid4().hex, 0, caller_key()
        self._quota.check(caller)
        user = caller_name() or completion_id
        async with aclosing(self._answering.generate(messages, settings, request.policy, user)) as answers:
            async for version, prompt_tokens, chunk in answers:
                self._quota.use(caller, len(chunk.token_ids) + (0 if total else prompt_tokens))
                total += len(chunk.token_ids)
                response = pb.GenerateResponse(
                    completion_id=completion_id,
                    text_delta=chunk.text,
                    token_ids=chunk.token_ids,
                    policy_version=version.version,
                    policy_digest=version.digest,
                )
                if chunk.finish_reason is not None:
                    response.finish_reason = wire.finish_reason_to_proto(chunk.finish_reason)
                    response.prompt_tokens, response.completion_tokens = prompt_tokens, total
                yield response

    async def Sample(self, request: pb.SampleRequest, context: Any) -> AsyncIterator[pb.SampleResponse]:
        prompts = [wire.prompt_from_proto(p) for p in request.prompts]
        settings = wire.sampling_from_proto(request.sampling)
        drawn = self._answering.sample(prompts, request.n or 1, settings, request.policy, request.first_prompt)
        async with aclosing(drawn) as answers:
            async for p, i, completion in answers:
                body = wire.completion_to_proto(completion)
                yield pb.SampleResponse(prompt_index=p, sample_index=i, completion=body)

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        sequences = [tuple(s.token_ids) for s in request.sequences]
        version, scores = await self._answering.score(sequences, request.policy)
        rows = [pb.TokenLogprobs(logprobs=row) for row in scores]
        return pb.ScoreResponse(sequences=rows, policy_version=version.version, policy_digest=version.digest)

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        response = pb.GetModelResponse()
        response.CopyFrom(self._model)
        proof = self._registry.serving.proof
        response.noise_floor = proof.noise_floor if proof else 0.0
        return response


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    def __init__(
        self,
        registry: PolicyRegistry,
        metrics: InferenceMetrics,
        replicas: Replicas,
        folder: PolicyFolder,
        primary: str = "",
    ) -> None:
        """`folder`: where versions lie. `primary`: the address of the service that this one follows; changes are made
        there."""
        self._registry, self._metrics, self._replicas = registry, metrics, replicas
        self._folder, self._primary = folder, primary

    async def LoadPolicy(self, request: policy_pb2.LoadPolicyRequest, context: Any) -> policy_pb2.LoadPolicyResponse:
        self._be_primary()
        started = time.monotonic()
        try:
            policy = await self._registry.load(request.version, request.manifest_digest)
        except PolicyRejected as error:
            self._metrics.on_proof(error.reason)
            raise
        seconds = time.monotonic() - started
        self._metrics.on_proof("proved")
        self._metrics.load.observe(seconds)
        if policy.proof:
            self._metrics.probe_error.set(policy.proof.error)
        return policy_pb2.LoadPolicyResponse(policy=wire.policy_to_proto(policy), load_seconds=seconds)

    async def PromotePolicy(
        self, request: policy_pb2.PromotePolicyRequest, context: Any
    ) -> policy_pb2.PromotePolicyResponse:
        self._be_primary()
        need_ids(request, "request_id")
        if request.run:
            check_run(request.run)
        decision = wire.decision_from_proto(request.decision)
        with self._counting("promote"):
            if (
                not request.run  # replicas bring in a run's version when they hear of it: nobody is switched to it
                and self._registry.may_promote(request.version, decision, request.request_id)
                and request.version != BASE_VERSION
            ):
                await self._replicas.agree(request.version)
            seconds = await self._registry.promote(request.version, decision, request.request_id, request.run)
        self._metrics.swap.observe(seconds)
        policy = self._registry.get(request.version)
        return policy_pb2.PromotePolicyResponse(policy=wire.policy_to_proto(policy), swap_seconds=seconds)

    async def RollbackPolicy(
        self, request: policy_pb2.RollbackPolicyRequest, context: Any
    ) -> policy_pb2.RollbackPolicyResponse:
        self._be_primary()
        need_ids(request, "request_id")
        with self._counting("rollback"):
            seconds = await self._registry.rollback(request.request_id, request.reason)
        self._metrics.swap.observe(seconds)
        return policy_pb2.RollbackPolicyResponse(
            policy=wire.policy_to_proto(self._registry.serving), swap_seconds=seconds
        )

    async def RetirePolicy(
        self, request: policy_pb2.RetirePolicyRequest, context: Any
    ) -> policy_pb2.RetirePolicyResponse:
        self._be_primary()
        need_ids(request, "request_id")
        decision: GateDecision | None = None
        if request.HasField("decision"):
            decision = wire.decision_from_proto(request.decision)
        if request.run:
            policy = await self._registry.release(request.run, request.request_id)
        else:
            policy = await self._registry.retire(request.version, decision, request.request_id)
        return policy_pb2.RetirePolicyResponse(policy=wire.policy_to_proto(policy))

    async def ListPolicies(
        self, request: policy_pb2.ListPoliciesRequest, context: Any
    ) -> policy_pb2.ListPoliciesResponse:
        listed = self._registry.listed(request.newest, request.below)
        return policy_pb2.ListPoliciesResponse(
            policies=[wire.policy_to_proto(policy, in_flight) for policy, in_flight in listed],
            serving_version=self._registry.serving.version,
            replicas=[wire.replica_to_proto(report, connected) for report, connected in self._replicas.listed()],
            run_heads=self._registry.heads,
            total=self._registry.total,
        )

    async def WatchPolicies(
        self, request: policy_pb2.WatchPoliciesRequest, context: Any
    ) -> AsyncIterator[policy_pb2.WatchPoliciesResponse]:
        if request.replica:
            need_ids(request, "replica")
        async with aclosing(self._replicas.watch(request.replica)) as views:
            async for view in views:
                yield wire.view_to_proto(view)

    async def FetchPolicy(
        self, request: policy_pb2.FetchPolicyRequest, context: Any
    ) -> AsyncIterator[policy_pb2.FetchPolicyResponse]:
        files = await asyncio.to_thread(self._folder.files, request.version, request.manifest_digest)
        for name, content in files.items():
            for start in range(0, len(content), PART_BYTES):
                yield policy_pb2.FetchPolicyResponse(file_name=name, content=content[start : start + PART_BYTES])

    async def ReportReplica(
        self, request: policy_pb2.ReportReplicaRequest, context: Any
    ) -> policy_pb2.ReportReplicaResponse:
        need_ids(request.replica, "name")
        self._replicas.report(wire.report_from_proto(request))
        return policy_pb2.ReportReplicaResponse()

    def _be_primary(self) -> None:
        """Raises WrongState (REPLICA) where policies are changed elsewhere."""
        if self._primary:
            raise WrongState(
                f"This service is a replica of {self._primary}.",
                "Change policies there (inference.address); the replicas follow.",
                "REPLICA",
            )

    def observe(self) -> None:
        """Set the gauges that follow the registry; called at every change (`follow_changes`)."""
        self._metrics.version.labels("serving").set(self._registry.serving.version)
        self._metrics.version.labels("candidate").set(self._registry.candidate)
        self._metrics.show_heads(self._registry.heads)
        replicas = self._replicas.listed()
        serving = self._registry.serving.version
        self._metrics.replicas.labels("connected").set(sum(connected for _, connected in replicas))
        self._metrics.replicas.labels("serving_the_same").set(sum(r.serving == serving for r, up in replicas if up))
        trial = self._registry.trial
        self._metrics.version.labels("canary").set(trial.version if trial else 0)

    async def follow_changes(self) -> None:
        """Until it is cancelled."""
        bell = self._registry.listen()
        while True:
            self.observe()
            await bell.wait()
            bell.clear()

    @contextmanager
    def _counting(self, kind: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._metrics.on_failed_swap(getattr(error, "reason", IterpoError.reason))
            raise
        self._metrics.swaps.labels(kind).inc()
