"""`LabelingDesk`: what the labeling service can do, as library calls. No gRPC, no ports, no environment.

Mutations return futures that are done after the commit; the same request id with the same content gets the stored
answer, with other content Conflict REQUEST_ID_REUSED.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from iterpo import wire
from iterpo.errors import InvalidInput
from iterpo.labeling.catalog import PEOPLE, find
from iterpo.labeling.labeler import Item, Labeler
from iterpo.labeling.pairs import MAX_REQUIRED_LABELS, comparison_tasks
from iterpo.labeling.queue import Judge, LabelQueue, QueueSettings
from iterpo.store.database import FeedbackDatabase
from iterpo.store.groups import enqueue, find_completions, record_group
from iterpo.store.tasks import Refusal, Submission, add_task, lease_tasks, open_tasks, submit_label
from iterpo.store.transaction import Answer, Clock, Transaction
from iterpo.store.work import Verdict
from iterpo.types import Group, Lease, Task


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Two recorded completions of one prompt that people shall compare."""

    first_id: str
    second_id: str
    guideline: str = ""
    required_labels: int = 1


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one submitted label."""

    request_id: str
    event_id: str
    """Empty when refused."""
    refused_reason: str
    """Empty when accepted; otherwise a Refusal's reason."""
    duplicate: bool

    @property
    def accepted(self) -> bool:
        return not self.refused_reason


class LabelingDesk:
    """Owns the queue of machine labelers; the database is the caller's to close, after the desk."""

    def __init__(
        self,
        database: FeedbackDatabase,
        labelers: Mapping[str, Labeler],
        settings: QueueSettings | None = None,
        clock: Clock = time.time,
        on_verdict: Callable[[Verdict], None] = lambda _verdict: None,
        coin: Callable[[], bool] = lambda: secrets.randbits(1) == 1,
    ) -> None:
        self.database = database
        self.labelers = dict(labelers)
        self._coin = coin
        settings = settings or QueueSettings()
        self._judges = {name: Judge(labeler, settings.timeout_seconds) for name, labeler in labelers.items()}
        self._queue = LabelQueue(database, self._judges, settings, clock, on_verdict)
        # One pool a labeler: a hung one keeps only its own callers waiting. Threads are made when first needed.
        self._scoring = {name: ThreadPoolExecutor(settings.workers, f"iterpo-score-{name}") for name in labelers}
        self._unsubscribe = database.subscribe(lambda commit: self._queue.notify() if "group" in commit.kinds else None)

    def start(self) -> None:
        """Begin to label, what an earlier process left included."""
        self._queue.start()

    def close(self) -> None:
        self._unsubscribe()
        self._queue.stop_handing_out()
        for judge in self._judges.values():
            judge.close()
        for pool in self._scoring.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._queue.close()

    def record(self, run_id: str, labeler: str, groups: Sequence[Group], request_id: str) -> Future[Answer]:
        """Store groups; queue them for a labeler, or make tasks of their pairs for `people`. Ids: the groups' events.

        Raises InvalidInput; Conflict arrives through the future.
        """
        if labeler != PEOPLE:
            find(self.labelers, labeler)
        _check_groups(groups)
        tasks = {group.group_id: comparison_tasks(run_id, group) if labeler == PEOPLE else [] for group in groups}
        payload = _payload(
            "record", run_id, labeler, *(wire.group_to_proto(group).SerializeToString() for group in groups)
        )

        def store(transaction: Transaction) -> list[str]:
            event_ids = [record_group(transaction, run_id, group) for group in groups]
            for group in groups:
                if labeler != PEOPLE:
                    enqueue(transaction, group, labeler)
                for task in tasks[group.group_id]:
                    add_task(transaction, task)
            return event_ids

        return self.database.write(lambda tx: tx.once(request_id, payload, lambda: store(tx)))

    def score(self, labeler: str, items: Sequence[Item]) -> Future[list[Verdict]]:
        """Score now, store nothing, try once. Raises InvalidInput UNKNOWN_LABELER."""
        if labeler == PEOPLE:
            raise InvalidInput(
                "People cannot score on the spot.", "Record the group for `people` and await its labels."
            )
        find(self.labelers, labeler)
        return self._scoring[labeler].submit(self._score, labeler, items)

    def create_tasks(self, run_id: str, requests: Sequence[PairRequest], request_id: str) -> Future[Answer]:
        """Ask people to compare recorded completions. Ids: the tasks'. NotFound arrives through the future."""
        for request in requests:
            _check_pair(request)
        payload = _payload("tasks", run_id, *(repr(request) for request in requests))

        def store(transaction: Transaction) -> list[str]:
            tasks = [_task(transaction, run_id, request) for request in requests]
            for task in tasks:
                add_task(transaction, task)
            return [task.task_id for task in tasks]

        return self.database.write(lambda tx: tx.once(request_id, payload, lambda: store(tx)))

    def lease(self, annotator: str, limit: int, seconds: float, run_id: str = "") -> Future[tuple[list[Lease], int]]:
        """Leases for this person, and how many tasks still need labels, leased or not."""

        def act(transaction: Transaction) -> tuple[list[Lease], int]:
            leases = lease_tasks(transaction, annotator, limit, seconds, run_id, self._coin)
            return leases, open_tasks(transaction.connection, run_id)

        return self.database.write(act)

    def submit(self, annotator: str, labels: Sequence[tuple[str, Submission]]) -> Future[list[Receipt]]:
        """Store (request id, label) pairs in one transaction: a Conflict on one of them stores none."""

        def act(transaction: Transaction) -> list[Receipt]:
            return [_receive(transaction, annotator, request_id, label) for request_id, label in labels]

        return self.database.write(act)

    def _score(self, labeler: str, items: Sequence[Item]) -> list[Verdict]:
        judgements = self._judges[labeler].judgements(items)
        return [
            judgement.verdict(completion.completion_id, labeler)
            for judgement, (_, completion) in zip(judgements, items, strict=True)
        ]


def _receive(transaction: Transaction, annotator: str, request_id: str, label: Submission) -> Receipt:
    """Refusals leave no trace under the request id: the same label may be sent again and be decided anew."""
    refusals: list[str] = []

    def act() -> list[str]:
        outcome = submit_label(transaction, annotator, label)
        if isinstance(outcome, Refusal):
            refusals.append(outcome.reason)
            return []
        return [outcome]

    answer = transaction.once(request_id, _payload("label", annotator, repr(label)), act)
    if refusals:
        transaction.forget(request_id)
    return Receipt(request_id, "".join(answer.ids), "".join(refusals), answer.duplicate)


def _task(transaction: Transaction, run_id: str, request: PairRequest) -> Task:
    first, second = find_completions(transaction.connection, [request.first_id, request.second_id])
    if first.completion.group_id != second.completion.group_id:
        raise InvalidInput(
            f"Completions {request.first_id!r} and {request.second_id!r} answer different prompts or groups.",
            "Compare two completions of one group.",
            "PAIR_ACROSS_GROUPS",
        )
    return Task(
        task_id=uuid.uuid4().hex,
        run_id=run_id or first.run_id,
        group_id=first.completion.group_id,
        prompt=first.prompt,
        first=first.completion,
        second=second.completion,
        guideline=request.guideline,
        required_labels=request.required_labels,
    )


def _check_groups(groups: Sequence[Group]) -> None:
    twice = [group_id for group_id, times in Counter(group.group_id for group in groups).items() if times > 1]
    if twice:
        raise InvalidInput(
            f"Group {twice[0]!r} is in the request twice.", "Give every group an id of its own.", "GROUP_TWICE"
        )


def _check_pair(request: PairRequest) -> None:
    if request.first_id == request.second_id:
        raise InvalidInput(f"Completion {request.first_id!r} cannot be compared with itself.", "Name two completions.")
    if not 1 <= request.required_labels <= MAX_REQUIRED_LABELS:
        raise InvalidInput(
            f"required_labels is {request.required_labels}.", f"Use a number from 1 to {MAX_REQUIRED_LABELS}."
        )


def _payload(*parts: str | bytes) -> bytes:
    """Parts with their lengths, so that no two lists of parts look the same."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
