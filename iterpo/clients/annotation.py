"""`Annotation`: an annotator's stream that survives broken connections and restarts of the server.

    with Annotation(channel, "ann", credit=8) as annotation:
        while (lease := annotation.next(timeout=60)) is not None:
            annotation.label(lease, Outcome.FIRST)
    # leaving the block waits until every label is acknowledged

Labels that were not acknowledged go out again, with their request ids, on the next connection; a lease that comes
again is handed out once. One thread owns the connection; the methods may be called from others.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

import grpc

from iterpo import feedback_wire
from iterpo.clients.channel import translate
from iterpo.clients.labeling import LabelResult, label_result
from iterpo.errors import IterpoError, Unavailable
from iterpo.types import Lease, Outcome
from iterpo.v1 import labeling_pb2 as pb
from iterpo.v1 import labeling_pb2_grpc

PAUSE_SECONDS = (0.1, 2.0)
"""Before the first new connection, and the longest before later ones."""


class Annotation:
    """Raises, from `next`, `label` and on leaving: what the server refused the stream with, or Unavailable once it was
    away for `patience_seconds`."""

    def __init__(
        self,
        channel: grpc.Channel,
        annotator: str,
        run_id: str = "",
        guideline: str = "",
        languages: Sequence[str] = (),
        credit: int = 1,
        lease_seconds: float = 0.0,
        patience_seconds: float = 60.0,
        on_result: Callable[[str, LabelResult], None] = lambda _request_id, _result: None,
    ) -> None:
        self._stub = labeling_pb2_grpc.LabelingServiceStub(channel)
        self._annotator = annotator
        self._start = pb.AnnotateStart(
            annotator=annotator,
            run_id=run_id,
            guideline=guideline,
            languages=languages,
            credit=credit,
            lease_seconds=lease_seconds,
        )
        self._patience = patience_seconds
        self._on_result = on_result
        self._changed = threading.Condition()
        self._leases: deque[Lease] = deque()
        self._known: set[str] = set()
        self._waiting: dict[str, pb.LabelSubmission] = {}
        """request_id -> label that is not acknowledged."""
        self._outbox: queue.SimpleQueue[pb.AnnotateRequest | None] = queue.SimpleQueue()
        self._error: IterpoError | None = None
        self._closing = False
        self.open_tasks: int | None = None
        """Tasks that still need labels, as the server last said when it had none for this person."""
        self._thread = threading.Thread(target=self._run, name=f"annotation {annotator}", daemon=True)

    def __enter__(self) -> Annotation:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            with self._changed:
                self._closing = True
            self._outbox.put(None)
            self._thread.join(5)

    def next(self, timeout: float) -> Lease | None:
        """The next task; None when none came for `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._leases or self._error, timeout)
            self._check()
            return self._leases.popleft() if self._leases else None

    def label(
        self,
        lease: Lease,
        presented_outcome: Outcome,
        strength: int = 0,
        rationale: str = "",
        duration_seconds: float = 0.0,
        presented_aspects: Mapping[str, Outcome] | None = None,
    ) -> str:
        """Send a label, in the order that the screen showed; returns its request id. `on_result` hears what became of
        it."""
        label = pb.LabelSubmission(
            request_id=uuid.uuid4().hex,
            lease_id=lease.lease_id,
            presented_outcome=feedback_wire.outcome_to_proto(presented_outcome),
            strength=strength,
            rationale=rationale,
            duration_seconds=duration_seconds,
            presented_aspects=feedback_wire.aspects_to_proto(presented_aspects or {}),
        )
        with self._changed:
            self._check()
            self._waiting[label.request_id] = label
            self._outbox.put(pb.AnnotateRequest(labels=pb.AnnotateLabels(labels=[label])))
        return label.request_id

    def flush(self) -> None:
        """Wait until every label is acknowledged. Raises Unavailable when that takes longer than the patience."""
        with self._changed:
            through = self._changed.wait_for(lambda: not self._waiting or self._error, self._patience)
            self._check()
            if not through:
                raise Unavailable(
                    f"{len(self._waiting)} labels were not acknowledged within {self._patience:g} s.",
                    "See that the labeling server runs; the labels were not necessarily stored.",
                )

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        pause, away_since = PAUSE_SECONDS[0], None
        while not self._closing:
            try:
                for response in self._stub.Annotate(self._requests(), wait_for_ready=False):
                    pause, away_since = PAUSE_SECONDS[0], None
                    self._take(response)
            except grpc.RpcError as error:
                failure = translate(error)
                # An idle stream hears nothing for hours: the server is away from the moment that it breaks.
                away_since = away_since or time.monotonic()
                if not isinstance(failure, Unavailable) or time.monotonic() - away_since > self._patience:
                    self._fail(failure)
                    return
            if not self._closing:
                time.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS[1])

    def _requests(self) -> Iterator[pb.AnnotateRequest]:
        """Of one connection: the start, what was not acknowledged, then what comes."""
        outbox: queue.SimpleQueue[pb.AnnotateRequest | None] = queue.SimpleQueue()
        with self._changed:
            again = list(self._waiting.values())
            self._outbox.put(None)  # ends the connection before this one, should it still be read
            self._outbox = outbox
        yield pb.AnnotateRequest(start=self._start)
        if again:
            yield pb.AnnotateRequest(labels=pb.AnnotateLabels(labels=again))
        while (request := outbox.get()) is not None:
            yield request

    def _take(self, response: pb.AnnotateResponse) -> None:
        results = {r.request_id: label_result(r) for r in response.results}
        with self._changed:
            for request_id in results:
                self._waiting.pop(request_id, None)
            for message in response.leases:
                if message.lease_id not in self._known:
                    self._known.add(message.lease_id)
                    self._leases.append(feedback_wire.lease_from_proto(message, self._annotator))
            if response.HasField("open_tasks"):
                self.open_tasks = response.open_tasks
            self._changed.notify_all()
        for request_id, result in results.items():
            self._on_result(request_id, result)

    def _fail(self, error: IterpoError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
