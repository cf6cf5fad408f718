"""LearnerService: validate, convert, one library call, convert."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import struct_pb2

from iterpo import wire
from iterpo.algorithms import ALGORITHMS
from iterpo.errors import Unavailable, WrongState
from iterpo.run_config import ReplayOf
from iterpo.v1 import learner_pb2 as pb
from iterpo.v1 import learner_pb2_grpc
from services.ids import need_ids, plain_dict
from services.learner.runs import ACTIVE, RunManager, RunView

HEARTBEAT_SECONDS = 5.0
"""WatchRun sends the run's status at least this often: a silent stream looks like a dead one."""
MOST_BYTES = 15 * 2**20
"""Of a batch: gRPC's bound is 16 MiB (services/host.py)."""


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    def __init__(self, runs: RunManager) -> None:
        self._runs = runs

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:
        need_ids(request, "request_id", "run_id")
        config = plain_dict(request.config, "config")
        examples = [wire.example_from_proto(e) for e in request.examples]
        heldout = [wire.example_from_proto(e) for e in request.heldout]
        view = self._runs.start(request.request_id, request.run_id, config, examples, heldout)
        return pb.StartRunResponse(run=run_to_proto(view))

    async def PauseRun(self, request: pb.PauseRunRequest, context: Any) -> pb.PauseRunResponse:
        need_ids(request, "request_id", "run_id")
        return pb.PauseRunResponse(run=run_to_proto(self._runs.pause(request.request_id, request.run_id)))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Any) -> pb.ResumeRunResponse:
        need_ids(request, "request_id", "run_id")
        return pb.ResumeRunResponse(run=run_to_proto(self._runs.resume(request.request_id, request.run_id)))

    async def StopRun(self, request: pb.StopRunRequest, context: Any) -> pb.StopRunResponse:
        need_ids(request, "request_id", "run_id")
        return pb.StopRunResponse(run=run_to_proto(self._runs.stop(request.request_id, request.run_id)))

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        found = await asyncio.to_thread(self._runs.rows, request.run_id, request.after, request.most_rows)
        rows = [wire.row_to_proto(row) for row in found]
        return pb.GetRunResponse(run=run_to_proto(self._runs.view(request.run_id)), rows=rows)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        return pb.ListRunsResponse(runs=[run_to_proto(view) for view in self._runs.views()])

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.WatchRunResponse]:
        changed, sent = self._runs.listen(), 0
        try:
            while True:
                view = self._runs.view(request.run_id)
                while rows := self._runs.rows(request.run_id, after=sent):
                    for row in rows:
                        sent = row.iteration
                        yield pb.WatchRunResponse(run=run_to_proto(view), row=wire.row_to_proto(row))
                yield pb.WatchRunResponse(run=run_to_proto(view))
                if view.state not in ACTIVE:
                    return
                if self._runs.draining:
                    raise Unavailable("The learner is stopping.", "Watch again when it is back.", "STOPPING")
                await self._runs.changed(changed, HEARTBEAT_SECONDS)
        finally:
            self._runs.forget(changed)

    async def ListTouched(self, request: pb.ListTouchedRequest, context: Any) -> pb.ListTouchedResponse:
        found = await asyncio.to_thread(self._runs.touched, list(request.event_ids), request.annotator)
        return pb.ListTouchedResponse(
            iterations=[
                pb.TouchedIteration(run_id=run_id, iteration=iteration, policy_version=version)
                for run_id, iteration, version in found
            ]
        )

    async def ReplayRun(self, request: pb.ReplayRunRequest, context: Any) -> pb.ReplayRunResponse:
        need_ids(request, "request_id", "run_id", "replay_id")
        view = self._runs.replay(
            request.request_id, request.run_id, request.replay_id, request.first_iteration, tuple(request.without)
        )
        return pb.ReplayRunResponse(run=run_to_proto(view))

    async def ListAlgorithms(self, request: pb.ListAlgorithmsRequest, context: Any) -> pb.ListAlgorithmsResponse:
        return pb.ListAlgorithmsResponse(algorithms=[_algorithm(a) for a in ALGORITHMS])

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        from iterpo.explain import explain

        batch = plain_dict(request.batch, "batch")
        found = await asyncio.to_thread(explain, request.method, batch, dict(request.settings))
        explanation = struct_pb2.Struct()
        explanation.update(found)
        return pb.ExplainResponse(explanation=explanation)

    async def DescribeRun(self, request: pb.DescribeRunRequest, context: Any) -> pb.DescribeRunResponse:
        found = await asyncio.to_thread(self._runs.describe, request.run_id)
        return pb.DescribeRunResponse(description_json=json.dumps(found))

    async def GetBatch(self, request: pb.GetBatchRequest, context: Any) -> pb.GetBatchResponse:
        record, kept = await asyncio.to_thread(self._runs.batch, request.run_id, request.iteration)
        packed = await asyncio.to_thread(_packed, record)
        return pb.GetBatchResponse(record_json_gzip=packed, kept_iterations=kept)

    async def ExplainBatch(self, request: pb.ExplainBatchRequest, context: Any) -> pb.ExplainBatchResponse:
        asked = (request.run_id, request.iteration, request.method, dict(request.settings))
        found = await asyncio.to_thread(self._runs.explain, *asked)
        return pb.ExplainBatchResponse(explanation_json_gzip=await asyncio.to_thread(_packed, found))


def _packed(content: Any) -> bytes:
    """Raises WrongState (BATCH_TOO_LARGE)."""
    packed = gzip.compress(json.dumps(content).encode(), compresslevel=1)
    if len(packed) > MOST_BYTES:
        raise WrongState(
            f"The batch is {len(packed) / 2**20:.0f} MiB, compressed; a message holds {MOST_BYTES / 2**20:.0f}.",
            "Read its file on the learner's machine: DATA_DIR/runs/RUN/batches.",
            "BATCH_TOO_LARGE",
        )
    return packed


def run_to_proto(view: RunView) -> pb.Run:
    progress = view.record.progress
    return pb.Run(
        run_id=view.record.run_id,
        algorithm=view.algorithm,
        state=f"RUN_STATE_{view.state}",
        status=view.status,
        iteration=progress.iteration,
        iterations=view.iterations,
        policy_version=progress.version,
        heldout_reward_before=progress.heldout_before,
        heldout_reward=progress.heldout_serving,
        replay_of=_replay_of(view.record.replay_of) if view.record.replay_of else None,
    )


def _replay_of(of: ReplayOf) -> pb.ReplayOf:
    return pb.ReplayOf(run_id=of.run_id, first_iteration=of.first_iteration, without=of.without)


def _algorithm(algorithm: Any) -> pb.AlgorithmInfo:
    defaults = struct_pb2.Struct()
    defaults.update(algorithm.defaults)
    return pb.AlgorithmInfo(
        name=algorithm.name,
        prompt_sampling=algorithm.prompt_sampling.name,
        response_sampling=algorithm.response_sampling.name,
        gradient_coefficient=algorithm.gradient_coefficient.name,
        normalizer=algorithm.normalizer.name,
        reference=algorithm.reference,
        source=algorithm.source,
        defaults=defaults,
        formula=algorithm.gradient_coefficient.formula,
        not_implemented=algorithm.lacks,
    )
