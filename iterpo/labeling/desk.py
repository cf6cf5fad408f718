"""`LabelingDesk`: what the labeling service can do, as library calls. No gRPC, no ports, no environment.

Mutations return futures that are done after the commit; the same request id with the same content gets the stored
answer, with other content Conflict REQUEST_ID_REUSED. People's part is `people` and `leads`.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from iterpo import wire
from iterpo.errors import InvalidInput
from iterpo.labeling.budget import Budget
from iterpo.labeling.catalog import JUDGE, NOBODY, PEOPLE, find, machine_name
from iterpo.labeling.judge import JudgeModel
from iterpo.labeling.labeler import Item, Labeler
from iterpo.labeling.leads import LeadDesk
from iterpo.labeling.machines import MachineAnnotator
from iterpo.labeling.pairs import MAX_REQUIRED_LABELS, TaskPlan, comparison_tasks, whole_labels
from iterpo.labeling.people import PeopleDesk
from iterpo.labeling.queue import Judge, LabelQueue, QueueSettings
from iterpo.store.database import FeedbackDatabase
from iterpo.store.groups import enqueue, find_completions, record_group
from iterpo.store.tasks import let_all_go
from iterpo.store.transaction import Answer, Clock, Transaction, payload
from iterpo.store.work import Verdict
from iterpo.types import Group, Outcome, Task, TaskKind

GOLD_LABELS = MAX_REQUIRED_LABELS
"""A gold task is never used up."""


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Two recorded completions of one prompt that people shall compare."""

    first_id: str
    second_id: str
    guideline: str = ""
    required_labels: float = 1.0
    gold: Outcome | None = None
    """The right answer: the task measures annotators, and never becomes a preference."""
    priority: int = 0
    language: str = ""
    uncertainty: float = 1.0


class LabelingDesk:
    """Owns the queue of machine labelers; the database is the caller's to close, after the desk."""

    def __init__(
        self,
        database: FeedbackDatabase,
        labelers: Mapping[str, Labeler],
        settings: QueueSettings | None = None,
        clock: Clock = time.time,
        on_verdict: Callable[[Verdict], None] = lambda _verdict: None,
        people: PeopleDesk | None = None,
        plan: TaskPlan | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.database = database
        self.labelers = dict(labelers)
        self.people = people or PeopleDesk(database)
        self.leads = LeadDesk(database, self.people.crowd)
        self.plan = plan or TaskPlan()
        settings = settings or QueueSettings()
        self._judges = {name: Judge(labeler, settings.timeout_seconds) for name, labeler in labelers.items()}
        self._machines = [
            MachineAnnotator(self.people, labeler, settings.timeout_seconds, settings.max_attempts, on_verdict)
            for labeler in labelers.values()
            if isinstance(labeler, JudgeModel)
        ]
        self.budget = budget
        self._queue = LabelQueue(database, self._judges, settings, clock, on_verdict)
        # One pool a labeler: a hung one keeps only its own callers waiting. Threads are made when first needed.
        self._scoring = {name: ThreadPoolExecutor(settings.workers, f"iterpo-score-{name}") for name in labelers}
        self._unsubscribe = database.subscribe(lambda commit: self._queue.notify() if "group" in commit.kinds else None)

    def start(self) -> None:
        """Begin to label, what an earlier process left included; blocks until the annotators are remembered."""
        self.people.start()
        self.leads.judge()
        if self.budget is not None:
            self.budget.start()
        self.database.when_on_duty(self._take_over)
        for machine in self._machines:
            machine.start()
        self._queue.start()

    def _take_over(self) -> None:
        """What an earlier configuration left."""
        self.people.rank_anew()
        if self.budget is None:
            self.database.write(let_all_go).result()
        here = {machine.name for machine in self._machines} | ({self.budget.name} if self.budget else set())
        self.people.give_up(lambda name: name not in here, "LABELER_GONE: it is no longer configured").result()

    def close(self) -> None:
        self._unsubscribe()
        self.people.close()
        self._queue.stop_handing_out()
        if self.budget is not None:
            self.budget.close()
        for machine in self._machines:
            machine.close()
        for judge in self._judges.values():
            judge.close()
        for pool in self._scoring.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._queue.close()

    def record(
        self,
        run_id: str,
        labeler: str,
        groups: Sequence[Group],
        request_id: str,
        implicit_rewards: Mapping[str, float] | None = None,
    ) -> Future[Answer]:
        """Store groups; queue them for a labeler, or make tasks of their pairs for those who compare. Ids: the groups'
        events. `implicit_rewards`: completion_id -> the policy's log-ratio to the base, nats.

        Raises InvalidInput; Conflict arrives through the future.
        """
        if labeler not in (PEOPLE, NOBODY):
            find(self.labelers, labeler)
        _check_groups(groups)
        tasks = [task for group in groups for task in self._tasks(run_id, labeler, group, implicit_rewards)]
        content = payload(
            "record", run_id, labeler, *(wire.group_to_proto(group).SerializeToString() for group in groups)
        )

        def store(transaction: Transaction) -> list[str]:
            event_ids = [record_group(transaction, run_id, group) for group in groups]
            for group in groups if self._scores(labeler) else ():
                enqueue(transaction, group, labeler)
            for task in tasks:
                self.people.ask(transaction, task)
            return event_ids

        return self.database.write(lambda tx: tx.once(request_id, content, lambda: store(tx)))

    def score(self, labeler: str, items: Sequence[Item]) -> Future[list[Verdict]]:
        """Score now, store nothing, try once. Raises InvalidInput UNKNOWN_LABELER."""
        if labeler == PEOPLE:
            raise InvalidInput(
                "People cannot score on the spot.", "Record the group for `people` and await its labels."
            )
        if find(self.labelers, labeler).kind == JUDGE:
            raise InvalidInput(
                f"{labeler!r} compares two answers and cannot score one.",
                "Set run.gate.labeler to a verifier or a reward model, or to `none`.",
                "JUDGE_COMPARES",
            )
        return self._scoring[labeler].submit(self._score, labeler, items)

    def create_tasks(self, run_id: str, requests: Sequence[PairRequest], request_id: str) -> Future[Answer]:
        """Ask people to compare recorded completions. Ids: the tasks'. NotFound arrives through the future."""
        for request in requests:
            _check_pair(request)
        content = payload("tasks", run_id, *(repr(request) for request in requests))

        def store(transaction: Transaction) -> list[str]:
            tasks = [_task(transaction, run_id, request, self.plan) for request in requests]
            for task in tasks:
                self.people.ask(transaction, task)
            return [task.task_id for task in tasks]

        return self.database.write(lambda tx: tx.once(request_id, content, lambda: store(tx)))

    def _scores(self, labeler: str) -> bool:
        return labeler != NOBODY and not self._compares(labeler)

    def _compares(self, labeler: str) -> bool:
        return labeler == PEOPLE or (labeler != NOBODY and self.labelers[labeler].kind == JUDGE)

    def _tasks(
        self, run_id: str, labeler: str, group: Group, implicit_rewards: Mapping[str, float] | None
    ) -> list[Task]:
        if not self._compares(labeler):
            return []
        only_for = "" if labeler == PEOPLE else machine_name(JUDGE, labeler)
        return comparison_tasks(run_id, group, self.plan, only_for, implicit_rewards)

    def _score(self, labeler: str, items: Sequence[Item]) -> list[Verdict]:
        judgements = self._judges[labeler].judgements(items)
        return [
            judgement.verdict(completion.completion_id, labeler)
            for judgement, (_, completion) in zip(judgements, items, strict=True)
        ]


def _task(transaction: Transaction, run_id: str, request: PairRequest, plan: TaskPlan) -> Task:
    first, second = find_completions(transaction.connection, [request.first_id, request.second_id])
    if first.completion.group_id != second.completion.group_id:
        raise InvalidInput(
            f"Completions {request.first_id!r} and {request.second_id!r} answer different prompts or groups.",
            "Compare two completions of one group.",
            "PAIR_ACROSS_GROUPS",
        )
    task_id = uuid.uuid4().hex
    return Task(
        task_id=task_id,
        run_id=run_id or first.run_id,
        group_id=first.completion.group_id,
        prompt=first.prompt,
        first=first.completion,
        second=second.completion,
        guideline=request.guideline or plan.guideline,
        required_labels=GOLD_LABELS if request.gold else whole_labels(request.required_labels, task_id),
        kind=TaskKind.GOLD if request.gold else TaskKind.COMPARISON,
        gold=request.gold,
        priority=request.priority,
        language=request.language or plan.language,
        uncertainty=request.uncertainty,
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
