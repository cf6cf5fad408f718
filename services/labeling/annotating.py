"""`Annotate`: one connection of an annotator. Tasks go out against a credit window, labels come in, each is answered
after its commit.

One round is one transaction: every label that has come in since the last round, then leases for the credit that is
free. So the busier a connection is, the more its labels share a commit, and nothing waits for a timer. At most
MAX_WAITING labels wait for their round; then the connection is not read until they are through (backpressure).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from iterpo.errors import InvalidInput, Unavailable
from iterpo.labeling.people import PeopleDesk, Receipt
from iterpo.store.commit import Commit
from iterpo.store.database import FeedbackDatabase
from iterpo.store.labels import Submission
from iterpo.store.leases import Ask, Held
from iterpo.v1 import labeling_pb2 as pb
from services.auth import check_speaks_for
from services.ids import need_ids
from services.labeling import limits, messages
from services.labeling.metrics import LabelingMetrics

MAX_WAITING = 64
"""Labels of a connection that may wait for their round."""
NAP_SECONDS = (4.0, 6.0)
"""How often a connection without a task looks for one that nobody announced: a lease that ran out. Drawn, so that a
thousand connections do not look at the same time."""


class Bell:
    """Rings when tasks become open; made inside the event loop that serves. `close` ends every connection."""

    def __init__(self, database: FeedbackDatabase) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Event] = set()
        self.closing = False
        self._unsubscribe = database.subscribe(self._on_commit)

    def listen(self, event: asyncio.Event) -> None:
        self._waiting.add(event)

    def forget(self, event: asyncio.Event) -> None:
        self._waiting.discard(event)

    def close(self) -> None:
        self.closing = True
        self._unsubscribe()
        self._ring()

    def _on_commit(self, commit: Commit) -> None:
        if commit.opened and self._waiting and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for event in self._waiting:
            event.set()


@dataclass
class _Inbox:
    """What has come in since the last round."""

    labels: deque[pb.LabelSubmission] = field(default_factory=deque)
    others: deque[pb.AnnotateRequest] = field(default_factory=deque)
    ended: bool = False
    error: BaseException | None = None

    @property
    def empty(self) -> bool:
        return not (self.labels or self.others or self.ended or self.error)


class Connection:
    """One call of Annotate."""

    def __init__(self, people: PeopleDesk, bell: Bell, metrics: LabelingMetrics) -> None:
        self._people, self._bell, self._metrics = people, bell, metrics
        self._inbox = _Inbox()
        self._news = asyncio.Event()
        """Something came in, or a task became open."""
        self._room = asyncio.Event()
        self._held: dict[str, float] = {}
        """Leases that are not labelled yet -> their end."""
        self._told: set[str] = set()
        """Versions of guidelines whose text went out already."""
        self._told_open: int | None = None
        self._hungry = True
        """Tasks may be open that were not asked for yet."""

    async def responses(self, requests: AsyncIterable[pb.AnnotateRequest]) -> AsyncGenerator[pb.AnnotateResponse]:
        """Raises InvalidInput (START_FIRST), PermissionDenied, WrongState (ANNOTATOR_EXCLUDED); Unavailable (STOPPING)
        when the server drains: start again, and what was not acknowledged goes again with its request id."""
        incoming = aiter(requests)
        ask, credit = await self._start(incoming)
        reader = asyncio.create_task(self._read(incoming))
        self._bell.listen(self._news)
        self._metrics.connections.inc()
        try:
            resumed = await asyncio.wrap_future(self._people.resume(ask.annotator))
            yield self._respond([], resumed, None)
            while not self._bell.closing:
                # Cleared before the round: a bell that rings while it is under way is heard after it.
                self._hungry = self._hungry or self._news.is_set()
                self._news.clear()
                credit, others = await self._others(ask, credit)
                labels, refused = self._labels()
                response = await self._round(ask, credit, labels, refused)
                if response is not None or others is not None:
                    yield _merged(response, others)
                if self._inbox.error is not None:
                    raise self._inbox.error
                if self._inbox.ended and not self._inbox.labels and not self._inbox.others:
                    return
                await self._rest()
        finally:
            reader.cancel()
            self._bell.forget(self._news)
            self._metrics.connections.dec()
        raise Unavailable("The labeling server is stopping.", "Start again when it is back.", "STOPPING")

    async def _start(self, incoming: AsyncIterator[pb.AnnotateRequest]) -> tuple[Ask, int]:
        first = await anext(incoming, None)
        if first is None or first.WhichOneof("action") != "start":
            raise InvalidInput("An annotation begins with a start.", "Send AnnotateStart first.", "START_FIRST")
        need_ids(first.start, "annotator")
        check_speaks_for(first.start.annotator)
        limits.in_range("credit", first.start.credit, 0, limits.MAX_LEASES)
        ask = messages.ask(first.start, 1, self._people.settings.lease_seconds)
        return ask, first.start.credit or 1

    async def _read(self, incoming: AsyncIterator[pb.AnnotateRequest]) -> None:
        try:
            async for request in incoming:
                if request.WhichOneof("action") == "labels":
                    limits.at_most("labels", request.labels.labels, limits.MAX_LABELS)
                    self._inbox.labels.extend(request.labels.labels)
                else:
                    self._inbox.others.append(request)
                self._news.set()
                while len(self._inbox.labels) + len(self._inbox.others) >= MAX_WAITING:
                    self._room.clear()
                    await self._room.wait()
            self._inbox.ended = True
        except Exception as error:  # noqa: BLE001 - told to the connection's own loop, which raises it
            self._inbox.error = error
        self._news.set()

    def _labels(self) -> tuple[list[tuple[str, Submission]], list[Receipt]]:
        """What has come in: labels to be stored, and those that no label may be, each refused for itself."""
        labels, refused = list[tuple[str, Submission]](), list[Receipt]()
        while self._inbox.labels and len(labels) < MAX_WAITING:
            message = self._inbox.labels.popleft()
            try:
                labels.append(messages.submission(message))
            except InvalidInput as error:
                refused.append(Receipt(message.request_id, "", error.reason, False))
        if len(self._inbox.labels) < MAX_WAITING:
            self._room.set()
        return labels, refused

    async def _round(
        self, ask: Ask, credit: int, labels: list[tuple[str, Submission]], refused: list[Receipt]
    ) -> pb.AnnotateResponse | None:
        for _, label in labels:
            self._held.pop(label.lease_id, None)
        wanted = credit - self._holding() if (labels or self._hungry) and not self._inbox.ended else 0
        if not labels and wanted <= 0:
            return self._respond(refused, [], None) if refused else None
        self._hungry = False
        turn = await asyncio.wrap_future(
            self._people.turn(ask.annotator, labels, replace(ask, limit=wanted) if wanted > 0 else None)
        )
        for (_, label), receipt in zip(labels, turn.receipts, strict=True):
            self._metrics.on_receipt("Annotate", label.presented_outcome, receipt)
        nothing_new = turn.open_tasks is None or turn.open_tasks == self._told_open
        if nothing_new and not (refused or turn.receipts or turn.leases):
            return None
        self._told_open = turn.open_tasks
        return self._respond(refused + turn.receipts, turn.leases, turn.open_tasks)

    async def _others(self, ask: Ask, credit: int) -> tuple[int, pb.AnnotateResponse | None]:
        """Everything that is not a label, in order; the credit that holds afterwards."""
        if not self._inbox.others:
            return credit, None
        answer = pb.AnnotateResponse()
        while self._inbox.others:
            request = self._inbox.others.popleft()
            match request.WhichOneof("action"):
                case "credit":
                    limits.in_range("credit", request.credit.credit, 0, limits.MAX_LEASES)
                    credit, self._hungry = request.credit.credit, True
                case "heartbeat":
                    answer.heartbeat.CopyFrom(request.heartbeat)
                case "extend":
                    answer.extended.append(await self._extend(ask.annotator, request.extend))
                case "release":
                    answer.released_lease_ids.append(await self._release(ask.annotator, request.release))
                case other:
                    raise InvalidInput(
                        f"{other or 'An empty message'} is no action within an annotation.",
                        "Send labels, credit, extend, release or heartbeat after the start.",
                        "UNEXPECTED_ACTION",
                    )
        return credit, answer

    async def _extend(self, annotator: str, request: pb.ExtendLeaseRequest) -> pb.LeaseEnd:
        limits.in_range("lease_seconds", request.lease_seconds, 0, limits.MAX_LEASE_SECONDS)
        ends = await asyncio.wrap_future(self._people.extend(annotator, request.lease_id, request.lease_seconds))
        if isinstance(ends, str):
            return pb.LeaseEnd(lease_id=request.lease_id, refused_reason=ends)
        if request.lease_id in self._held:
            self._held[request.lease_id] = ends
        return pb.LeaseEnd(lease_id=request.lease_id, expires_at_unix_seconds=ends)

    async def _release(self, annotator: str, request: pb.ReleaseTaskRequest) -> str:
        """The lease's id whatever it was: afterwards the annotator does not hold it."""
        limits.in_range("the reason's length", len(request.reason), 1, limits.MAX_RATIONALE_CHARACTERS)
        await asyncio.wrap_future(self._people.release(annotator, request.lease_id, request.reason))
        self._held.pop(request.lease_id, None)
        self._hungry = True
        return request.lease_id

    def _respond(self, receipts: list[Receipt], leases: list[Held], open_tasks: int | None) -> pb.AnnotateResponse:
        for held in leases:
            self._held[held.lease_id] = held.expires_at
        return pb.AnnotateResponse(
            results=[messages.submit_result(receipt) for receipt in receipts],
            leases=[self._lease(held) for held in leases],
            open_tasks=open_tasks,
        )

    def _lease(self, held: Held) -> pb.Lease:
        """A guideline's text goes out once a connection."""
        guideline = self._people.guideline(held.guideline)
        message = messages.lease(held, guideline)
        if guideline.version in self._told:
            message.guideline.text = ""
        self._told.add(guideline.version)
        return message

    def _holding(self) -> int:
        """Leases that live; those that ran out make room for others."""
        now = self._people.database.clock()
        self._held = {lease_id: ends for lease_id, ends in self._held.items() if ends > now}
        return len(self._held)

    async def _rest(self) -> None:
        """Until something comes in, a task opens, or a lease may have run out."""
        if not self._inbox.empty or self._news.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(*NAP_SECONDS)):
                await self._news.wait()
        if not self._inbox.labels:
            self._hungry = True


def _merged(first: pb.AnnotateResponse | None, second: pb.AnnotateResponse | None) -> pb.AnnotateResponse:
    merged = pb.AnnotateResponse()
    for part in (first, second):
        if part is not None:
            merged.MergeFrom(part)
    return merged
