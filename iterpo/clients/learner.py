"""The learner over a synchronous channel: start a run, watch it, change its state."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import json_format, struct_pb2

from iterpo import wire
from iterpo.clients.channel import translated_errors
from iterpo.types import Example
from iterpo.v1 import learner_pb2 as pb
from iterpo.v1 import learner_pb2_grpc

CALL_TIMEOUT_SECONDS = 30.0


class LearnerClient:
    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = learner_pb2_grpc.LearnerServiceStub(channel)

    def start(
        self, run_id: str, config: dict[str, Any], examples: Sequence[Example], heldout: Sequence[Example]
    ) -> pb.Run:
        """`config` is the `[run]` section: plain JSON values."""
        body = struct_pb2.Struct()
        body.update(config)
        request = pb.StartRunRequest(
            run_id=run_id,
            config=body,
            examples=[wire.example_to_proto(e) for e in examples],
            heldout=[wire.example_to_proto(e) for e in heldout],
            request_id=uuid.uuid4().hex,
        )
        with translated_errors():
            run: pb.Run = self._stub.StartRun(request, timeout=CALL_TIMEOUT_SECONDS).run
        return run

    def watch(self, run_id: str) -> Iterator[pb.WatchRunResponse]:
        """Rows so far, then rows and changes of status until the run ends."""
        with translated_errors():
            yield from self._stub.WatchRun(pb.WatchRunRequest(run_id=run_id))

    def get(self, run_id: str, after: int = 0, most_rows: int = 0) -> pb.GetRunResponse:
        """The run and its rows: of later iterations than `after`, evenly thinned to some `most_rows` (0: all)."""
        found = self._page(run_id, after, most_rows)
        page = found.rows
        while page and not most_rows:  # a message holds so many rows; the next ones are asked for
            page = self._page(run_id, page[-1].iteration, 0).rows
            found.rows.extend(page)
        return found

    def _page(self, run_id: str, after: int, most_rows: int) -> pb.GetRunResponse:
        request = pb.GetRunRequest(run_id=run_id, after=after, most_rows=most_rows)
        with translated_errors():
            found: pb.GetRunResponse = self._stub.GetRun(request, timeout=CALL_TIMEOUT_SECONDS)
        return found

    def describe(self, run_id: str) -> dict[str, Any]:
        """`config` (what differs from the defaults), `heldout` answers before and after, `versions`, `hardware`."""
        with translated_errors():
            answer = self._stub.DescribeRun(pb.DescribeRunRequest(run_id=run_id), timeout=CALL_TIMEOUT_SECONDS)
        return dict(json.loads(answer.description_json))

    def batch(self, run_id: str, iteration: int = 0) -> tuple[dict[str, Any], list[int]]:
        """What an iteration (0: the latest) was trained on (`iterpo.learner.batch_record`), and whose batches are
        kept."""
        request = pb.GetBatchRequest(run_id=run_id, iteration=iteration)
        with translated_errors():
            found = self._stub.GetBatch(request, timeout=CALL_TIMEOUT_SECONDS)
        return json.loads(gzip.decompress(found.record_json_gzip)), list(found.kept_iterations)

    def explain_batch(
        self, run_id: str, iteration: int = 0, method: str = "", settings: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """What a method (default: the run's own) does to what an iteration was trained on."""
        request = pb.ExplainBatchRequest(run_id=run_id, iteration=iteration, method=method, settings=settings or {})
        with translated_errors():
            found = self._stub.ExplainBatch(request, timeout=CALL_TIMEOUT_SECONDS).explanation_json_gzip
        return dict(json.loads(gzip.decompress(found)))

    def runs(self) -> list[pb.Run]:
        with translated_errors():
            return list(self._stub.ListRuns(pb.ListRunsRequest(), timeout=CALL_TIMEOUT_SECONDS).runs)

    def methods(self) -> list[pb.AlgorithmInfo]:
        with translated_errors():
            answer = self._stub.ListAlgorithms(pb.ListAlgorithmsRequest(), timeout=CALL_TIMEOUT_SECONDS)
        return list(answer.algorithms)

    def explain(self, method: str, batch: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
        """As `iterpo.explain.explain`, by the learner's process."""
        body = struct_pb2.Struct()
        body.update(batch)
        request = pb.ExplainRequest(method=method, batch=body, settings=settings)
        with translated_errors():
            found = self._stub.Explain(request, timeout=CALL_TIMEOUT_SECONDS).explanation
        return json_format.MessageToDict(found)

    def touched(self, event_ids: Sequence[str], annotator: str = "") -> list[pb.TouchedIteration]:
        """The iterations that were trained on one of the annotator's feedback events, with the versions that they
        promoted; those of replays without the annotator are left out."""
        request = pb.ListTouchedRequest(event_ids=event_ids, annotator=annotator)
        with translated_errors():
            return list(self._stub.ListTouched(request, timeout=CALL_TIMEOUT_SECONDS).iterations)

    def replay(self, run_id: str, replay_id: str, first_iteration: int, without: Sequence[str]) -> pb.Run:
        """Train again on what a run was trained on since an iteration."""
        request = pb.ReplayRunRequest(
            request_id=uuid.uuid4().hex,
            run_id=run_id,
            replay_id=replay_id,
            first_iteration=first_iteration,
            without=without,
        )
        with translated_errors():
            run: pb.Run = self._stub.ReplayRun(request, timeout=CALL_TIMEOUT_SECONDS).run
        return run

    def pause(self, run_id: str) -> pb.Run:
        request = pb.PauseRunRequest(run_id=run_id, request_id=uuid.uuid4().hex)
        with translated_errors():
            run: pb.Run = self._stub.PauseRun(request, timeout=CALL_TIMEOUT_SECONDS).run
        return run

    def resume(self, run_id: str) -> pb.Run:
        request = pb.ResumeRunRequest(run_id=run_id, request_id=uuid.uuid4().hex)
        with translated_errors():
            run: pb.Run = self._stub.ResumeRun(request, timeout=CALL_TIMEOUT_SECONDS).run
        return run

    def stop(self, run_id: str) -> pb.Run:
        request = pb.StopRunRequest(run_id=run_id, request_id=uuid.uuid4().hex)
        with translated_errors():
            run: pb.Run = self._stub.StopRun(request, timeout=CALL_TIMEOUT_SECONDS).run
        return run
